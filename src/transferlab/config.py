"""The typed root of every configuration, and where the configuration folder lies."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf


def _open_node() -> DictConfig:
    """Return a mapping that takes new keys on the command line without a ``+``."""
    node = OmegaConf.create({})
    OmegaConf.set_struct(node, False)
    return node


@dataclass
class ImagesConfig:
    """What happens to images that are not plain 8-bit grey or RGB: refuse, or convert as said."""

    more_than_8_bits: str = "refuse"
    alpha: str = "refuse"
    cmyk: str = "refuse"
    broken: str = "refuse"


@dataclass
class DataConfig:
    """A dataset and how it is split; ``dataset`` is a node with ``_target_``."""

    name: str | None = None  # None: the last folder of root
    root: str | None = None
    dataset: Any = None
    only: list[str] | None = None  # names of the classes to keep; None keeps all
    half: str | None = None  # first or second: every other image of each class; None keeps all
    test: float = 0.25  # share of the images, where the data brings no test split
    validation: float = 0.2  # share of the rest
    max_validation: int = 2000
    split_seed: int = 0
    validation_seed: int | None = None  # draws another validation split beside the same test split
    group_by: str | None = None
    duplicates: str = "refuse"
    corruption: str = "none"
    corruption_seed: int = 0
    images: ImagesConfig = field(default_factory=ImagesConfig)
    licence: str | None = None  # as SPDX names it, parts joined by AND; None is recorded as unknown


@dataclass
class TargetConfig(DataConfig):
    """The dataset adapted to, and how much of it may be used."""

    shots: int | None = None  # items per class
    fraction: float | None = None
    near_duplicates: str = "refuse"  # more than 0.1 % of test images that were learned from
    report_by: list[str] = field(default_factory=list)  # metadata columns that predictions carry
    also_test: Any = field(default_factory=_open_node)  # name -> a further test set


@dataclass
class BudgetConfig:
    """How long a run trains: optimiser steps, or passes over its own training images."""

    steps: int | None = None
    epochs: float | None = None


@dataclass
class PretrainConfig:
    """The source run's own budget, optimizer and seed: one run serves every arm that needs it."""

    budget: BudgetConfig = field(default_factory=BudgetConfig)
    batch_size: int = 64
    seed: int = 0
    optimizer: Any = None
    scheduler: Any = None
    augmentation: Any = None


@dataclass
class SourceConfig(DataConfig):
    """Where the weights come from."""

    kind: str = "none"
    tag: str | None = None  # of timm's published weights
    path: str | None = None  # of a weights file or a run directory
    classes: int | None = None  # rows of the checkpoint's own classifier, checked where given
    parts: Any = None  # of a composed source: names of sources, or name -> what differs in it
    join: str = "disjoint"  # classes of the parts; by_name makes those of one name one class
    leave_out: str | None = None  # a part that the source goes without
    pretrain: PretrainConfig | None = None


@dataclass
class BackboneConfig:
    """Any timm model, or a module of the user's."""

    name: str = MISSING
    image_size: int | None = None  # pixels; None takes the backbone's own input size
    crop_pct: float | None = 1.0  # share of the shorter side that stays; None takes the backbone's
    mean: list[float] | None = None  # a value a channel, for images in [0, 1]; None: its own
    std: list[float] | None = None
    interpolation: str | None = None  # of resizing
    kwargs: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
    module: Any = field(default_factory=_open_node)  # a node with _target_ instead of timm's model
    cut: str | None = None  # path of the module's classifier, which is taken out
    licence: str | None = None  # of published weights; None takes what timm states


@dataclass
class StrategyConfig:
    """How the weights are adapted: where they start, and callbacks by name."""

    name: str = MISSING
    init: str = "source"
    groups: str = "stages"  # the unit of unfreezing
    callbacks: dict[str, Any] = field(default_factory=dict)


@dataclass
class MetricConfig:
    """The score that validation and verdicts use, and torchmetrics reported beside it."""

    name: str = "auto"
    others: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainerConfig:
    """The machine's side of a run; what can change a result is part of the run's identity."""

    accelerator: str = "auto"
    devices: int = 1  # processes on a node, each with a device; part of a run's identity
    num_nodes: int = 1  # machines, which SLURM starts; devices x nodes are in a run's identity
    replica_check: Any = "epoch"  # "epoch", a number of optimiser steps, or null; several devices
    precision: str = "auto"  # the fastest of fp32 and bf16-mixed, timed once a model and machine
    threads: int | None = None  # of one run; None leaves PyTorch's choice
    validations: int = 5  # how often validation runs, evenly over the budget
    prune_below: list[float] | None = None  # a score a validation; a run below it stops
    log_every: int = 10  # optimiser steps
    reuse_gb: float = 2.0  # GiB for what a frozen part computes, once a phase; 0: at every step
    feature_cache_gb: float = 10.0  # GiB on disk for what equal frozen parts compute; 0: none
    channels_last: bool = True  # and, on a CPU, the smallest maps as matrix products
    data: str = "auto"  # decoded images on the device, or streamed by workers
    workers: int = 0
    gradient_clip: float | None = None  # norm
    accumulate: int = 1  # micro-batches per optimiser step; part of a run's identity
    gradient_checkpointing: bool = False  # less memory, more time, the same weights
    compile: bool = False  # torch.compile of the training step; part of a run's identity
    sync_norms: bool = False  # batch norm over the images of all GPUs; part of a run's identity
    deterministic: bool = False
    energy: str = "estimate"  # of the fit: measured on NVIDIA GPUs, else watts x time
    watts: float | None = None  # of one CPU thread or one accelerator; None assumes 4, or 300
    pue: float = 1.58  # the building's share: the world's data centres, as Strubell 2019 takes it
    carbon_intensity: float = 481.0  # g CO2e a kWh: the world's mean of 2023 (Ember, 2024)


