"""What can be wrong with the launcher's settings is told before SLURM is asked."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from transferlab.config import config_folder
from transferlab.errors import UserError
from transferlab.slurm.settings import SlurmSettings, check_settings
from transferlab.slurm.site import _minutes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"time": 0}, "hydra.launcher.time=0: expected 1 or more"),
        ({"array_parallelism": 0}, "array_parallelism=0: expected 1"),
        ({"runs_per_job": 0}, "runs_per_job=0: expected 1"),
        ({"max_submit": -1}, "max_submit=-1: expected 1"),
        ({"poll_seconds": 0}, "poll_seconds=0: expected more than 0"),
        ({"mem_gb": -4}, "mem_gb=-4: expected more than 0"),
        ({"time": 2, "signal_seconds": 120}, "told to stop as it starts"),
        ({"additional_parameters": {"signal": "USR1@9"}}, "additional_parameters.signal: set by"),
        ({"additional_parameters": {"ntasks_per_node": 2}}, "ntasks_per_node: set by"),
    ],
)
def test_values_by_themselves(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_settings(SlurmSettings(**given))


def test_the_yaml_says_every_setting_and_its_defaults_are_those_of_the_code() -> None:
    yaml = OmegaConf.load(config_folder() / "hydra" / "launcher" / "slurm.yaml")
    plain: Any = OmegaConf.to_container(yaml)
    del plain["defaults"]
    code = {k: v for k, v in vars(SlurmSettings()).items() if not k.startswith("_")}
    assert plain == code
    check_settings(SlurmSettings(**plain))


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("1-02:03:04", 1563), ("12:00:00", 720), ("30:00", 30), ("infinite", None), ("n/a", None)],
)
def test_time_limits_as_sinfo_prints_them(limit: str, minutes: int | None) -> None:
    assert _minutes(limit) == minutes
