"""Heads without gradient steps, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from transferlab.errors import UserError
from transferlab.heads.knn import KNNHead
from transferlab.heads.logistic import LogisticHead
from transferlab.heads.prototype import PrototypeHead
from transferlab.heads.ridge import RidgeHead

WIDTH, CLASSES = 9, 5


@pytest.fixture
def cloud() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training features and labels of overlapping classes, and features to label."""
    torch.manual_seed(3)
    labels = torch.arange(60) % CLASSES
    centres = torch.randn(CLASSES, WIDTH)
    features = centres[labels] + torch.randn(60, WIDTH)
    return features, labels, centres[torch.arange(200) % CLASSES] + 1.5 * torch.randn(200, WIDTH)


def test_prototype_predicts_as_nearest_centroid(cloud) -> None:
    features, labels, new = cloud
    head = PrototypeHead(WIDTH, CLASSES)
    head.refit(features, labels)
    judge = NearestCentroid().fit(features.numpy(), labels.numpy())
    found = head(new).argmax(dim=1).numpy()
    assert np.array_equal(found, judge.predict(new.numpy()))
    assert len(set(found)) == CLASSES


def test_prototype_logits_are_minus_scaled_squared_distances(cloud) -> None:
    features, labels, new = cloud
    head = PrototypeHead(WIDTH, CLASSES, scale=0.3)
    head.refit(features, labels)
    for k in range(CLASSES):
        mean = features[labels == k].mean(dim=0)
        expected = -0.3 * (new - mean).square().sum(dim=1)
        torch.testing.assert_close(head(new)[:, k], expected, rtol=1e-4, atol=1e-4)
    assert PrototypeHead(WIDTH, 2).log_scale.exp().item() == pytest.approx(1 / WIDTH)


def test_prototype_keeps_what_it_learnt_over_a_refit_and_trains_the_scale_alone(cloud) -> None:
    features, labels, new = cloud
    head = PrototypeHead(WIDTH, CLASSES)
    assert [name for name, _ in head.named_parameters()] == ["log_scale"]
    head.refit(features, labels)
    new.requires_grad_()
    head(new).square().sum().backward()
    assert head.log_scale.grad is not None
    assert head.log_scale.grad != 0
    assert new.grad is not None, "the backbone below can train"
    with torch.no_grad():
        head.log_scale.fill_(1.0)
    head.refit(features + 1, labels)
    assert head.log_scale.item() == 1.0
    torch.testing.assert_close(head.centres[0], (features[labels == 0] + 1).mean(dim=0))


def test_prototype_never_picks_a_class_without_images(cloud) -> None:
    features, labels, new = cloud
    head = PrototypeHead(WIDTH, CLASSES + 1)
    head.refit(features, labels)
    logits = head(new)
    assert torch.isfinite(logits).all()
    assert (logits.argmax(dim=1) < CLASSES).all()
    torch.testing.assert_close(logits[:, -1], logits[:, :-1].amin(dim=1))


@pytest.mark.parametrize("k", [1, 7, 20])
def test_knn_is_the_weighted_neighbours_of_scikit_learn(k: int, cloud) -> None:
    features, labels, new = cloud
    head = KNNHead(WIDTH, CLASSES, k=k, smoothing=1e-6)
    head.refit(features, labels)
    judge = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07)
    ).fit(features.double().numpy(), labels.numpy())
    expected = judge.predict_proba(new.double().numpy())
    np.testing.assert_allclose(head(new).softmax(dim=1).numpy(), expected, atol=1e-4)
    assert np.array_equal(head(new).argmax(dim=1).numpy(), expected.argmax(axis=1))


