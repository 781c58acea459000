"""Where a label comes from: the parts of a logit add up, on either engine; the pictures; `hiera explain` as run."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Call, Open, either_engine
from numpy.typing import NDArray
from PIL import Image

from hiera_cli import UsageError, load_classifier, wordnet
from hiera_cli.checkpoints import resolve
from hiera_cli.checkpoints.labels import Label, imagenet_labels
from hiera_cli.images.recipe import crop, preprocess
from hiera_cli.outputs import maps
from hiera_cli.outputs.places import table
from hiera_cli.tasks.classify import ExplainedLabels
from hiera_cli.tasks.explain import Explain, Explained, Named, named
from hiera_cli.tasks.terms import Decomposition, Explanation, Head

CAT, ROCKET = SAMPLES / "cat.jpg", SAMPLES / "rocket.jpg"
LABELS = imagenet_labels()
DOGS = sorted(label.index for label in LABELS if label.wnid in wordnet.classes()["n02084071"])


@pytest.fixture
def _demo(demo_on_the_cpu: None) -> None:
    """For what is run as a command."""


# ---- the parts, held against transformers and a plain computation


def explained(tokens: NDArray[np.float32], model: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The terms (classes, 49) and constants (classes,) by the formula, place by place, of transformers' weights."""
    weight, bias = (each.detach().double().numpy() for each in (model.classifier.weight, model.classifier.bias))
    norm = model.hiera.pooler.layernorm
    gamma, beta = norm.weight.detach().double().numpy(), norm.bias.detach().double().numpy()
    x = tokens.reshape(49, -1).astype(np.float64)
    width = math.sqrt(np.var(x.mean(0)) + norm.eps)
    terms = np.stack([weight @ (gamma * (each - each.mean())) / width / 49 for each in x], axis=1)
    return terms, bias + weight @ beta


@pytest.fixture
def tiny(small_hub: Path) -> Path:
    return small_hub / "facebook" / "hiera-tiny-224-in1k-hf"


def test_the_parts_of_a_logit_add_up_to_the_references(engine: str, open_fp32: Open, tiny: Path) -> None:
    import torch
    from transformers import HieraForImageClassification

    reference: Any = HieraForImageClassification.from_pretrained(tiny)
    pixels = np.stack([preprocess(Image.open(path)) for path in (CAT, ROCKET)])
    with torch.no_grad():
        logits = reference(torch.from_numpy(pixels)).logits.numpy()
        tokens = reference.hiera(torch.from_numpy(pixels)).last_hidden_state.numpy()
    checkpoint = resolve.resolve(str(tiny))
    head, ours = Head(checkpoint), open_fp32(checkpoint).run(pixels, "tokens")
    for image in range(2):
        found = Decomposition(ours[image], head)
        spread = float(np.ptp(logits[image]))
        np.testing.assert_allclose(found.logits, logits[image], rtol=0, atol=1e-5 * spread)
        terms, constants = explained(tokens[image], reference)
        for place in (0, 281, 999):
            logit, of_places, constant = found.of([place])
            assert logit == pytest.approx(constant + of_places.sum(), abs=1e-9)
            assert logit == pytest.approx(found.logits[place], abs=1e-9)
            assert constant == pytest.approx(constants[place], abs=1e-5 * spread)
            np.testing.assert_allclose(of_places.ravel(), terms[place], rtol=0, atol=1e-5 * spread)


