import numpy as np
import torch
from scipy.stats import kstest

from transferlab.randomness import derive_seed, sample_uniforms


def test_seeds_differ_by_purpose_and_fit_torch() -> None:
    seeds = {derive_seed(s, p, n) for s in range(5) for p in ("order", "step") for n in range(5)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "step", 23) != derive_seed(12, "step", 3)
    torch.manual_seed(max(seeds))


def test_a_derived_seed_never_changes() -> None:
    assert derive_seed(0, "order", 0) == derive_seed(0, "order", 0)
    assert (
        derive_seed(0, "head")
        == int.from_bytes(__import__("hashlib").sha256(b"0:head").digest()[:8], "big") // 2
    )


def test_uniforms_are_uniform_over_items_draws_and_steps() -> None:
    over_items = sample_uniforms(0, 0, torch.arange(20_000), 1)[:, 0]
    over_draws = sample_uniforms(0, 0, torch.arange(1), 20_000)[0]
    over_steps = torch.cat(
        [sample_uniforms(0, step, torch.arange(1), 1)[0] for step in range(4000)]
    )
    for sample in (over_items, over_draws, over_steps):
        assert 0 <= sample.min() <= sample.max() < 1
        assert kstest(sample.numpy(), "uniform").pvalue > 0.001


def test_uniforms_of_neighbours_are_uncorrelated() -> None:
    table = sample_uniforms(3, 5, torch.arange(5000), 4).numpy()
    between_draws = np.corrcoef(table.T)[np.triu_indices(4, 1)]
    between_items = np.corrcoef(table[:-1, 0], table[1:, 0])[0, 1]
    between_steps = np.corrcoef(table[:, 0], sample_uniforms(3, 6, torch.arange(5000), 1)[:, 0])
    assert np.abs([*between_draws, between_items, between_steps[0, 1]]).max() < 0.06


def test_uniforms_depend_on_seed_step_and_item_alone() -> None:
    items = torch.tensor([7, 3, 900])
    whole = sample_uniforms(1, 2, items, 5)
    assert torch.equal(sample_uniforms(1, 2, items.flip(0), 5), whole.flip(0))
    assert torch.equal(sample_uniforms(1, 2, items[1:2], 5), whole[1:2])
    assert torch.equal(sample_uniforms(1, 2, items, 3), whole[:, :3])
    assert not torch.equal(sample_uniforms(1, 3, items, 5), whole)
    assert not torch.equal(sample_uniforms(2, 2, items, 5), whole)
