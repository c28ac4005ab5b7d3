"""``transferlab recommend``: what is to be expected of sources, before training."""

import sys
from pathlib import Path

from transferlab.errors import UserError, nearest

HELP = """usage: transferlab recommend candidates.source=[A,B,...] [KEY=VALUE ...]

Score sources on a target's training images, before anything is adapted: one pass of features for
each, a ranking, early warnings, and which strategies to try first. No score is a verdict; the
command that gets one is printed. Writes recommend.json below outputs/NAME.

  candidates.source=[glyphs,published,FILE]   names of sources, or files of weights
  candidates.source=[{glyphs:{pretrain:{seed:1}}},{published:{tag:TAG}}]   with their own options
  candidates.backbone=[resnet10t,NAME]        backbones to compare, of conf/backbone or timm
  target=digits|image_folder ...  target.root=DIR  target.shots=N  backbone=NAME  seed=N
  experiment=NAME                             the sources that a study declares
  --config-dir DIR                            a further folder of configuration groups

The run on a dataset as source is made where it is missing, once, and kept in the cache.
"""
FLAGS = ("--config-dir", "-cd", "--help", "--debug")


def main(argv: list[str]) -> int:
    """Run ``transferlab recommend``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    overrides = _overrides(argv)
    from transferlab.cli.run import known_keys, user_folders
    from transferlab.config import config_folder, register

    register()
    folders = [config_folder(), *user_folders(argv)]
    here = str(Path.cwd())
    sys.path.append(here)  # classes of the user's own; last, so that they shadow nothing
    try:
        from transferlab.recommending.candidates import compose_candidates
        from transferlab.recommending.recommendation import recommend
        from transferlab.recommending.terminal import show

        shared, candidates = compose_candidates(overrides, folders, known_keys(folders))
        record, path = recommend(shared, candidates, _say)
        show(record, path)
    finally:
        sys.path.remove(here)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _overrides(argv: list[str]) -> list[str]:
    """Return what is no flag; an unknown flag is an error."""
    found = []
    for index, text in enumerate(argv):
        name = text.partition("=")[0]
        if text.startswith("-"):
            if name not in FLAGS:
                raise UserError(f"unknown flag {text} ({nearest(name, FLAGS)}).")
        elif not (index and argv[index - 1] in FLAGS[:2]):
            found.append(text)
    return found
