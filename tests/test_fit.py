"""What is learnt of features: the classifier, its strength, the folds, the copies."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hiera_cli.teaching import fit as module
from hiera_cli.teaching.copies import copies
from hiera_cli.teaching.fit import fit, folds

Made = tuple[NDArray[np.float32], NDArray[np.intp]]


def made(photos: int = 90, classes: int = 3, channels: int = 16, *, spread: float = 1.0) -> Made:
    """Features of photos and, a little off, of their mirror images; each class around a centre of its own."""
    rng = np.random.default_rng(0)
    targets = np.arange(photos) % classes
    of_photo = rng.normal(size=(classes, channels))[targets] + spread * rng.normal(size=(photos, channels))
    features = of_photo[:, None] + 0.1 * rng.normal(size=(photos, 2, channels))
    return features.astype(np.float32), targets


def alone(targets: NDArray[np.intp]) -> NDArray[np.intp]:
    """No copies."""
    return np.arange(len(targets))


def test_it_is_scikit_learns_classifier_of_standardised_features() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, targets = made()
    ours = fit(features.copy(), targets, alone(targets), 0)
    rows = features.reshape(-1, 16).astype(np.float64)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=ours.strength, tol=1e-8, max_iter=1000))
    theirs.fit(rows, np.repeat(targets, 2))
    logits = rows @ ours.weight.T + ours.bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, theirs.predict_proba(rows), atol=2e-3)


def test_two_classes_have_a_row_each() -> None:
    features, targets = made(classes=2)
    fitted = fit(features.copy(), targets, alone(targets), 0)
    assert (fitted.weight.shape, fitted.bias.shape) == ((2, 16), (2,))
    found = (features[:, 0] @ fitted.weight.T + fitted.bias).argmax(1)
    assert (found == targets).mean() > 0.9


def test_the_same_features_give_the_same_classifier_to_the_bit() -> None:
    features, targets = made()
    first, second = (fit(features.copy(), targets, alone(targets), 7) for _ in range(2))
    for name in ("weight", "bias", "probabilities"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert first.tried == second.tried


def test_the_strength_has_the_least_log_loss_and_the_search_ends_where_it_has_grown_twice() -> None:
    features, targets = made(spread=3.0)
    fitted = fit(features, targets, alone(targets), 0)
    losses = [each.log_loss for each in fitted.tried]
    assert fitted.strength == fitted.tried[losses.index(min(losses))].strength
    assert len(losses) - 1 - losses.index(min(losses)) == 2
    assert len(losses) < len(module.STRENGTHS)


def test_a_photo_and_its_mirror_image_are_never_apart() -> None:
    """Else features that say nothing would seem to say everything: each photo's mirror image gives it away."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(200, 1, 512)), 2, axis=1).astype(np.float32)
    targets = rng.integers(0, 2, 200)
    fitted = fit(features, targets, alone(targets), 0)
    assert (fitted.probabilities.argmax(1) == targets).mean() < 0.65


def test_copies_of_a_photo_are_never_apart() -> None:
    rng = np.random.default_rng(0)
    features = np.repeat(np.repeat(rng.normal(size=(100, 1, 64)), 2, axis=1), 3, axis=0).astype(np.float32)
    targets = np.repeat(rng.integers(0, 2, 100), 3)
    found = copies(features)
    assert (found.originals == np.repeat(np.arange(100) * 3, 3)).all()
    fold = folds(targets, found.originals, 0)
    assert (fold == np.repeat(fold[::3], 3)).all()
    assert (fit(features.copy(), targets, found.originals, 0).probabilities.argmax(1) == targets).mean() < 0.65
    assert (fit(features.copy(), targets, alone(targets), 0).probabilities.argmax(1) == targets).mean() > 0.75


def test_folds_have_the_same_share_of_each_class_and_none_has_all_of_one() -> None:
    targets = np.array([0] * 50 + [1] * 20 + [2] * 7 + [3] * 2)
    fold = folds(targets, alone(targets), 0)
    counts = np.array([[((targets == label) & (fold == number)).sum() for number in range(5)] for label in range(4)])
    assert (counts[0] == 10).all()
    assert (counts[1] == 4).all()
    assert set(counts[2]) == {1, 2}
    assert sorted(counts[3]) == [0, 0, 0, 1, 1]
    assert (folds(targets, alone(targets), 0) == fold).all()
    assert (folds(targets, alone(targets), 1) != fold).any()
    together = np.zeros(len(targets), np.intp)  # all of them copies of the first
    for label in range(4):
        assert len(set(folds(targets, together, 0)[targets == label])) > 1


@pytest.mark.parametrize("photos", [4, 5, 9])
def test_two_photos_of_a_class_are_enough(photos: int) -> None:
    features, targets = made(photos, 2)
    fitted = fit(features, targets, alone(targets), 0)
    assert (fitted.folds, fitted.probabilities.shape) == (min(photos, 5), (photos, 2))
    assert np.isfinite(fitted.weight).all()


def test_channels_that_never_change_do_no_harm() -> None:
    features, targets = made()
    features[..., 3] = 2.5
    fitted = fit(features, targets, alone(targets), 0)
    assert np.isfinite(fitted.weight).all()
    assert (fitted.weight[:, 3] == 0).all()


def test_of_many_photos_a_sample_chooses_the_strength_and_all_are_cross_validated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, targets = made(300)
    whole = fit(features.copy(), targets, alone(targets), 0)
    monkeypatch.setattr(module, "SEARCHED", 100)
    told: list[str] = []
    fitted = fit(features.copy(), targets, alone(targets), 0, told.append)
    assert (fitted.searched, fitted.probabilities.shape) == (99, (300, 3))
    assert told == [
        "choosing the strength by 5-fold cross-validation on 99 photos",
        "cross-validation on all 300 photos",
        "fitting on all 300 photos",
    ]
    assert (fitted.probabilities.argmax(1) == whole.probabilities.argmax(1)).mean() > 0.95


def test_copies_are_found_across_blocks_as_by_comparing_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiera_cli.teaching.copies.ROWS", 16)
    monkeypatch.setattr("hiera_cli.teaching.copies.COLUMNS", 8)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 2, 32)).astype(np.float32)
    for place, original in ((5, 1), (40, 1), (41, 3), (119, 0), (100, 99)):
        features[place] = features[original][::-1]  # mirrored
    features[77] = features[20] + 0.01 * rng.normal(size=(2, 32)).astype(np.float32)
    found = copies(features)
    assert dict(zip(found.places.tolist(), found.originals[found.places].tolist(), strict=True)) == {
        **{5: 1, 40: 1, 41: 3, 77: 20, 100: 99, 119: 0}
    }
    assert found.distances[5] < 0.001 < found.distances[77] < 0.05


def test_photos_that_are_all_one_are_copies_of_the_first() -> None:
    features = np.ones((9, 2, 8), np.float32)
    features += np.float32(1e-7) * np.arange(9, dtype=np.float32)[:, None, None]
    assert (copies(features).originals == 0).all()
