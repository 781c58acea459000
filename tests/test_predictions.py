"""Logits → predictions."""

from __future__ import annotations

import numpy as np
import pytest

from hiera_cli.checkpoints.labels import Label, imagenet_labels, matching
from hiera_cli.tasks.classify import Prediction, predict

LABELS = (Label(0, "n0", "cat"), Label(1, None, "dog"), Label(2, "n2", "rocket"))
LOGITS = np.log(np.array([0.2, 0.7, 0.1], dtype=np.float32))


def test_predictions_are_the_softmax_best_first() -> None:
    first, second = predict(LOGITS, LABELS, 2)
    assert (first, second) == (
        Prediction(1, 1, None, "dog", first.score),
        Prediction(2, 0, "n0", "cat", second.score),
    )
    assert (first.score, second.score) == pytest.approx((0.7, 0.2))


def test_more_than_the_classes_means_all_of_them() -> None:
    assert [each.index for each in predict(LOGITS, LABELS, 1000)] == [1, 0, 2]


def test_labels_under_min_score_are_left_out() -> None:
    assert [each.label for each in predict(LOGITS, LABELS, 3, min_score=0.15)] == ["dog", "cat"]
    assert predict(LOGITS, LABELS, 3, min_score=0.9) == ()


def test_equal_scores_come_in_index_order() -> None:
    assert [each.index for each in predict(np.zeros(3, np.float32), LABELS, 3)] == [0, 1, 2]


def test_large_logits_do_not_overflow() -> None:
    scores = [each.score for each in predict(np.array([1e4, 0, -1e4], np.float32), LABELS, 3)]
    assert scores == [1.0, 0.0, 0.0]


def test_imagenet_labels_are_a_thousand_and_not_unique() -> None:
    labels = imagenet_labels()
    assert [label.index for label in labels] == list(range(1000))
    assert len({label.wnid for label in labels}) == 1000
    assert labels[281] == Label(281, "n02123045", "tabby, tabby cat")
    assert [label.index for label in labels if label.text == "crane"] == [134, 517]


def test_labels_are_found_by_word_index_and_wordnet_id() -> None:
    assert [label.index for label in matching(imagenet_labels(), "TABBY")] == [281]
    assert [label.index for label in matching(imagenet_labels(), "n02123045")] == [281]
    assert 281 in [label.index for label in matching(imagenet_labels(), "281")]
    assert matching(imagenet_labels(), "no such word") == []
    assert len(matching(imagenet_labels(), "")) == 1000
