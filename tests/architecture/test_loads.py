"""No file is read in a way that could run what is in it."""

import ast
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
RUN_WHAT_THEY_READ = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
STATED = {"torch.load": "weights_only", "np.load": "allow_pickle"}
"""What a call must say of itself, since a default may change."""
SAFE = {"weights_only": True, "allow_pickle": False}
NEVER = (
    "eval", "exec", "os.system", "os.popen", "torch.hub.load", "yaml.load", "yaml.unsafe_load",
    "pd.read_pickle", "pandas.read_pickle",
)  # fmt: skip


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call of a dotted name in our code: where, what, and the call."""
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(SRC)}:{node.lineno}", ast.unparse(node.func), node


def test_loaders_say_that_they_run_nothing() -> None:
    found = [(where, name, node) for where, name, node in calls() if name in STATED]
    assert {name for _, name, _ in found} == set(STATED)
    for where, name, node in found:
        word = STATED[name]
        given = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg == word}
        assert given == {word: SAFE[word]}, where


def test_checkpoints_of_fits_are_read_as_weights_only() -> None:
    """Lightning's own reader is torch.load too."""
    resumed = [node for _, name, node in calls() if name == "trainer.fit"]
    assert resumed
    for node in resumed:
        given = {k.arg: k.value for k in node.keywords}
        if "ckpt_path" in given:
            assert ast.literal_eval(given["weights_only"]) is True


def test_nothing_runs_what_it_reads() -> None:
    assert not [where for where, name, _ in calls() if name in NEVER]
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & set(RUN_WHAT_THEY_READ), path


def test_no_shell_is_asked() -> None:
    for where, name, node in calls():
        shell = [ast.unparse(k.value) for k in node.keywords if k.arg == "shell"]
        assert not shell or not name.startswith("subprocess"), where
