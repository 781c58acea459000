"""`--rollup` and `--among`: held against a plain computation from all scores, and as a user meets them."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Call, Hiera
from jsonschema import Draft202012Validator

import hiera_cli
from hiera_cli import UsageError, load_classifier
from hiera_cli.checkpoints.labels import Label, imagenet_labels
from hiera_cli.tasks import rollup
from hiera_cli.tasks.classify import Classify, Prediction
from hiera_cli.wordnet import SAYING_NOTHING

CAT = SAMPLES / "cat.jpg"
LABELS = imagenet_labels()

# ---- the tree, read anew: in lists and sets, without the program's own walks through it

TABLE = Path(hiera_cli.__file__).parent / "data" / "imagenet_hierarchy.tsv"
PARENTS = {
    wnid: set(parents.split(",")) - {""}
    for wnid, parents, _ in (line.split("\t") for line in TABLE.read_text().splitlines()[1:])
}
NAMES = {line.split("\t")[0]: line.split("\t")[2].split(", ")[0] for line in TABLE.read_text().splitlines()[1:]}
INDEX = {label.wnid: label.index for label in LABELS}


def _above(wnid: str) -> set[str]:
    return set().union(*({parent, *_above(parent)} for parent in PARENTS[wnid]))


ABOVE = {wnid: _above(wnid) for wnid in PARENTS}
CLASSES = {
    wnid: {index for each, index in INDEX.items() if each == wnid or wnid in ABOVE[each or ""]} for wnid in PARENTS
}


def scores_of(logits: Sequence[float], allowed: set[int]) -> dict[int, float]:
    highest = max(logits[index] for index in allowed)
    powers = {index: math.exp(logits[index] - highest) for index in allowed}
    whole = math.fsum(powers.values())
    return {index: power / whole for index, power in powers.items()}


def candidates(allowed: set[int]) -> dict[frozenset[int], str]:
    """Each set of classes that has a name: of the concepts of the same set, the lowest."""
    groups: dict[frozenset[int], set[str]] = {}
    for wnid, classes in CLASSES.items():
        if classes & allowed and wnid not in SAYING_NOTHING:
            groups.setdefault(frozenset(classes & allowed), set()).add(wnid)
    return {
        classes: min(wnid for wnid in group if not any(wnid in ABOVE[other] for other in group))
        for classes, group in groups.items()
    }


def as_expected(
    sums: dict[frozenset[int], float], named: dict[frozenset[int], str], least: float, most: int
) -> list[tuple[str, int | None, float]]:
    reached = [(len(each), -total, named[each]) for each, total in sums.items() if total >= least - 1e-9]
    return [(wnid, INDEX.get(wnid), -total) for _, total, wnid in sorted(reached)[:most]]


def as_answered(predictions: Sequence[Prediction]) -> list[tuple[str, int | None, float]]:
    return [(each.wnid or "", each.index, each.score) for each in predictions]


def approximately(rows: list[tuple[str, int | None, float]]) -> list[Any]:
    return [(wnid, index, pytest.approx(score, abs=1e-12)) for wnid, index, score in rows]


MODEL: Any = SimpleNamespace(name="m", labels=LABELS)


def answer(logits: Any, task: Classify, model: Any = MODEL) -> tuple[Prediction, ...]:
    predictions = task.answer(np.array(logits, np.float32), model)["predictions"]
    assert [each.rank for each in predictions] == [*range(1, len(predictions) + 1)]
    return tuple(predictions)


@pytest.fixture
def _answers_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be answered depends on the classes alone: it is made for them, and not for each of many tasks anew."""
    made = functools.cache(rollup._answers)
    monkeypatch.setattr(rollup, "_answers", lambda labels: made(tuple(labels)))