def test_the_logit_of_a_concept_is_that_of_its_score_and_adds_up_too(tiny: Path) -> None:
    checkpoint = resolve.resolve(str(tiny))
    tokens = np.random.default_rng(0).normal(size=(7, 7, 128)).astype(np.float32)
    found = Decomposition(tokens, Head(checkpoint))
    logit, terms, constant = found.of(DOGS)
    powers = np.exp(found.logits)
    assert math.exp(logit) == pytest.approx(powers[DOGS].sum())
    assert logit == pytest.approx(constant + terms.sum(), abs=1e-9)
    shares = powers[DOGS] / powers[DOGS].sum()
    np.testing.assert_allclose(
        terms, sum(share * found.of([place])[1] for share, place in zip(shares, DOGS, strict=True))
    )


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same shape, with weights that give no two classes the same logit."""
    from checkpoint_maker import SMALL, reference_model, save

    return save(reference_model(SMALL), tmp_path_factory.mktemp("random"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_labels_and_logits_are_those_of_classify(engine: str, precision: str, random_folder: Path) -> None:
    """In bf16 OpenVINO rounds between tokens and logits too."""
    classifier = load_classifier(random_folder, engine=engine, device="cpu", precision=precision)
    near = 2e-6 if precision == "fp32" else 0.02
    (mine,) = classifier.explain(CAT, top_k=5, labels="dog")
    (labelled,) = classifier.classify(CAT, top_k=1000)
    (whole,) = classifier.classify(CAT, explain=True)
    assert isinstance(whole, ExplainedLabels)
    scores = {each.label: each.score for each in labelled.predictions}
    *best, dog = mine.explanations
    assert dog.label == "dog"
    assert [each.score for each in best] == pytest.approx([scores[each.label] for each in best], abs=near)
    assert dog.score == pytest.approx(sum(each.score for each in labelled.predictions if each.index in DOGS), abs=near)
    if precision == "fp32":
        assert [each.label for each in best] == [each.label for each in labelled.predictions[:5]]
    assert [each.label for each in whole.predictions] == [each.label for each in best]
    assert [each.score for each in whole.predictions] == pytest.approx([each.score for each in best], abs=2e-6)
    for one, other in zip(best, whole.explanations, strict=True):
        assert (one.label, one.logit, one.constant) == (other.label, other.logit, other.constant)
        np.testing.assert_array_equal(one.terms, other.terms)


def test_an_explanation_in_a_record_adds_up_to_the_last_decimal() -> None:
    terms = np.random.default_rng(1).normal(size=(7, 7))
    terms[3, 4] = -1e-9
    record = Explanation(7, None, "x", 0.5, 12.3456789, terms, 12.3456789 - float(terms.sum())).to_dict()
    assert record["logit"] == 12.345679
    assert math.fsum([record["constant"], *(each for row in record["terms"] for each in row)]) == pytest.approx(
        record["logit"], abs=1e-12
    )
    assert abs(np.array(record["terms"]) - terms).max() <= 5e-7
    assert "-0.0," not in json.dumps(record)


def test_values_that_are_not_numbers_are_an_error_of_that_image(tiny: Path) -> None:
    from hiera_cli.errors import InferenceError

    with pytest.raises(InferenceError, match="values that are not numbers"):
        Decomposition(np.full((7, 7, 128), np.nan, np.float32), Head(resolve.resolve(str(tiny))))


# ---- which label is meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tabby", (281, "tabby, tabby cat")),
        ("Tabby, tabby cat", (281, "tabby, tabby cat")),
        ("281", (281, "tabby, tabby cat")),
        ("n02123045", (281, "tabby, tabby cat")),
        ("dogs", (None, "dog")),
        ("n02084071", (None, "dog")),
        ("ham", (0, "ham")),
        ("spam", (1, "spam, tinned")),
        ("1", (1, "spam, tinned")),
    ],
)
def test_a_label_is_named_by_a_word_an_index_or_an_id(text: str, meant: tuple[int | None, str]) -> None:
    own = (Label(0, None, "ham"), Label(1, None, "spam, tinned"), Label(2, None, "ham, smoked"))
    found = named(text, own if meant[1][:4] in ("ham", "spam") else LABELS)
    assert (found.index, found.label) == meant
    assert list(found.classes) == (DOGS if found.index is None else [found.index])


def test_what_names_no_label_or_several_is_refused() -> None:
    own = (Label(0, None, "red box"), Label(1, None, "blue box"))
    with pytest.raises(UsageError, match="'box' names 2 labels: 0 red box; 1 blue box"):
        named("box", own)
    with pytest.raises(UsageError, match="'doog' is not a label or a concept") as refused:
        named("doog", LABELS)
    assert "The nearest words: " in refused.value.hint
    with pytest.raises(UsageError, match="none of the model's classes is a kind of dog"):
        named("dog", LABELS[:10])


# ---- pictures


def synthetic(peak: tuple[int, int], high: float = 1.0, label: str = "tabby, tabby cat") -> Explanation:
    terms = np.full((7, 7), -0.1)
    terms[peak] = high
    return Explanation(281, "n02123045", label, 0.5, float(terms.sum()) + 1, terms, 1.0)


def test_the_picture_is_brightest_where_the_largest_term_is() -> None:
    white = np.full((224, 224, 3), 255, np.uint8)
    drawn = maps.panel(white, synthetic((2, 5)).terms, -0.1, 1.0)
    light = drawn.astype(int).sum(-1)
    row, column = divmod(int(light.argmax()), maps.SIDE)
    assert (row // 64, column // 64) == (2, 5)
    np.testing.assert_allclose(drawn[2 * 64 + 32, 5 * 64 + 32], maps.scale()[-1], atol=6)
    np.testing.assert_array_equal(drawn[6 * 64, 0], maps.scale()[0])


def test_the_scale_grows_lighter_in_equal_steps() -> None:
    """So it is told apart without colours."""
    linear = (maps.scale() / 255.0) ** 2.2
    lightness = np.cbrt(linear @ [0.2126, 0.7152, 0.0722])
    steps = np.diff(lightness[::16])
    assert steps.min() > 0
    assert steps.max() < 2.5 * steps.min()


def test_a_picture_has_the_crop_and_a_panel_for_each_label_on_one_scale() -> None:
    seen = crop(Image.open(CAT).convert("RGB"))
    two = maps.picture(seen, [synthetic((1, 1)), synthetic((5, 5), high=0.2)])
    assert (two.mode, two.size) == ("RGB", (1534, 584))
    assert two.tobytes() == maps.picture(seen, [synthetic((1, 1)), synthetic((5, 5), high=0.2)]).tobytes()
    panels = np.asarray(two).astype(int)[16:464]
    enlarged = Image.fromarray(seen).resize((448, 448), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(panels[:, 16:464], np.asarray(enlarged))
    first, second = panels[:, 480:928], panels[:, 944:1392]
    assert first[64:128, 64:128].mean() > 2 * second[320:384, 320:384].mean()
    assert maps.picture(seen, [synthetic((1, 1))] * 5).size == (1998, 1136)
    assert maps.picture(seen, [synthetic((0, 0), high=-0.1)]).size == (1070, 584)  # all the same


@pytest.mark.parametrize(
    ("label", "shown"),
    [("Écureuil", "Ecureuil"), ("猫 cat", "? cat"), ("a\nb\x1b", "a?b?"), ("tabby, tabby cat", "tabby, tabby cat")],
)
def test_a_label_in_a_picture_has_the_letters_of_the_font(label: str, shown: str) -> None:
    assert maps.drawable(label) == shown


def test_a_long_label_wraps_and_is_cut_to_its_panel() -> None:
    lines = maps._wrapped("cougar, puma, catamount, mountain lion, painter, panther, Felis concolor, and many more")
    assert lines == ["cougar, puma, catamount, mountain lion, painter,", "panther, Felis concolor, and many more"]
    assert [line.endswith(" ...") for line in maps._wrapped(" ".join(["words"] * 40))] == [False, True]
    (cut,) = maps._wrapped("x" * 90)
    assert cut.endswith("x ...")


# ---- as a user runs it


@pytest.mark.usefixtures("_demo")
@either_engine
def test_explain_prints_the_place_that_adds_most(call: Call, engine: str) -> None:
    done = call("explain", CAT, "gone.jpg", "-k", "2", "-q")
    assert (done.status, done.out) == (
        1,
        f"{CAT}\t0.9921\ttabby, tabby cat\t3\t2\n{CAT}\t0.0061\tespresso\t7\t4\n",
    )
    assert done.err == "hiera: gone.jpg: no such file\n"


@pytest.mark.usefixtures("_demo")
@either_engine
def test_a_record_has_the_parts_of_each_label(call: Call, engine: str) -> None:
    good, bad = json.loads(call("explain", CAT, "gone.jpg", "--label", "dog", "-k", "1", "--json", "-qq").out)
    assert [list(record) for record in (good, bad)] == [
        [
            "path",
            "path_bytes",
            "status",
            "model",
            "precision",
            "explanations",
            "picture",
            "error",
            "remarks",
            "settings",
        ]
    ] * 2
    assert (bad["explanations"], bad["picture"]) == ([], None)
    assert good["settings"] == {"top_k": 1, "labels": ["dog"], "full_decode": False}
    labels = [{name: each[name] for name in ("index", "wnid", "label")} for each in good["explanations"]]
    assert labels == [
        {"index": 281, "wnid": "n02123045", "label": "tabby, tabby cat"},
        {"index": None, "wnid": "n02084071", "label": "dog"},
    ]
    for each in good["explanations"]:
        assert list(each) == ["index", "wnid", "label", "score", "logit", "terms", "constant"]
        assert np.shape(each["terms"]) == (7, 7)
        assert each["constant"] + np.sum(each["terms"]) == pytest.approx(each["logit"], abs=1e-9)


@pytest.mark.usefixtures("_demo")
def test_the_picture_is_that_of_the_record(call: Call) -> None:
    done = call("explain", CAT, "-o", "map.png", "-f", "jsonl", "-q")
    (record,) = done.records()
    assert (done.status, record["picture"]) == (0, "map.png")
    (explanation,) = record["explanations"]
    terms = np.array(explanation["terms"])
    drawn = maps.panel(crop(Image.open(CAT).convert("RGB")), terms, terms.min(), terms.max())
    difference = np.asarray(Image.open("map.png")).astype(int)[16:464, 480:928] - drawn
    assert abs(difference).max() <= 2  # of terms to six decimals


@pytest.mark.usefixtures("_demo")
def test_a_folder_gives_a_picture_each(call: Call, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copy(CAT, tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.jpg").write_text("no picture")
    done = call("explain", "photos", "-o", "maps", "-q")
    assert (done.status, [line.split("\t")[-1] for line in done.out.splitlines()]) == (
        1,
        ["maps/000001-a.png", "maps/000002-b.png"],
    )
    assert sorted(path.name for path in Path("maps").iterdir()) == ["000001-a.png", "000002-b.png"]
    again = call("explain", "photos", "-o", "maps", "-q")
    assert (again.status, "maps exists already, with files in it" in again.err) == (2, True)


def test_the_table_has_a_map_beside_the_numbers() -> None:
    terms = np.zeros((7, 7))
    terms[0] = 1.0
    one = Explanation(281, "n02123045", "tabby, tabby cat", 0.9922, 8.5, terms, 1.5)
    results = [Explained("a.jpg", explanations=(one,)), Explained("b.jpg", explanations=(one,), file="b.png")]
    block = (
        "  ██████████████  tabby, tabby cat\n"
        "                  99.2%\n"
        "                  logit 8.50 = 1.50 + 7.00 from the places\n"
        "                  each 0.00 to 1.00, most in row 1, column 1\n\n\n\n"
    )
    assert "".join(table(results)) == f"a.jpg\n{block}\nb.jpg  b.png\n{block}"
    narrow = "".join(table(results[:1], unicode=False, columns=34)).splitlines()
    assert narrow[1] == "  @@@@@@@@@@@@@@  tabby, tabby cat"
    assert max(map(len, narrow)) <= 34
    assert "\x1b[48;2;" in "".join(table(results, all_colors=True))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to explain: name files, folders or URLs"),
        ([CAT, ROCKET, "-o", "x.png"], "x.png is one picture, and there may be several inputs"),
        ([CAT, "--label", "doog"], "'doog' is not a label or a concept of the model's"),
        ([CAT, "--label", " "], "a --label is empty"),
        ([CAT, "-o", "x.png", "-k", "24"], "a picture shows 23 labels at most, and 24 are asked for"),
        ([CAT, "--overwrite"], "--overwrite is about an --output, and there is none"),
        ([CAT, "-o", ""], "--output needs a name: it is empty"),
        ([CAT, "-f", "csv"], "--format: 'csv' is not one of table, plain, json, jsonl"),
    ],
)
@pytest.mark.usefixtures("_demo")
def test_a_wrong_command_line_is_told_in_a_sentence(call: Call, arguments: list[str | Path], told: str) -> None:
    done = call("explain", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: {told}")


def test_a_model_with_classes_of_its_own_is_explained_by_their_names(call: Call, tmp_path: Path) -> None:
    from dataclasses import replace

    from checkpoint_maker import SMALL, reference_model, save

    save(reference_model(replace(SMALL, num_classes=2), {0: "ham, smoked", 1: "猫"}), tmp_path / "own")
    line = ("explain", CAT, "-m", tmp_path / "own", "-q")
    done = call(*line, "--label", "ham", "--label", "猫", "-f", "jsonl", "-o", "map.png")
    assert done.status == 0
    assert [(each["index"], each["label"]) for each in done.records()[0]["explanations"]] == [
        (0, "ham, smoked"),
        (1, "猫"),
    ]
    refused = call(*line, "--label", "dog")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("hiera: error: 'dog' is not a label of the model's\n")


def test_a_backbone_has_no_labels_to_explain(call: Call, tiny: Path, tmp_path: Path) -> None:
    from checkpoint_maker import SMALL, reference_model

    reference_model(SMALL).hiera.save_pretrained(tmp_path / "backbone")
    done = call("explain", CAT, "-m", tmp_path / "backbone")
    assert (done.status, done.out) == (2, "")
    assert "is a Hiera backbone without a classifier" in done.err


# ---- classify --explain


@pytest.mark.usefixtures("_demo")
def test_classify_gives_the_explanations_behind_its_predictions(call: Call) -> None:
    options = ("-k", "2", "-f", "jsonl", "-q", "--explain")
    for more in ((), ("--rollup", "0.9"), ("--among", "animal")):
        (record,) = call("classify", CAT, *options, *more).records()
        for each, prediction in zip(record["explanations"], record["predictions"], strict=True):
            assert {**each, "rank": prediction["rank"]}.items() >= prediction.items()
            assert each["constant"] + np.sum(each["terms"]) == pytest.approx(each["logit"], abs=1e-9)
    done = call("classify", CAT, "--explain")
    assert (done.status, done.err.splitlines()[0]) == (
        2,
        "hiera: error: --explain is for JSON records and pages, and this run writes plain",
    )


@pytest.mark.usefixtures("_demo")
def test_what_was_labelled_without_explanations_is_not_gone_on_with_with_them(call: Call) -> None:
    line = ("classify", CAT, ROCKET, "-k", "1", "-o", "out.jsonl", "-q")
    assert call(*line).status == 0
    before = Path("out.jsonl").read_bytes()
    refused = call(*line, "--resume", "--explain")
    assert (refused.status, refused.err.splitlines()[0]) == (
        2,
        "hiera: error: cannot go on with out.jsonl: it was made without explain, this run is with it",
    )
    assert Path("out.jsonl").read_bytes() == before
    # Records of before there were explanations.
    old = [json.loads(text) for text in before.decode().splitlines()]
    for record in old:
        del record["settings"]["explain"]
    Path("out.jsonl").write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in old))
    assert call(*line, "--resume").status == 0
    assert Path("out.jsonl").read_bytes() == before
    explained = (*line[:-3], "-o", "explained.jsonl", "-q", "--explain")
    assert call(*explained).status == 0
    whole = Path("explained.jsonl").read_bytes()
    Path("explained.jsonl").rename("explained.jsonl.part")
    Path("explained.jsonl.part").write_bytes(whole.splitlines(keepends=True)[0])
    assert call(*explained, "--resume").status == 0
    assert Path("explained.jsonl").read_bytes() == whole


def test_best_and_named_labels_are_explained_once_each() -> None:
    assert Explain().best == 1
    assert Explain(labels=("dog",)).best == 0
    assert Explain(3, ("dog",)).best == 3
    assert Named(1, None, "x", (1,)) == Named(1, None, "x", (1,))
    with pytest.raises(UsageError):
        Explain(0)