@dataclass
class CheckpointConfig:
    """Which weights a run keeps, which ones are tested, and how much a killed run may lose."""

    keep: str | None = None  # what stays; None: what `select` chose, in studies once an arm
    select: str = "last"  # the weights that are tested
    every_minutes: float | None = 5.0  # how often a state to resume from is saved; never identity
    every_steps: int | None = None  # optimiser steps; the one that comes first counts


@dataclass
class TuneConfig:
    """The same trials for every arm, scored on validation alone."""

    grid: dict[str, list[Any]] | None = field(default_factory=dict)
    search: Any = field(default_factory=_open_node)  # instead: key -> a range, or choices
    trials: int | None = None  # of a search, for every arm; None: 12
    batch: int | None = None  # how many of them are asked for at once; None: 4
    sampler: str | None = None  # tpe or random; None: tpe
    prune: str | None = None  # median: stop trials below the median of earlier ones
    per: str = "study"  # one choice for all replicates, or one for each: replicate
    seeds: int | None = None  # of the one choice for all; None: 3
    shots: int | None = None  # tune every arm at this size instead of the cell's own
    extend: int | None = None  # values that a grid may grow by where an end wins; None: 2


@dataclass
class VerdictConfig:
    """What a verdict is about; set before the first run."""

    metric: str = "auto"
    margin: float = 0.01
    alpha: float = 0.05
    scope: str = "this_pool"


@dataclass
class StudyConfig:
    """Cells x arms x seeds: the declared family of comparisons."""

    cells: dict[str, Any] = field(default_factory=dict)
    arms: Any = field(default_factory=dict)
    exclude: list[Any] = field(default_factory=list)  # {key: value}: arms that a cell goes without
    tune: TuneConfig | None = None
    seeds: int = 5
    looks: list[int] = field(default_factory=list)  # numbers of seeds; it ends when all is settled
    own_best: list[int] = field(default_factory=list)  # budgets in steps, for a second family
    controls: bool = True  # add a frozen random-init arm for every frozen strategy
    predict: bool = False  # score the sources before training, to stand beside what comes of them
    leave_one_out: bool = False  # add each arm from a composed source again, without each part
    verdict: VerdictConfig = field(default_factory=VerdictConfig)


@dataclass
class RunConfig:
    """One run = one fit = one record."""

    name: str = "default"
    output_dir: str = "outputs/${name}"
    seed: int = 0
    batch_size: int = 32  # images per optimiser step, over all devices
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    source: SourceConfig = MISSING
    target: TargetConfig = MISSING
    backbone: BackboneConfig = MISSING
    head: Any = MISSING
    strategy: StrategyConfig = MISSING
    augmentation: Any = None
    views: int | None = None  # of an augmented image, in turn; None: another one at every step
    optimizer: Any = MISSING
    scheduler: Any = None
    loss: Any = MISSING
    metric: MetricConfig = field(default_factory=MetricConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracker: Any = None
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    study: StudyConfig | None = None
    allowed_packages: list[str] = field(default_factory=list)  # whose code a `_target_` may name
    allowed_licences: list[str] | None = None  # of data and weights; None: any, also unknown ones
    data_root: str = "data"  # the folder that experiments on real data refer to
    settings: dict[str, Any] = field(default_factory=dict)  # what tuning chose; for the record
    purpose: str = "single"  # single, source, tune or replicate; set by whoever plans the run
    request: str | None = None  # a file of planned runs: what a launcher's job is handed
    retry: str | None = None  # failed: a study's failed runs are made again
    dry_run: bool = False
    find_lr: bool = False  # search for a rate instead of training
    fetch: bool = False  # bring what runs need from the network, and train nothing
    forgetting: bool = False  # measure what was lost of the source, and how far features moved


TYPED_GROUPS: dict[str, type] = {
    "source": SourceConfig, "target": TargetConfig, "backbone": BackboneConfig,
    "strategy": StrategyConfig, "metric": MetricConfig, "trainer": TrainerConfig,
    "study": StudyConfig,
}  # fmt: skip


def register() -> None:
    """Make the typed root known to Hydra under the name that ``conf/run.yaml`` starts from."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    for group, node in TYPED_GROUPS.items():
        store.store(group=group, name=f"{group}_schema", node=node)


def config_folder() -> Path:
    """Return the configuration folder: the clone's where there is one, else the installed one.

    An editable install sees edits at once, because the clone is looked at first.
    """
    package = Path(__file__).resolve().parent
    clone = package.parents[1]
    if (clone / "pyproject.toml").is_file() and (clone / "conf" / "run.yaml").is_file():
        return clone / "conf"
    return package / "conf"