@pytest.mark.usefixtures("_answers_made_once")
@pytest.mark.parametrize("among", [0, 1, 2])
@pytest.mark.parametrize("logits", ["sharp", "flat", "tied", "far"])
def test_rollup_gives_the_most_specific_labels_as_a_plain_computation_does(logits: str, among: int) -> None:
    choice = random.Random(f"{logits}{among}")
    for _ in range(3):
        concepts = tuple(choice.sample([*PARENTS], among))
        allowed = set().union(*(CLASSES[wnid] for wnid in concepts)) if concepts else set(range(1000))
        named = candidates(allowed)
        for _ in range(5):
            row = np.array([choice.gauss(0, 1) for _ in range(1000)])
            row = {"sharp": row * 5, "flat": row, "tied": np.rint(row), "far": row * 300}[logits].astype(np.float32)
            scores = scores_of(row.tolist(), allowed)
            sums = {each: math.fsum(scores[index] for index in each) for each in named}
            exact = [sums[each] for each in choice.sample([*sums], min(8, len(sums))) if sums[each] > 1e-6]
            for least in [*exact, *(each + 1e-6 for each in exact), choice.random(), 0.8, 0.95, 1.0]:
                most = choice.choice((1, 2, 5, 50))
                task = Classify(most, rollup=min(least, 1.0), among=concepts)
                expected = as_expected(sums, named, min(least, 1.0), most)
                assert as_answered(answer(row, task)) == approximately(expected)


def test_among_gives_the_best_of_its_classes_as_a_plain_computation_does() -> None:
    choice = random.Random(7)
    for _ in range(300):
        concepts = tuple(choice.sample([*PARENTS], choice.choice((1, 2, 3))))
        allowed = set().union(*(CLASSES[wnid] for wnid in concepts))
        scale, step = choice.choice((1, 30)), choice.choice((0, 1))
        row = np.array([choice.gauss(0, scale) for _ in range(1000)], np.float32)
        row = np.rint(row) if step else row
        scores = scores_of(row.tolist(), allowed)
        most = choice.choice((1, 5, 3000))
        best = sorted(allowed, key=lambda index: (-row[index], index))[:most]
        expected: list[tuple[str, int | None, float]] = [
            (LABELS[index].wnid or "", index, scores[index]) for index in best
        ]
        found = answer(row, Classify(most, among=concepts))
        assert as_answered(found) == approximately(expected)
        assert [each.label for each in found] == [LABELS[index].text for index in best]


def test_the_scores_among_classes_that_are_all_far_behind_still_sum_to_1() -> None:
    row = np.zeros(1000, np.float32)
    row[sorted(CLASSES["n02084071"])] = -2000  # all dogs: their softmax over all classes is 0
    found = answer(row, Classify(1000, among=("n02084071",)))
    assert len(found) == 118
    assert math.fsum(each.score for each in found) == pytest.approx(1)


def one_hot(**scores: float) -> Any:
    """Logits of these scores, by WordNet id; the rest is spread evenly."""
    left = (1 - sum(scores.values())) / (1000 - len(scores))
    return [math.log(scores.get(label.wnid or "", left)) for label in LABELS]


DOGS = one_hot(n02099601=0.5, n02099712=0.3, n02085620=0.17)  # golden and Labrador retriever, Chihuahua


def test_the_less_is_sure_the_more_general_the_answer_and_a_chain_has_one_name() -> None:
    said = [(each.label, each.index) for each in (answer(DOGS, Classify(rollup=p))[0] for p in (0.4, 0.7, 0.9))]
    assert said == [("golden retriever", 207), ("retriever", None), ("dog", None)]
    assert answer(DOGS, Classify(rollup=0.999)) == ()  # only what says nothing of a picture is so sure
    assert [each.label for each in answer(DOGS, Classify(4, rollup=0.75))] == [
        *("retriever", "sporting dog", "hunting dog", "dog"),
    ]
    (lemon,) = answer(one_hot(n07749582=0.9), Classify(rollup=0.5))
    assert (lemon.label, lemon.index) == ("lemon", 951)


def test_min_score_leaves_out_what_rollup_has_found() -> None:
    assert answer(DOGS, Classify(rollup=0.4, min_score=0.6)) == ()
    assert [(each.rank, each.label) for each in answer(DOGS, Classify(2, rollup=0.4, min_score=0.6))] == [
        (1, "retriever")
    ]


