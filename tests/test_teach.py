"""`hiera teach`, as its user runs it, and the model that it makes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_maker import SMALL, backbones, reference_model, save_original, save_timm
from conftest import SAMPLES, Bash, Call, either_engine
from PIL import Image

from hiera_cli import load_classifier
from hiera_cli.checkpoints import resolve, save
from hiera_cli.inputs.source import Source
from hiera_cli.pipeline.prepare import prepare
from hiera_cli.tasks.teach import Teach, mirrored

NAMES = ("cat", "espresso", "rocket")
pytestmark = pytest.mark.usefixtures("demo_on_the_cpu")


@pytest.fixture(autouse=True)
def _quick_engine(environment: dict[str, str]) -> None:
    """What is learnt is no affair of the engine's."""
    environment["HIERA_ENGINE"] = "auto"


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of three sample images, with eight turned crops of it."""
    root = tmp_path_factory.mktemp("crops")
    chance = random.Random(0)
    for name in NAMES:
        (root / name).mkdir()
        with Image.open(SAMPLES / f"{name}.jpg") as whole:
            for index in range(8):
                size = int(chance.uniform(0.5, 0.8) * min(whole.size))
                left, top = chance.randint(0, whole.width - size), chance.randint(0, whole.height - size)
                crop = whole.crop((left, top, left + size, top + size)).rotate(chance.uniform(-20, 20))
                crop.resize((240, 240)).save(root / name / f"{index:02d}.png")
    return root


@pytest.fixture
def photos(crops: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    return Path(shutil.copytree(crops, tmp_path / "photos"))


def bytes_of(folder: Path | str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_folder_a_class_makes_a_model_that_knows_them(call: Call, crops: Path) -> None:
    done = call("teach", crops, "-o", "model", "--no-banner")
    assert done.status == 0
    assert done.err.startswith("hiera: 24 read, ")
    assert done.err.endswith(" s\nhiera: model is made; to use it: hiera classify -m model INPUT...\n")
    assert done.out.startswith(
        "photos           24 in 3 classes\nbase             demo, features in fp32\nstrength         C = "
    )
    labelled = call("classify", crops, "-m", "model", "-k1", "-f", "jsonl", "-q").records()
    assert {each["model"] for each in labelled} == {"model"}
    right = [each["predictions"][0]["label"] == Path(each["path"]).parent.name for each in labelled]
    assert sum(right) >= 23
    assert sorted(bytes_of("model")) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    assert call("labels", "-m", "model").out == "0\t-\tcat\n1\t-\tespresso\n2\t-\trocket\n"


def test_other_photos_are_evaluated_on_as_hiera_evaluate_does(call: Call, crops: Path) -> None:
    other = Path("other")
    for name in NAMES[:2]:
        (other / name).mkdir(parents=True)
        shutil.copy(SAMPLES / f"{name}.jpg", other / name)
    done = call("teach", crops, "-o", "model", "--test", other, "-q")
    assert done.status == 0
    assert "\n\nother:\n" in done.out
    evaluated = call("evaluate", other, "-m", "model", "-q")
    assert evaluated.status == 0
    assert evaluated.out.splitlines()[0] == done.out.partition("other:\n")[2].splitlines()[0]
    tested = json.loads(call("teach", crops, "-o", "model", "--overwrite", "--test", other, "-q", "--json").out)["test"]
    alone = json.loads(call("evaluate", other, "-m", "model", "-q", "--json").out)
    for key in ("seconds", "images_per_second"):
        tested.pop(key, None)
        alone.pop(key, None)
    assert tested == alone
    (other / "dog").mkdir()
    shutil.copy(SAMPLES / "cat.jpg", other / "dog")
    refused = call("teach", crops, "-o", "never", "--test", other)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == (
        "hiera: error: 1 of 3 names is no class of the model\n  dog: nothing is called that.\n"
        f"  The classes are {crops}'s folders.\n"
    )
    assert not Path("never").exists()


def test_a_model_that_is_called_like_a_published_one_is_named_by_its_path(call: Call, crops: Path) -> None:
    done = call("teach", crops, "-o", "tiny", "--test", crops)
    assert done.status == 0
    assert "hiera: tiny is made; to use it: hiera classify -m ./tiny INPUT...\n" in done.err


def test_the_sample_images_teach_a_model_that_is_evaluated_on_them(call: Call) -> None:
    for label, names in {
        "people": ("astronaut.jpg", "officer.jpg", "photographer.png"),
        "things": ("espresso.jpg", "rocket.jpg"),
    }.items():
        Path("mine", label).mkdir(parents=True)
        for name in names:
            shutil.copy(SAMPLES / name, Path("mine", label))
    taught = call("teach", "mine", "-o", "people-or-things", "-m", "demo", "-q")
    assert taught.status == 0
    assert taught.out.startswith("photos           5 in 2 classes\nbase             demo, features in fp32\n")
    assert "few photos       people (3), things (2): of so few little is learnt" in taught.out
    evaluated = json.loads(call("evaluate", "mine", "-m", "people-or-things", "-q", "--json").out)
    assert evaluated["images"] == 5
    assert len(call("classify", "mine", "-m", "people-or-things", "-k1", "-q").out.splitlines()) == 5


def test_json_tells_all_of_it(call: Call, crops: Path) -> None:
    told = json.loads(call("teach", crops, "-o", "model", "--json", "-q").out)
    assert list(told) == [
        *("model", "base", "precision", "seed", "photos", "classes", "strength", "strengths", "searched"),
        *("cross_validation", "confusions", "mistrust", "failed", "test"),
    ]
    assert [(each["label"], each["photos"]) for each in told["classes"]] == [(name, 8) for name in NAMES]
    validated = told["cross_validation"]
    assert validated["right"] == sum(each["right"] for each in told["classes"])
    assert validated["right"] == 24 - sum(each["photos"] for each in told["confusions"])
    assert validated["accuracy"] == round(validated["right"] / 24, 6) >= 0.7
    low, high = validated["accuracy_interval"]
    assert low < validated["accuracy"] <= high
    best = min(told["strengths"], key=lambda each: each["log_loss"])
    assert (best["strength"], best["log_loss"]) == (told["strength"], validated["log_loss"])


@either_engine
@pytest.mark.usefixtures("engine")
def test_the_same_photos_give_the_same_bytes_in_batches_of_any_size(call: Call, crops: Path) -> None:
    made = []
    for number, options in enumerate(
        (["--batch-size", "8", "--workers", "1"], ["--batch-size", "3", "--workers", "4"])
    ):
        assert call("teach", crops, "-o", f"model-{number}", "-q", *options).status == 0
        made.append(bytes_of(f"model-{number}"))
    assert made[0] == made[1]
    assert call("teach", crops, "-o", "model-2", "-q", "--seed", "1").status == 0
    assert bytes_of("model-2")["README.md"] != made[0]["README.md"]


def test_transformers_gives_the_same_answers_by_the_models_own_image_processor(call: Call, crops: Path) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    assert call("teach", crops, "-o", "model", "-q").status == 0
    network, about = AutoModelForImageClassification.from_pretrained("model", output_loading_info=True)
    assert not any(about.values())
    processor = AutoImageProcessor.from_pretrained("model")  # type: ignore[no-untyped-call]
    ours = load_classifier("model", device="cpu", precision="fp32")
    paths = [crops / name / "00.png" for name in NAMES] + [SAMPLES / "officer.jpg"]
    for path, result in zip(paths, ours.classify(paths), strict=True):
        with Image.open(path) as image, torch.inference_mode():
            theirs = network(**processor(image.convert("RGB"), return_tensors="pt")).logits.softmax(-1)[0]
        for each in result.predictions:
            assert each.label == network.config.id2label[each.index]
            assert each.score == pytest.approx(float(theirs[each.index or 0]), abs=1e-5)


@pytest.mark.parametrize(
    "base",
    [pytest.param("original", marks=pytest.mark.slow), pytest.param("timm", marks=pytest.mark.slow), "backbone"],
)
def test_any_base_is_written_in_one_layout(call: Call, crops: Path, tmp_path: Path, base: str) -> None:
    network = reference_model(SMALL)
    made: dict[str, Callable[[], Path]] = {
        "original": lambda: _beside(save_original(network, tmp_path / "original.pth"), network.config),
        "timm": lambda: _beside(save_timm(network, tmp_path / "timm") / "model.safetensors", network.config),
        "backbone": lambda: backbones(network, tmp_path / "backbones")["transformers"],
    }
    assert call("teach", crops, "-o", "model", "-m", made[base](), "-q").status == 0
    arrays = resolve.resolve("model").arrays()
    body = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    assert (arrays["pos_embed"] == body["hiera.embeddings.position_embeddings"]).all()
    assert (arrays["blocks.5.mlp.fc2.weight"] == body["hiera.encoder.stages.3.layers.0.mlp.fc2.weight"]).all()
    assert arrays["head.fc.weight"].shape == (3, SMALL.features)


def _beside(weights: Path, config: object) -> Path:
    """Weights of no published size, which need a configuration beside them; returns them."""
    (weights.parent / "config.json").write_text(json.dumps(config.to_dict()))  # type: ignore[attr-defined]
    return weights


def test_what_is_to_be_mistrusted_is_told_with_its_paths(call: Call, photos: Path) -> None:
    shutil.copy(photos / "cat" / "00.png", photos / "rocket" / "same.png")
    with Image.open(photos / "cat" / "01.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos / "rocket" / "mirrored.png")
        image.resize((300, 300)).save(photos / "rocket" / "nearly.jpg", quality=70)
    shutil.copy(photos / "espresso" / "02.png", photos / "espresso" / "copy.png")
    (photos / "cat" / "07.png").rename(photos / "espresso" / "07-cat.png")
    for index in range(2, 5):
        (photos / "cat" / f"{index:02d}.png").unlink()
    told = json.loads(call("teach", photos, "-o", "model", "--json", "-q").out)["mistrust"]
    assert told["few_photos"] == [{"label": "cat", "photos": 4}]
    pairs = [[each["path"].removeprefix(f"{photos}/") for each in pair["photos"]] for pair in told["in_two_classes"]]
    assert pairs == [
        ["cat/01.png", "rocket/mirrored.png"],
        ["cat/00.png", "rocket/same.png"],
        ["cat/01.png", "rocket/nearly.jpg"],
    ]
    assert [pair["same"] for pair in told["in_two_classes"]] == [True, True, False]
    copied = [[Path(photo["path"]).name for photo in pair["photos"]] for pair in told["copies"]]
    assert ["02.png", "copy.png"] in copied
    shown = call("teach", photos, "-o", "again", "-q").out
    assert "few photos       cat (4): of so few little is learnt, and their accuracy says little\n" in shown
    assert f"in two classes   {photos}/cat/01.png and {photos}/rocket/mirrored.png: the same photo\n" in shown


def test_of_a_class_of_copies_of_one_photo_nothing_is_said(call: Call, photos: Path) -> None:
    shutil.rmtree(photos / "rocket")
    (photos / "rocket").mkdir()
    for index in range(4):
        shutil.copy(SAMPLES / "rocket.jpg", photos / "rocket" / f"{index}.jpg")
    done = call("teach", photos, "-o", "model", "-q")
    assert (
        "one photo        rocket (4): all are copies of one, or nearly, so that their accuracy says nothing\n"
        in done.out
    )
    assert "\ncopies " not in done.out
    told = json.loads(call("teach", photos, "-o", "again", "-q", "--json").out)["mistrust"]
    assert (told["copies_of_one"], told["copies"]) == ([{"label": "rocket", "photos": 4}], [])


def test_a_class_that_can_not_be_listed_is_a_failure(call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("rocket"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("os.scandir", scandir)
    done = call("teach", photos, "-o", "model", "-q")
    assert done.status == 1
    assert f"hiera: {photos}/rocket: cannot list the folder: Permission denied\n" in done.err
    assert done.out.startswith("photos           16 in 2 classes, and 1 photo failed\n")


def test_names_stand_in_the_card_as_they_are(call: Call, photos: Path) -> None:
    (photos / "cat").rename(photos / "a\nb|c")
    (photos / "rocket").rename(photos / "q\"uo'te")
    assert call("teach", photos, "-o", "model", "-q").status == 0
    card = Path("model", "README.md").read_text()
    assert "| a\\\\nb\\|c | 8 | " in card
    assert "| q\"uo'te | 8 | " in card


def test_what_is_tested_on_is_not_to_be_what_was_learnt(call: Call, crops: Path) -> None:
    done = call("teach", crops, "-o", "model", "--test", crops)
    assert f"hiera: 24 photos of {crops} are learnt from as well: what the model says of such " in done.err


def test_a_model_of_own_classes_says_what_it_has_no_concepts_for(call: Call, crops: Path) -> None:
    assert call("teach", crops, "-o", "model", "-q").status == 0
    found = call("find", "cat", crops, "-m", "model", "--index", "i.sqlite", "--min-score", "0")
    assert "not a concept" not in found.err
    assert len(found.out.splitlines()) == 24
    unknown = call("find", "dog", crops, "-m", "model", "--index", "i.sqlite")
    assert unknown.err == "hiera: error: 'dog' is not a word of a label of this model\n"
    among = call("classify", crops, "-m", "model", "--among", "zebra crossing guard")
    assert among.err.startswith("hiera: error: the classes of model are not ImageNet's")


def test_a_photo_in_a_wrong_folder_is_named(call: Call, photos: Path) -> None:
    (photos / "cat" / "07.png").rename(photos / "rocket" / "07-cat.png")
    (doubtful,) = json.loads(call("teach", photos, "-o", "model", "--json", "-q").out)["mistrust"]["wrong_label"]
    assert (doubtful["path"], doubtful["label"]) == (f"{photos}/rocket/07-cat.png", "rocket")
    assert (doubtful["looks_like"], doubtful["score"] >= 0.9) == ("cat", True)
    assert "wrong label?     " in call("teach", photos, "-o", "again", "-q").out


def test_photos_that_fail_are_named_and_the_model_is_made_of_the_rest(call: Call, photos: Path) -> None:
    (photos / "cat" / "05b.png").write_text("no picture")
    (photos / "empty").mkdir()
    shutil.copy(SAMPLES / "cat.jpg", photos / "loose.jpg")
    done = call("teach", photos, "-o", "model", "--no-banner")
    assert done.status == 1
    assert done.out.startswith("photos           24 in 3 classes, and 1 photo failed\n")
    lines = done.err.splitlines()
    assert lines[:3] == [
        f"hiera: 1 photo lies in {photos} itself, in the folder of no class: left out",
        f"hiera: {photos}/empty: no photo is in it, so it is no class",
        f"hiera: {photos}/cat/05b.png: not an image of a format that is read here",
    ]
    assert "hiera: model was made without the 1 photo that failed" in lines
    assert call("labels", "-m", "model").out.split() == ["0", "-", "cat", "1", "-", "espresso", "2", "-", "rocket"]


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        ({}, "photos has no folders with photos\n  A folder for each class"),
        ({"cat": 3}, "photos has photos of one class alone, cat\n  Two or more"),
        ({"cat": 3, "dog": 1}, "dog has one photo: a class needs 2 or more, better some dozens\n  Add some, or leave"),
        ({"a": 1, "b": 1, "c": 1}, "a has one photo, and 2 more classes have as few: a class needs"),
        ({"cat": 2, os.fsdecode(b"caf\xe9"): 2}, "photos/caf\\xe9: a class can't have this name, which is not UTF-8"),
    ],
)
def test_what_no_classifier_comes_of_is_told_before_a_model_is_loaded(
    call: Call, monkeypatch: pytest.MonkeyPatch, folders: dict[str, int], told: str
) -> None:
    monkeypatch.setattr("hiera_cli.classifier.load_classifier", None)
    Path("photos").mkdir()
    for name, count in folders.items():
        Path("photos", name).mkdir()
        for index in range(count):
            shutil.copy(SAMPLES / "cat.jpg", Path("photos", name, f"{index}.jpg"))
    done = call("teach", "photos", "-o", "model")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: {told}")
    assert not Path("model").exists()


def test_photos_of_which_none_can_be_read_make_no_model(call: Call) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_text("no picture")
    done = call("teach", "photos", "-o", "model", "-qq")
    assert (done.status, done.out) == (2, "")
    assert done.err == "hiera: error: none of the 4 photos could be read: no model was made\n"
    for index in (1, 2):
        shutil.copy(SAMPLES / "cat.jpg", f"photos/a/{index}.jpg")
    assert call("teach", "photos", "-o", "model", "-qq").err.startswith(
        "hiera: error: b has no photo that can be read: a class needs 2 or more"
    )
    assert not Path("model").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to teach: name a folder that has a folder of photos for each class"),
        (["photos"], "the model needs a folder"),
        (["photos", "-o", "-"], "the model needs a folder"),
        (["photos", "-o", "model.pth"], "model.pth is called like a file, and a model is a folder"),
        (["photos", "-o", "/", "--overwrite"], "/ exists already, and is no model alone: it holds "),
        (["none", "-o", "model"], "none: cannot list the folder: No such file or directory"),
        (["photos", "-o", "model", "--test", ""], "--test needs a folder: it is empty"),
        (["photos", "-o", "photos/model"], "photos/model lies in photos, where folders are classes"),
        (["photos", "-o", "no/such/model"], "cannot write no/such/model: No such file or directory"),
        (["photos", "-o", "model", "-m", "tinny"], "no model, folder or file is called 'tinny'"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_sentence(call: Call, arguments: list[str], told: str) -> None:
    Path("photos").mkdir()
    done = call("teach", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: {told}")


def test_without_scikit_learn_a_sentence_says_how_to_get_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert call("teach", "photos", "-o", "model").err == (
        "hiera: error: teaching needs scikit-learn, which is not installed\n  pip install 'hiera-cli[teach]'\n"
    )


def test_a_model_is_replaced_where_that_is_asked_for_and_nothing_else_is_ever(call: Call, crops: Path) -> None:
    assert call("teach", crops, "-o", "model", "-q").status == 0
    before = bytes_of("model")
    refused = call("teach", crops, "-o", "model", "-q", "--seed", "1")
    assert (refused.status, refused.err) == (2, "hiera: error: model exists already\n  --overwrite replaces it.\n")
    assert bytes_of("model") == before
    assert call("teach", crops, "-o", "model", "-q", "--seed", "1", "--overwrite").status == 0
    assert bytes_of("model")["README.md"] != before["README.md"]
    Path("model", "notes.txt").write_text("mine")
    Path("pictures").mkdir()
    shutil.copy(SAMPLES / "cat.jpg", "pictures")
    for name, other in (("model", "notes.txt"), ("pictures", "cat.jpg")):
        refused = call("teach", crops, "-o", name, "-q", "--overwrite")
        assert (refused.status, refused.err) == (
            2,
            f"hiera: error: {name} exists already, and is no model alone: it holds {other}\n"
            "  It is left as it is. Name another one: -o MODEL\n",
        )
    assert Path("model", "notes.txt").exists()
    Path("empty").mkdir()
    assert call("teach", crops, "-o", "empty/", "-q").status == 0
    assert list(Path().glob("*.part*")) == []
    Path("file").touch()
    assert call("teach", crops, "-o", "file", "-q", "--overwrite").err.startswith(
        "hiera: error: file is a file: a model is a folder\n"
    )


def test_a_disk_that_is_full_leaves_nothing_and_is_told(bash: Bash, crops: Path) -> None:
    done = bash(f"ulimit -f 64; hiera teach {crops} -o model -q --precision fp32 > out; ls -A | grep model")
    assert "hiera: error: cannot write model: File too large\n" in done.stderr
    assert done.stdout == ""


def test_a_disk_without_room_for_the_weights_is_told_before_photos_are_read(
    call: Call, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2, 1, 300_000))  # type: ignore[attr-defined]
    done = call("teach", crops, "-o", "model", "-q")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("hiera: error: cannot write model: the model takes 1 MB, and 0 MB are free")


def test_a_class_may_have_any_name_that_is_text(call: Call, photos: Path) -> None:
    (photos / "cat").rename(photos / "a | b <i>\t✓")
    assert call("teach", photos, "-o", "model", "-q").status == 0
    config = json.loads(Path("model/config.json").read_text())
    assert config["id2label"] == {"0": "a | b <i>\t✓", "1": "espresso", "2": "rocket"}
    assert "| a \\| b \\<i\\>" in Path("model/README.md").read_text()


def test_the_card_has_the_figures_and_the_licence_of_the_base(call: Call, crops: Path, tmp_path: Path) -> None:
    from hiera_cli.commands import teach_facts

    told = json.loads(call("teach", crops, "-o", "model", "--json", "-q").out)
    card = Path("model/README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: transformers\n")
    assert f"5-fold cross-validation: {told['cross_validation']['accuracy']:.1%} (" in card
    assert str(tmp_path) not in card
    assert "| rocket | 8 | " in card
    assert teach_facts._licence("facebook/hiera-tiny-224-in1k-hf")[0] == ["license: cc-by-nc-4.0"]
    assert "so is what is made of them" in teach_facts._licence("./mine")[1]


def test_classes_that_features_do_not_tell_apart_are_told(call: Call, crops: Path) -> None:
    for index, path in enumerate(sorted((crops / "cat").iterdir())):
        Path("photos", "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, Path("photos", "ab"[index % 2]))
    out = call("teach", "photos", "-o", "model", "-q").out
    assert "chance?          to say a of every photo would be right for 50.0%: it may be no better\n" in out


@pytest.mark.parametrize("stuck", [False, True])
def test_an_interrupt_makes_no_model_while_photos_are_read(
    call: Call, crops: Path, monkeypatch: pytest.MonkeyPatch, stuck: bool
) -> None:
    answer, answered = Teach.answer, threading.Event()

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(Teach, "answer", answer)
        signal.raise_signal(signal.SIGINT)
        answered.set()
        return answer(*arguments)

    def first_stuck(source: Source, *arguments: Any, **options: Any) -> Any:
        if source.path.endswith("cat/00.png"):  # what comes behind it is known before
            answered.wait()
        return prepare(source, *arguments, **options)

    monkeypatch.setattr(Teach, "answer", interrupted)
    if stuck:
        monkeypatch.setattr("hiera_cli.pipeline.stream.prepare", first_stuck)
    done = call("teach", crops, "-o", "model", "--workers", "2")
    assert (done.status, done.out) == (130, "")
    assert "hiera: interrupted: " in done.err
    assert done.err.endswith("hiera: no model was made\n")
    assert list(Path().glob("model*")) == []


@pytest.mark.parametrize("step", ["hiera_cli.teaching.fit.fit", "hiera_cli.checkpoints.save._safetensors"])
def test_an_interrupt_makes_no_model_while_it_is_learnt_and_written(
    call: Call, crops: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupted(*arguments: Any) -> Iterator[bytes]:
        os.kill(os.getpid(), signal.SIGINT)
        return iter(())

    monkeypatch.setattr(step, interrupted)
    done = call("teach", crops, "-o", "model", "-q")
    assert (done.status, done.out, done.err) == (130, "", "hiera: interrupted: no model was made\n")
    assert list(Path().glob("model*")) == []


def test_mirror_images_are_of_pixels(call: Call) -> None:
    from hiera_cli.images.recipe import preprocess

    with Image.open(SAMPLES / "cat.jpg") as image:
        pixels = preprocess(image)
        turned = preprocess(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    np.testing.assert_allclose(mirrored(pixels), turned, atol=0.05)
    crop = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert (mirrored(crop) == crop[:, ::-1]).all()
    model = load_classifier("demo", device="cpu", precision="fp32")
    (row,) = Teach().submit(model, [pixels], [0])()
    (features, other) = (
        result.features for result in model.embed([image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    )
    assert features is not None
    assert other is not None
    np.testing.assert_allclose(row, np.stack([features, other]), atol=0.02)
