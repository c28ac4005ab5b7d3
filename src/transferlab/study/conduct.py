"""The study itself: source runs, tuning, replicates; then the judgement reads the records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from transferlab.analysis.arms import cells_of
from transferlab.analysis.load import PREDICTED, load_study
from transferlab.analysis.outcomes import undecided
from transferlab.analysis.verdicts import judge_cells
from transferlab.errors import UserError
from transferlab.evaluation import choose_metric, imbalance
from transferlab.planning import Plan, plan_run, plan_source
from transferlab.records import FORMAT, clear_leftovers, write_json
from transferlab.scouting.arms import predict_arms
from transferlab.split_data import data_name
from transferlab.study.checking import check_grid, check_pruned_by, check_pruning
from transferlab.study.composition import ArmConfigs, point
from transferlab.study.declaration import Cell, Declaration, plain
from transferlab.study.progress import Display
from transferlab.study.requests import Launching, launch, outcomes
from transferlab.study.roster import Excluded, with_controls, with_parts_left_out, with_scratch
from transferlab.study.searching import Searcher
from transferlab.study.space import corners, read_space
from transferlab.study.state import ArmState, CellState, study_record, trials_of
from transferlab.study.tuner import Tuner
from transferlab.study.tuning import Settings, points


class Study:
    """Conduct a declared study on a launcher.

    Args:
        cfg: the master configuration.
        declaration: cells, arms and seeds.
        configs: composes the arms.
        where: the launcher.
    """

    def __init__(
        self, cfg: DictConfig, declaration: Declaration, configs: ArmConfigs, where: Launching
    ) -> None:
        self.cfg, self.declaration, self.where = cfg, declaration, where
        self.folder = Path(cfg.output_dir).absolute()
        self._balance: dict[str, str] = {}
        self.planned = 0
        """Runs that are known to come, for whoever looks on; 0 once all have been asked for."""
        if declaration.tuned:
            self._tuner = self._make_tuner(cfg.study.tune)
        rules: Any = cfg.study.exclude if cfg.study is not None else []
        self._excluded = Excluded([plain(rule) for rule in rules])
        self.cells = [self._cell(cell, configs) for cell in declaration.cells]
        self._excluded.require_used()

    def _make_tuner(self, tune: DictConfig) -> Tuner | Searcher:
        if tune.search:
            return Searcher(tune, self.folder, self._plan_trial, self._wave)
        return Tuner(tune, self._plan_trial, self._wave, self._expect)

    def conduct(self) -> None:
        """Make every run that is missing and keep ``study.json`` up to date."""
        clear_leftovers(self.folder)
        self.planned = self._planned()
        self.write()
        self._announce()
        sources = self.source_plans()
        with Display(len(sources) + self.planned) as self._display:
            self._wave("source runs", sources)
            self._require(sources)
            self._predict()
            unsettled = self.cells
            for look in self.looks():
                self._replicate(unsettled, self.declaration.seeds[:look])
                if look < len(self.declaration.seeds):
                    unsettled = self._unsettled(unsettled)
        self.planned = 0
        self.write()

    def _require(self, sources: Sequence[Plan]) -> None:
        """Refuse to go on without a source: every run that needs it would try it anew."""
        for plan, record in zip(sources, outcomes(sources), strict=True):
            if record is None or record["status"] != "done":
                status = f"{record['status']}: {record['reason']}" if record else "left no record"
                again = "" if record and record["status"] != "failed" else ", or add retry=failed"
                raise UserError(
                    f"the source run on {data_name(plan.cfg.target)} {status}. "
                    f"See {plan.directory}; change source.pretrain{again}."
                )

    def _predict(self) -> None:
        """Score the sources on the target before any arm is trained, where the study asks for it.

        Written once: what is said after the runs are known is no prediction.
        """
        path = self.folder / PREDICTED
        if self.cfg.study is None or not self.cfg.study.predict or path.is_file():
            return
        records = [
            record
            for cell in self.cells
            for record in predict_arms(
                [
                    self._plan(s.cfg, self.declaration.seeds[0], "replicate", ()).cfg
                    for s in cell.arms
                ],
                cell=cell.cell.id,
            )
        ]
        write_json(path, {"format": FORMAT, "predictions": records})

    def looks(self) -> list[int]:
        """Return the planned looks, in numbers of seeds; a single one has all of them."""
        looks = list(self.cfg.study.looks) if self.cfg.study is not None else []
        return looks or [len(self.declaration.seeds)]

    def _unsettled(self, cells: Sequence[CellState]) -> list[CellState]:
        """Judge what is there and return the families that more seeds could still decide.

        A family is extended whole, scratch included, or not at all.
        """
        study = load_study(self.folder)
        judged = judge_cells(study, cells_of(study))
        records = [*judged.strategies, *judged.sources, *judged.parts]
        return [
            state
            for state in cells
            if any(undecided(r) for r in records if r["cell"] == state.cell.id)
        ]

    def _replicate(self, cells: Sequence[CellState], seeds: Sequence[int]) -> None:
        """Make the runs that verdicts are about, with the settings that tuning chose."""
        if self.declaration.tuned:
            for cell in cells:
                self._tuner.settle(cell, seeds)
        self.write()
        for cell in cells:
            for state in cell.arms:
                state.runs = [
                    self._plan(state.cfg, seed, "replicate", state.best(seed)) for seed in seeds
                ]
        self.write()
        replicates = [p for cell in cells for state in cell.arms for p in state.runs]
        self._wave("replicates", _interleaved(replicates, len(seeds)))

    def whole_pairs(self) -> tuple[float, str]:
        """Return the share of (arm, scratch) pairs whose runs both have an outcome.

        A diverged run is an outcome. The second value describes the first run without one.
        """
        pairs, first = [], ""
        for cell in self.cells:
            made = [[r is not None and r["status"] != "failed" for r in outcomes(s.runs)]
                    for s in cell.arms]  # fmt: skip
            pairs += [a and b for arm in made[1:] for a, b in zip(made[0], arm, strict=True)]
            pairs += made[0] if len(made) == 1 else []
            for state in cell.arms:
                for plan, record in zip(state.runs, outcomes(state.runs), strict=True):
                    if record is None or record["status"] == "failed":
                        reason = record["reason"] if record else "it left no record"
                        what = f"{state.arm.id}, seed {plan.cfg.seed}: {reason}"
                        first = first or f"{what} (see {plan.directory})"
        return sum(pairs) / max(len(pairs), 1), first

    def write(self) -> None:
        """Write ``study.json`` as it stands."""
        record = study_record(self.cfg, self.declaration, self.cells, self.planned)
        write_json(self.folder / "study.json", record)

    def _cell(self, cell: Cell, configs: ArmConfigs) -> CellState:
        declared = self.cfg.study is not None  # a plain grid gets what it asks for, nothing more
        admitted = self._excluded.admitted(cell, self.declaration, configs)
        arms = with_scratch(cell, admitted, configs, add=declared)
        if declared and self.cfg.study.leave_one_out:
            arms = with_parts_left_out(arms, cell, self.declaration, configs)
        if declared and self.cfg.study.controls:
            arms = with_controls(arms, cell, self.declaration, configs)
        tune = self.cfg.study.tune if self.cfg.study is not None else None
        more = [f"target.shots={tune.shots}", "target.fraction=null"] if tune and tune.shots else []
        states = [
            ArmState(
                arm,
                configs.of(self.declaration, cell, arm),
                configs.of(self.declaration, cell, arm, *more),
            )
            for arm in arms
        ]
        grid: Any = plain(tune.grid) if tune is not None else None
        grid = {str(key): list(values) for key, values in (grid or {}).items()}
        if cell.own_best:
            grid["budget.steps"] = list(cell.own_best)
        space = read_space(plain(tune.search)) if tune is not None else {}
        if grid or space:
            tried = corners(space) if space else points(grid)
            check_grid([state.tuning_cfg for state in states], tried)
        if tune is not None and tune.prune is not None:
            check_pruning([state.tuning_cfg for state in states])
        return CellState(cell, states, grid, space)

    def _planned(self) -> int:
        """Count the tuning runs and replicates that are known before anything runs."""
        first, tuning = self.looks()[0], self.tuning_seeds()
        return sum(
            len(cell.arms) * (first + (self.trials(cell) * tuning if tuning else 0))
            for cell in self.cells
        )

    def trials(self, cell: CellState) -> int:
        """Return how many settings every arm of a cell tries before the grid grows, if it does."""
        return trials_of(cell, self.cfg.study.tune) if self.declaration.tuned else 0

    def tuning_seeds(self) -> int:
        """Return how many seeds each point of the grid is fitted on before the first look."""
        return self._tuner.seeds(self.looks()[0]) if self.declaration.tuned else 0

    def source_plans(self) -> list[Plan]:
        """Plan the source runs: made first, the lock that guards them is only the safety net."""
        plans: dict[str, Plan] = {}
        for cell in self.cells:
            for state in cell.arms:
                cfg = state.cfg
                if cfg.source.kind == "dataset" and cfg.strategy.init != "random":
                    plan = plan_source(cfg)
                    plans[plan.run_id] = plan
        return list(plans.values())

    def _plan_trial(
        self, state: ArmState, seed: int, settings: Settings, below: list[float] | None = None
    ) -> Plan:
        cfg = state.tuning_cfg
        if below is not None:
            cfg = cfg.copy()
            cfg.trainer.prune_below = below
        return self._plan(cfg, seed, "tune", settings)

    def _expect(self, more: int) -> None:
        self.planned += more
        self._display.expect(more)

    def _plan(self, cfg: DictConfig, seed: int, purpose: str, settings: Settings) -> Plan:
        cfg = point(cfg, seed, purpose, dict(settings))
        if self.declaration.tuned and self._tuner.per_replicate:
            # Tuned in each replicate on the same images, their luck would be in every one alike.
            cfg.target.validation_seed = seed
        first = seed == self.declaration.seeds[0]
        if purpose == "tune" or (cfg.checkpoint.keep is None and not first):
            cfg.checkpoint.keep = "none"  # one replicate's weights an arm are enough to look at
        watched = cfg.checkpoint.select != "last" or cfg.trainer.prune_below is not None
        if purpose == "tune" and not watched:
            cfg.trainer.validations = 1  # nobody looks at the curve of a tuning run
        return plan_run(cfg)

    def _wave(self, title: str, plans: Sequence[Plan]) -> None:
        unique = list({plan.run_id: plan for plan in plans}.values())
        with self._display.wave(title, [plan.directory for plan in unique]):
            launch(self.where, unique, self.folder / "requests")

    def settle(self) -> None:
        """Fix what the arms of a cell share, before anything is tuned.

        That is the score, from the balance of the classes, and the precision where it is left
        open, also of arms whose batches are of another size: a timing of their own could set them
        apart from those that they are compared with.
        """
        for cell in self.cells:
            cfg = cell.arms[0].cfg
            plan = plan_run(cfg)
            store = plan.data.store
            for arm in [own for state in cell.arms for own in (state.cfg, state.tuning_cfg)]:
                if arm.trainer.precision == "auto" and arm.backbone == cfg.backbone:
                    arm.trainer.precision = plan.cfg.trainer.precision
            wanted = cfg.metric.name
            if self.cfg.study is not None and self.cfg.study.verdict.metric != "auto":
                wanted = self.cfg.study.verdict.metric
            cell.metric = choose_metric(wanted, store.labels, len(store.classes))
            if cell.space and self.cfg.study.tune.prune is not None:
                own = choose_metric(cfg.metric.name, store.labels, len(store.classes))
                check_pruned_by(own, cell.metric)
            times = imbalance(store.labels, len(store.classes))
            self._balance[data_name(cfg.target)] = (
                f"{len(store)} images, {len(store.classes)} classes, the largest {times:.1f} times "
                f"the smallest; score: {cell.metric}"
            )

    def _announce(self) -> None:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        for name, balance in self._balance.items():
            console.print(f"{escape(name)}: {balance}")
        for cell in self.declaration.repeated:
            console.print(f"{escape(cell)} was asked for more than once: its runs are made once")


def _interleaved(plans: Sequence[Plan], seeds: int) -> list[Plan]:
    """Order runs by replicate first, so that an interrupted study has whole pairs to show."""
    return [plan for seed in range(seeds) for plan in plans[seed::seeds]]
