"""One rank of the job behind test_ranks.py: fits many cases in one process group.

Run by ``torch.distributed.run`` as ``ranks_worker.py REQUEST.json OUT``; also imported by the test,
which fits the same cases with a single process. A case is a name, overrides and what to do to it.
"""

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from transferlab import fitting
from transferlab.backbones.timm import create_backbone
from transferlab.callbacks import phases
from transferlab.collectives import average, from_all
from transferlab.config import config_folder, register
from transferlab.errors import RunError
from transferlab.evaluation import gather, gathered
from transferlab.planning import Plan, plan_run
from transferlab.rank import _heed_parent

Case = dict[str, Any]
State = dict[str, torch.Tensor]


class Watch(Callback):
    """Keep the weights whenever another part begins to train, and the items of every step."""

    last: "Watch"

    def __init__(self, synced: bool) -> None:
        self.synced = synced
        self.states: dict[str, State] = {}
        self.items: list[list[int]] = []
        self.local_means: list[float] = []
        self._trained: tuple[bool, ...] = ()
        Watch.last = self

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.items.append(batch.positions.tolist())
        if not self.synced:
            trainer.strategy.model.require_backward_grad_sync = False
        trained = tuple(p.requires_grad for p in pl_module.model.parameters())
        if trained != self._trained:
            self._trained = trained
            self._keep(f"step {trainer.global_step}", pl_module.model)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._keep("end", pl_module.model)

    def _keep(self, name: str, model: torch.nn.Module) -> None:
        self.states[name] = {k: v.detach().clone() for k, v in model.state_dict().items()}


def composed(overrides: list[str]) -> DictConfig:
    """Compose a configuration as the command line does."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("run", overrides=overrides)
    with open_dict(cfg):
        cfg.study = None
    OmegaConf.set_struct(cfg, False)
    return cfg


def weights_for(plan: Plan) -> State | None:
    """Source weights and statistics as after some training, the same in every process."""
    if plan.cfg.strategy.init == "random":
        return None
    torch.manual_seed(5)
    kwargs = dict(plan.cfg.backbone.kwargs)
    state = create_backbone(plan.cfg.backbone.name, kwargs, plan.cfg.backbone.image_size)
    return {
        key: value + 0.05 * torch.rand_like(value) if value.is_floating_point() else value + 7
        for key, value in state.state_dict().items()
    }


def fitted(case: Case, folder: Path) -> tuple[fitting.Fit, Watch]:
    """Fit a case; the watch stands where it sees every step before anything else does."""
    plan = plan_run(composed([*case["overrides"], f"output_dir='{folder}'"]))
    own = fitting.replicas, phases.rewrap
    watch = Watch(synced=not case.get("unsynced"))

    def watched(*arguments: Any) -> tuple[list[Callback], list[Callback]]:
        first, last = own[0](*arguments)
        return first, [*last, watch]

    fitting.replicas = watched
    if case.get("unwrapped"):  # wrapped once, as under Lightning's own finetuning callback
        calls = iter([own[1]])
        phases.rewrap = lambda *arguments: next(calls, lambda *_: None)(*arguments)
    try:
        return fitting.fit(plan, weights_for(plan), plan.directory, []), watch
    finally:
        fitting.replicas, phases.rewrap = own


def main(request: Path, out: Path) -> None:
    """Fit every case; each leaves ``<name>.pt`` on rank 0, or its error on every rank."""
    rank = int(os.environ["RANK"])
    threading.Thread(target=_heed_parent, daemon=True).start()
    for case in json.loads(request.read_text()):
        torch.set_num_threads(1)
        try:
            done, watch = fitted(case, out / case["name"])
        except Exception as error:  # the guard's is wanted; others are told by the test
            told = str(error) if isinstance(error, RunError) else traceback.format_exc()
            (out / f"{case['name']}.rank{rank}.txt").write_text(told)
            continue
        shares = from_all(watch.items)
        replicas = from_all({k: v.cpu() for k, v in watch.states["end"].items()})
        apart = [
            k for k in replicas[0] if any(not torch.equal(r[k], replicas[0][k]) for r in replicas)
        ]
        scores = from_all(done.module.validation_score)
        if rank == 0:
            kept = {"states": watch.states, "shares": shares, "apart": apart, "scores": scores,
                    "curve": done.history.curve}  # fmt: skip
            torch.save(kept, out / f"{case['name']}.pt")
    _collectives(rank, out)
    torch.distributed.destroy_process_group()


def _collectives(rank: int, out: Path) -> None:
    """Average and gather what differs between the ranks."""
    import numpy as np

    tensors = [torch.full((2, 3), float(rank)), torch.tensor(2.0 * rank, dtype=torch.float64)]
    average(tensors)
    rows = np.array([1, 3, 5] if rank else [0, 2])  # unequal shares
    batches = [(rows[:, None].astype(np.float32), rows)]
    order = np.array([5, 0, 1, 2, 3])
    found = gather(gathered(batches), order)[:, 0].tolist()
    lost = ""
    try:
        gather(gathered(batches), np.array([0, 4]))
    except RuntimeError as error:
        lost = str(error)
    values = from_all({"means": [float(t.mean()) for t in tensors], "found": found, "lost": lost})
    if rank == 0:
        (out / "collectives.json").write_text(json.dumps(values))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
