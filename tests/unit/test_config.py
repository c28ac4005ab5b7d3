"""A copied configuration is the same in all that OmegaConf knows of it, and shares nothing."""

from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from transferlab.config import RunConfig, copied


@pytest.mark.parametrize("struct", [False, True])
def test_a_copy_is_what_omegaconf_s_own_copy_is(struct: bool, compose: Any) -> None:
    cfg = compose("target=digits", "strategy=gradual_unfreezing", "name=other")
    OmegaConf.set_struct(cfg, struct)
    own, expected = copied(cfg), cfg.copy()
    assert own == expected
    assert OmegaConf.to_yaml(own) == OmegaConf.to_yaml(expected)
    assert OmegaConf.get_type(own) is OmegaConf.get_type(expected) is RunConfig
    assert OmegaConf.is_struct(own) is OmegaConf.is_struct(expected) is struct


def test_a_copy_refuses_wrong_types_and_resolves_by_itself(compose: Any) -> None:
    cfg = compose("name=one")
    own = copied(cfg)
    own.name, own.trainer.threads = "two", 5
    assert (cfg.output_dir, own.output_dir) == ("outputs/one", "outputs/two")
    assert cfg.trainer.threads != 5
    with pytest.raises(ValidationError):
        own.trainer.threads = "many"
