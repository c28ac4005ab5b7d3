"""What a cluster can't do is told in one line, before anything is submitted."""

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("slurm")]


TYPO = ("hydra.launcher.partition=hihg",)


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        (TYPO, ("partition=hihg", "nearest: high")),
        (("-m", "seed=0,1", *TYPO), ("partition=hihg", "nearest: high")),
        (("hydra.launcher.time=9999",), ("time=9999", "partition low allows 1440 minutes")),
        (("trainer.num_nodes=8",), ("trainer.num_nodes=8", "partition low has 2")),
        (("hydra.launcher.cpus_per_task=64",), ("cpus_per_task=64", "partition low has 4")),
        (
            ("trainer=gpu", "trainer.devices=4", "hydra.launcher.gres=gpu"),
            ("submitted", "node configuration is not available"),
        ),
    ],
)
def test_refused(given: tuple[str, ...], holds: tuple[str, ...], slurm: Any, cli: Any) -> None:
    line = [part for part in slurm.line if not (part == "trainer=cpu" and "trainer=gpu" in given)]
    result = cli("run", *line, *slurm.launcher, *given)
    assert result.code == 2, result.err
    assert all(part in result.err for part in holds), result.err
    assert len(result.lines) == 1 or "-m" in given  # a study says first what its data are
