"""Record what the peers' own code does at every optimiser step. See README.md."""

import argparse
import importlib
import logging
import warnings
from pathlib import Path

import torch

PEERS = {
    "fastai": "from_fastai",
    "finetuning-scheduler": "from_finetuning_scheduler",
    "lightning": "from_lightning",
    "timm": "from_timm",
}
TRACES = Path(__file__).parents[2] / "tests" / "data" / "parity"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", help=f"any of {', '.join(PEERS)} (default: all)")
    parser.add_argument("--out", type=Path, default=TRACES, help="where the JSON files go")
    arguments = parser.parse_args()
    unknown = set(arguments.peers) - set(PEERS)
    if unknown:
        parser.error(f"no peer called {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    for peer in arguments.peers or PEERS:
        for path in importlib.import_module(PEERS[peer]).record(arguments.out):
            print(f"{path.stat().st_size:7d} bytes  {path.name}")


if __name__ == "__main__":
    main()