def test_knn_smoothing_shares_its_mass_and_keeps_logits_finite(cloud) -> None:
    features, labels, new = cloud
    sharp, smooth = KNNHead(WIDTH, CLASSES, smoothing=1e-6), KNNHead(WIDTH, CLASSES, smoothing=0.2)
    sharp.refit(features, labels)
    smooth.refit(features, labels)
    expected = 0.8 * sharp(new).exp() + 0.2 / CLASSES
    torch.testing.assert_close(smooth(new).exp(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(smooth(new).exp().sum(dim=1), torch.ones(len(new)))
    assert torch.isfinite(sharp(new)).all()


def test_knn_does_not_see_the_norm_of_features(cloud) -> None:
    features, labels, new = cloud
    head = KNNHead(WIDTH, CLASSES)
    head.refit(features, labels)
    before = head(new)
    head.refit(features * torch.rand(60, 1).add(0.1), labels)
    torch.testing.assert_close(head(new * 100), before, rtol=1e-4, atol=1e-4)


def test_knn_takes_all_neighbours_where_there_are_few_and_none_before_the_first_refit() -> None:
    head = KNNHead(2, 3, k=20, temperature=1.0, smoothing=1e-6)
    unfitted = head(torch.ones(1, 2)).softmax(dim=1)
    torch.testing.assert_close(unfitted, torch.full((1, 3), 1 / 3))
    head.refit(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([2, 0]))
    weights = torch.tensor([1.0, 0.0]).softmax(dim=0)
    expected = torch.stack([weights[1], torch.tensor(0.0), weights[0]])[None]
    torch.testing.assert_close(head(torch.tensor([[3.0, 0.0]])).exp(), expected, atol=1e-5, rtol=0)


def test_knn_trains_nothing_and_says_so() -> None:
    head = KNNHead(4, 3)
    assert not list(head.parameters())
    assert head.gradient is False


@pytest.mark.parametrize("size", [0, 4, 60])
def test_knn_memory_of_any_size_is_saved_and_loaded(size: int, cloud) -> None:
    features, labels, new = cloud
    head = KNNHead(WIDTH, CLASSES)
    head.refit(features[:size], labels[:size])
    for other in (KNNHead(WIDTH, CLASSES), KNNHead(WIDTH, CLASSES)):
        other.refit(features[:7], labels[:7])
        outer = torch.nn.Module()
        outer.head = other
        outer.load_state_dict({f"head.{k}": v for k, v in head.state_dict().items()})
        assert torch.equal(outer.head(new), head(new))


@pytest.mark.parametrize(
    "make",
    [lambda: PrototypeHead(4, 2, scale=0.0), lambda: PrototypeHead(4, 2, scale=-1.0),
     lambda: KNNHead(4, 2, k=0), lambda: KNNHead(4, 2, temperature=0.0),
     lambda: KNNHead(4, 2, smoothing=0.0), lambda: KNNHead(4, 2, smoothing=1.0)],
)  # fmt: skip
def test_senseless_settings_are_refused(make) -> None:
    with pytest.raises(UserError, match="expected"):
        make()


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("alpha", [0.5, 30.0])
def test_ridge_decides_as_scikit_learn(alpha: float, classes: int, cloud) -> None:
    features, labels, new = cloud
    kept = labels < classes
    head = RidgeHead(WIDTH, classes, alpha=alpha)
    head.refit(features[kept], labels[kept])
    judge = make_pipeline(StandardScaler(), RidgeClassifier(alpha=alpha))
    judge.fit(features[kept].numpy(), labels[kept].numpy())
    found = head(new).argmax(dim=1).numpy()
    assert np.array_equal(found, judge.predict(new.numpy()))
    assert len(set(found)) == classes


def test_ridge_chooses_the_penalty_that_serves_left_out_images(cloud) -> None:
    """Noise features of a small sample want a large one, and their scores become modest."""
    features, labels, new = cloud
    loose, chosen = RidgeHead(WIDTH, CLASSES, alpha=1e-3), RidgeHead(WIDTH, CLASSES)
    torch.manual_seed(0)
    noise, unseen = torch.randn(60, WIDTH), torch.randn(200, WIDTH)
    for head in (loose, chosen):
        head.refit(noise, labels)
    assert chosen.weight.norm() < 0.5 * loose.weight.norm()
    truth = torch.arange(200) % CLASSES
    loss = torch.nn.functional.cross_entropy
    chosen.refit(features, labels)
    assert loss(chosen(new), truth) < 0.8 * np.log(CLASSES)
    chosen.refit(noise, labels)
    assert loss(chosen(unseen), truth) < 1.05 * np.log(CLASSES)


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_logistic_regression_is_scikit_learns(c: float, classes: int, cloud) -> None:
    features, labels, new = cloud
    kept = labels < classes
    head = LogisticHead(WIDTH, classes, c=c)
    head.refit(features[kept], labels[kept])
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=c))
    judge.fit(features[kept].double().numpy(), labels[kept].numpy())
    expected = judge.predict_proba(new.double().numpy())
    np.testing.assert_allclose(head(new).softmax(dim=1), expected, atol=1e-4)


@pytest.mark.parametrize("head", [RidgeHead(WIDTH, 7), LogisticHead(WIDTH, 7)])
def test_solved_heads_know_no_class_that_they_never_saw(head, cloud) -> None:
    features, labels, new = cloud
    assert (head(new) == 0).all()
    head.refit(features, labels + 1)
    logits = head(new)
    assert torch.equal(logits[:, 0], logits[:, 1:6].amin(dim=1))
    assert torch.equal(logits[:, 6], logits[:, 1:6].amin(dim=1))
    head.refit(features, torch.full((60,), 3))
    assert (head(new) == 0).all(), "one class alone"
    constant = features.clone()
    constant[:, 0] = 4.0
    head.refit(constant, labels)
    assert torch.isfinite(head(new)).all()


@pytest.mark.parametrize(
    "make", [lambda: RidgeHead(3, 2, alpha=0), lambda: LogisticHead(3, 2, c=-1)]
)
def test_solved_heads_refuse_penalties_that_are_none(make) -> None:
    with pytest.raises(UserError, match="expected a positive number"):
        make()