def test_the_order_of_a_models_classes_is_its_own() -> None:
    order = random.Random(3).sample(LABELS, 1000)
    labels = tuple(replace(label, index=place) for place, label in enumerate(order))
    row = [DOGS[label.index] for label in order]
    task = Classify(3, rollup=0.4, among=("n02084071",))
    theirs, ours = answer(row, task, SimpleNamespace(name="m", labels=labels)), answer(DOGS, task)
    assert [(each.wnid, each.label) for each in theirs] == [(each.wnid, each.label) for each in ours]
    assert labels[theirs[0].index or 0].text == "golden retriever"


def test_a_class_without_a_wordnet_id_is_an_answer_of_its_own() -> None:
    labels = (Label(0, None, "mug, of mine"), *LABELS[1:])
    (found,) = answer([9.0] + [0.0] * 999, Classify(rollup=0.5), SimpleNamespace(name="m", labels=labels))
    assert (found.index, found.wnid, found.label) == (0, None, "mug, of mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollup": 0.0}, r"rollup is above 0 and up to 1, not 0\.0"),
        ({"rollup": 1.5}, r"rollup is above 0 and up to 1, not 1\.5"),
        ({"rollup": math.nan}, "rollup is above 0 and up to 1, not nan"),
        ({"among": ("dog",)}, "among is of WordNet ids, and 'dog' is none of the tree's"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Classify(**options)


# ---- as a user meets them

pytestmark = pytest.mark.usefixtures("demo_on_the_cpu")

SURE = ("classify", SAMPLES / "rocket.jpg", "--rollup", "0.9999", "-q")  # which no class is


def test_every_format_has_concepts(call: Call) -> None:
    (record,) = call(*SURE, "-f", "jsonl").records()
    score = record["predictions"][0].pop("score")
    assert 0.9999 <= score <= 1
    assert record["predictions"] == [{"rank": 1, "index": None, "wnid": "n00021939", "label": "artifact"}]
    assert record["settings"] == {
        **{"rollup": 0.9999, "among": [], "top_k": 1, "min_score": 0.0, "explain": False, "full_decode": False},
    }
    assert json.loads(call(*SURE, "--json").out)[0]["predictions"][0]["label"] == "artifact"
    for name, delimiter in (("csv", ","), ("tsv", "\t")):
        (row,) = csv.DictReader(io.StringIO(call(*SURE, "-f", name).out), delimiter=delimiter)
        assert (row["index"], row["wnid"], row["label"]) == ("", "n00021939", "artifact")
    assert call(*SURE).out.split("\t")[2] == "artifact\n"
    assert call(*SURE, "-f", "table").out.endswith("  artifact\n")


def test_an_image_of_which_nothing_is_sure_keeps_its_line(call: Call) -> None:
    line = ("classify", CAT, "--rollup", "1", "-q")
    assert call(*line).out == f"{CAT}\t\t\n"
    assert call(*line, "-f", "table").out == f"{CAT}\n  no label reaches the least score\n"
    assert call(*line, "-f", "jsonl").records()[0]["predictions"] == []


def test_top_k_is_5_and_with_rollup_1(call: Call) -> None:
    assert len(call("classify", CAT, "-q").out.splitlines()) == 5
    assert len(call("classify", CAT, "-q", "--rollup", "0.9").out.splitlines()) == 1
    rows = [line.split("\t")[2] for line in call("classify", CAT, "-q", "--rollup", "0.9", "-k", "3").out.splitlines()]
    assert rows == ["tabby, tabby cat", "domestic cat", "cat"]


def test_among_takes_several_concepts_and_says_which_meaning_it_took(call: Call) -> None:
    done = call("classify", CAT, "--among", "cat", "--among", "n02084071", "-k", "9999", "--no-banner", "-f", "jsonl")
    (record,) = done.records()
    assert len(record["predictions"]) == 125
    assert sum(each["score"] for each in record["predictions"]) == pytest.approx(1, abs=1e-4)
    assert record["settings"]["among"] == ["n02084071", "n02121620"]
    assert done.err == (
        "hiera: cat: cat, true cat, a kind of feline (n02121620, 7 classes); "
        "also big cat, a kind of feline (n02127808, 6 classes)\n"
    )
    assert call("classify", CAT, "--among", "cat", "-q").err == ""


def test_records_with_concepts_are_of_the_schema(call: Call) -> None:
    schema = Draft202012Validator(json.loads(call("classify", "--schema").out))
    records = [
        *call(*SURE, "-f", "jsonl").records(),
        *call("classify", SAMPLES, "gone.jpg", "--rollup", "0.99", "-k", "9", "-f", "jsonl", "-q").records(),
        *call("classify", CAT, "--among", "bird", "--rollup", "0.5", "-f", "jsonl", "-q").records(),
    ]
    assert len(records) == 9
    for record in records:
        schema.validate(record)
    assert not schema.is_valid({**records[0], "settings": {**records[0]["settings"], "rollup": 0}})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("--among", "wolfhoud"),
            "'wolfhoud' is not a concept of WordNet's above or among ImageNet's classes\n"
            "  The nearest words: wolfhound, irish wolfhound, wood.",
        ),
        (("--among", ""), "a concept of --among is empty\n  Is a variable of the script not set?"),
        (
            ("--rollup", "0"),
            "--rollup: every label scores at least 0: name more, such as 0.8\n"
            "  hiera classify --help explains the options.",
        ),
        (
            ("--rollup", "80"),
            "--rollup takes a number from 0 to 1, not 80.0\n  hiera classify --help explains the options.",
        ),
        (
            ("--rollup", "nan"),
            "--rollup takes a number from 0 to 1, not nan\n  hiera classify --help explains the options.",
        ),
    ],
)
def test_what_makes_no_sense_ends_with_2_and_a_sentence(call: Call, options: tuple[str, ...], told: str) -> None:
    done = call("classify", "gone.jpg", *options)
    assert (done.status, done.out, done.err) == (2, "", f"hiera: error: {told}\n")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model with classes of its own."""
    from checkpoint_maker import SMALL, reference_model, save

    save(reference_model(replace(SMALL, num_classes=2), {0: "ham", 1: "spam"}), tmp_path / "own")
    return tmp_path / "own"


@pytest.mark.parametrize("options", [("--rollup", "0.8"), ("--among", "dog")])
def test_a_model_with_classes_of_its_own_has_no_concepts_and_no_input_is_read(
    call: Call, own: Path, options: tuple[str, ...]
) -> None:
    done = call("classify", "gone.jpg", CAT, "-m", own, *options)
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        f"hiera: error: the classes of {own} are not ImageNet's: WordNet's tree has those alone\n"
        "  Leave out what names concepts: --rollup, --among, --tree, --keywords concepts.\n"
    )
    classifier = load_classifier(own, device="cpu", engine="torch", precision="fp32")
    with pytest.raises(UsageError, match="are not ImageNet's"):
        classifier.classify(CAT, rollup=0.8)


@pytest.mark.slow
def test_a_model_that_has_to_be_fetched_is_refused_once_it_is_there(
    hiera: Hiera, environment: dict[str, str], own: Path
) -> None:
    from hub_server import Hub

    hub = own.parent / "hub"
    (hub / "acme").mkdir(parents=True)
    own.rename(hub / "acme" / "own")
    server = Hub(hub)
    environment["HF_ENDPOINT"] = server.url
    done = hiera("classify", CAT, "-m", "acme/own", "--rollup", "0.8", "-q")
    server.close()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hiera: error: the classes of acme/own are not ImageNet's")


def test_from_python() -> None:
    classifier = load_classifier("demo", device="cpu", engine="torch", precision="fp32")
    (cat,) = classifier.classify(CAT, rollup=0.8, among="domestic cat")
    assert [each.label for each in cat.predictions] == ["tabby, tabby cat"]
    (bird,) = classifier.classify(CAT, among=["bird", "n02084071"], top_k=9999)
    assert len(bird.predictions) == 59 + 118
    with pytest.raises(UsageError, match="'brid' is not a concept"):
        classifier.classify(CAT, among=["brid"])
