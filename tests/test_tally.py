"""The figures are those of scikit-learn and scipy on the same predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hiera_cli.checkpoints.labels import Label
from hiera_cli.evaluation.compare import FAILED, RIGHT, WRONG, Comparison, compared, mcnemar
from hiera_cli.evaluation.tally import BINS, Figures, Tally
from hiera_cli.outputs.evaluated import confusion_matrix
from hiera_cli.result import Failure
from hiera_cli.tasks.classify import Prediction, predict
from hiera_cli.tasks.evaluate import Evaluated, Truth

CLASSES = 12


def truth_of(index: int) -> Truth:
    return Truth(f"class {index}", frozenset({index}), index)


def predicted(*ranking: int, score: float = 0.5) -> tuple[Prediction, ...]:
    return tuple(Prediction(rank, index, None, f"class {index}", score) for rank, index in enumerate(ranking, 1))


def evaluated(truth: Truth, *ranking: int, score: float = 0.5) -> Evaluated:
    return Evaluated("a.jpg", "demo", precision="fp32", predictions=predicted(*ranking, score=score), truth=truth)


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any, Figures]:
    """Truths (2000,), scores (2000, 12) of which some are nearly sure, and the figures of them."""
    generator = np.random.default_rng(7)
    truths = generator.choice(CLASSES, 2000, p=np.arange(1, CLASSES + 1) / 78)
    logits = (generator.normal(size=(2000, CLASSES)) * generator.uniform(0.2, 8, (2000, 1))).astype(np.float32)
    logits[np.arange(2000), truths] += 2
    labels = [Label(index, None, f"class {index}") for index in range(CLASSES)]
    tally = Tally("demo")
    for truth, row in zip(truths, logits, strict=True):
        record = Evaluated("", precision="fp32", predictions=predict(row, labels, 5), truth=truth_of(int(truth)))
        tally.add(record)
    exponentials = np.exp(logits.astype(np.float64))
    return truths, exponentials / exponentials.sum(1, keepdims=True), tally.figures()


def test_accuracy_is_that_of_scikit_learn(made: tuple[Any, Any, Figures]) -> None:
    from sklearn import metrics

    truths, scores, figures = made
    answers = scores.argmax(1)
    assert figures.images == 2000
    assert figures.top1_count == metrics.accuracy_score(truths, answers, normalize=False)
    assert figures.top5_count == metrics.top_k_accuracy_score(truths, scores, k=5, normalize=False)
    assert figures.mean_per_class == pytest.approx(metrics.balanced_accuracy_score(truths, answers), abs=1e-12)
    recall = metrics.recall_score(truths, answers, average=None)
    assert [each.top1 for each in figures.classes] == pytest.approx(recall, abs=1e-12)


def test_the_confusion_matrix_is_that_of_scikit_learn(made: tuple[Any, Any, Figures]) -> None:
    from sklearn import metrics

    truths, scores, figures = made
    matrix = metrics.confusion_matrix(truths, scores.argmax(1))
    header, *rows = [line.rstrip("\n").split(",") for line in confusion_matrix(figures)]
    assert header == ["truth", *(f"class {index}" for index in range(CLASSES))]
    assert [row[0] for row in rows] == header[1:]
    assert np.array_equal(np.array([row[1:] for row in rows], int), matrix)
    wrong = {(each.truth.index, each.answer.index): each.count for each in figures.confusions}
    assert wrong == {place: count for place, count in np.ndenumerate(matrix) if place[0] != place[1] and count}
    assert [each.count for each in figures.confusions] == sorted(wrong.values(), reverse=True)


def test_the_calibration_error_is_that_of_an_independent_computation(made: tuple[Any, Any, Figures]) -> None:
    truths, scores, figures = made
    sure, right = scores.max(1), scores.argmax(1) == truths
    places = np.digitize(sure, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    error = sum(
        (places == place).mean() * abs(sure[places == place].mean() - right[places == place].mean())
        for place in np.unique(places)
    )
    assert figures.calibration_error == pytest.approx(error, abs=1e-6)
    assert [each.images for each in figures.bins] == np.bincount(places, minlength=BINS).tolist()
    assert figures.mean_score == pytest.approx(sure.mean(), abs=1e-6)


def test_mcnemars_p_is_that_of_the_exact_binomial_test() -> None:
    from scipy.stats import binomtest

    pairs = [(0, 0), (1, 0), (3, 9), (9, 3), (5, 5), (5, 6), (0, 40), (200, 260), (50_000, 49_200), (40_000, 60_000)]
    for one, other in pairs:
        exact = binomtest(one, one + other).pvalue if one + other else 1.0
        assert mcnemar(one, other) == pytest.approx(exact, rel=1e-8)
    assert mcnemar(0, 1_000_000) == 0.0


def test_models_are_compared_on_images_that_both_answered() -> None:
    this = bytearray([RIGHT, RIGHT, WRONG, WRONG, RIGHT, FAILED])
    first = bytearray([RIGHT, WRONG, RIGHT, WRONG, FAILED, RIGHT])
    assert compared("b", this, "a", first) == Comparison("b", "a", 4, 1, 1, 1.0)


def test_any_class_under_a_concept_is_right_and_failures_are_counted_apart() -> None:
    animals = Truth("animal", frozenset({1, 2}), None, "n00015388")
    tally = Tally("demo", places=4)
    tally.add(evaluated(animals, 2, 0, 1), 0)
    tally.add(evaluated(animals, 0, 5, 1), 1)
    tally.add(Evaluated("b.jpg", error=Failure("DecodeError", "broken"), truth=animals), 2)
    tally.add(evaluated(truth_of(0), 3, 4, 5, 6, 7), 3)
    figures = tally.figures()
    assert (figures.images, figures.failed, figures.top1_count, figures.top5_count) == (3, 1, 1, 2)
    assert tally.outcomes == bytearray([RIGHT, WRONG, FAILED, WRONG])
    assert [(each.truth.label, each.right, each.images) for each in figures.classes] == [
        ("class 0", 0, 1),
        ("animal", 1, 2),
    ]
    assert [*confusion_matrix(figures)] == [
        "truth,class 0,class 2,class 3\n",
        "class 0,0,0,1\n",
        "animal,1,1,0\n",
    ]


def test_without_an_image_there_are_no_shares() -> None:
    record = Tally("demo").figures().to_dict()
    assert (record["images"], record["top1"], record["top1_interval"]) == (0, None, [0, 1])
    assert (record["mean_per_class"], record["calibration_error"], record["images_per_second"]) == (None, None, None)
    assert (record["classes"], record["confusions"]) == ([], [])


def test_the_start_up_and_earlier_runs_take_no_time() -> None:
    now = 0.0
    tally = Tally("demo", clock=lambda: now)
    tally.add(evaluated(truth_of(0), 0), before=True)
    now = 100.0
    tally.start()
    for _ in range(3):
        now += 0.5
        tally.add(evaluated(truth_of(0), 0))
    now = 200.0
    assert (tally.figures().images, tally.figures().images_per_second) == (4, 2.0)
