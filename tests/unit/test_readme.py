"""The README's code runs as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from transferlab.fitting import quiet

README = Path(__file__).parents[2] / "README.md"


def test_the_callbacks_in_a_trainer_of_your_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        if "GradualUnfreezing" in block
    ]
    monkeypatch.chdir(tmp_path)
    code = code.replace('"resnet18"', '"test_resnet"').replace(
        "max_epochs=5", "max_epochs=5, logger=False, enable_progress_bar=False"
    )
    images = TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8))
    made: dict[str, object] = {"loader": DataLoader(images, batch_size=4)}
    with quiet():
        exec(code, made)
    trainer = made["trainer"]
    (optimizer,) = trainer.optimizers  # type: ignore[attr-defined]
    assert trainer.global_step == 10  # type: ignore[attr-defined]
    rates = {round(group["initial_lr"] / 1e-3, 6) for group in optimizer.param_groups}
    assert rates == {round(0.75**k, 6) for k in range(6)}
    assert len(optimizer.state) == sum(len(g["params"]) for g in optimizer.param_groups)
