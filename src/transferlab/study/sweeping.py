"""From Hydra's multirun to a study: declare, conduct, judge."""

import sys
from dataclasses import replace

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from transferlab.analysis.judge import judge
from transferlab.analysis.terminal import show
from transferlab.checks import check_output
from transferlab.composing import parse
from transferlab.errors import UserError
from transferlab.outcome import outcome
from transferlab.records import sha256
from transferlab.study.checking import check_forgetting, check_study
from transferlab.study.composition import ArmConfigs
from transferlab.study.conduct import Study
from transferlab.study.declaration import Declaration, declare
from transferlab.study.disk import require_study_room
from transferlab.study.fetching import fetch
from transferlab.study.forecast import show_study
from transferlab.study.requests import launching
from transferlab.study.tracking import track

ENOUGH = 0.8
"""Share of the planned pairs from which a study with failed runs still counts as made."""


def sweep(
    context: HydraContext, task: TaskFunction, config: DictConfig, arguments: list[str]
) -> None:
    """Conduct and judge what a multirun asks for; a lack of pairs is left in ``outcome``.

    Args:
        context: Hydra's.
        task: what a job calls.
        config: the master configuration.
        arguments: the overrides of the command line, swept ones included.
    """
    outcome.started = True
    declaration = _declared(config, arguments)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=task, config=config
    )
    configs = ArmConfigs(context.config_loader, config)
    study = Study(config, declaration, configs, launching(launcher, config))
    check_forgetting(config, [state.cfg for cell in study.cells for state in cell.arms])
    if config.fetch:
        arms = [cfg for c in study.cells for s in c.arms for cfg in (s.cfg, s.tuning_cfg)]
        print("\n".join(fetch(arms)))  # noqa: T201 - what a person asked to have
        return
    study.settle()
    if config.dry_run:
        show_study(study)
        return
    _conduct(study, config)


def _declared(config: DictConfig, arguments: list[str]) -> Declaration:
    if config.find_lr:
        raise UserError(
            "--find-lr searches for the rate of one run: leave out -m and the study, and give one "
            "value a key."
        )
    check_study(config)
    declaration = declare(config, parse(arguments))
    if config.study is None and config.name == "default":
        # a grid's folder follows from the grid: asked for again, it goes on
        name = f"grid-{sha256(' '.join(sorted(arguments)))[:8]}"
        declaration = replace(declaration, shared=(*declaration.shared, f"name={name}"))
        with open_dict(config):
            config.name = name
    return declaration


def _conduct(study: Study, config: DictConfig) -> None:
    check_output(study.folder)
    sys.stderr.write(f"disk: {require_study_room(study)}\n")
    study.conduct()
    judgement = judge(study.folder)
    show(judgement)
    track(config, study.folder, judgement)
    share, first = study.whole_pairs()
    if share < ENOUGH:
        outcome.failure = (
            f"only {share:.0%} of the planned pairs were made; the first failure: {first}"
        )
