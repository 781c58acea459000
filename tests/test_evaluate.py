"""`hiera evaluate`: photos whose classes are known, held against what the model says."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, TOOK, Call, Done, either_engine

pytestmark = pytest.mark.usefixtures("demo_on_the_cpu")

TRUTHS = {  # where the tests put the sample images; the demo model is right on all but those in the wrong folder
    "espresso/espresso.jpg": "espresso.jpg",
    "missile/rocket.jpg": "rocket.jpg",
    "n02123045/cat.jpg": "cat.jpg",
    "tabby/officer.jpg": "officer.jpg",
    "tripod/photographer.png": "photographer.png",
}


@pytest.fixture
def photos() -> Path:
    """A folder a class; one of them has a name of its own for a class that another has, and a photo that is not it."""
    for name, sample in TRUTHS.items():
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / sample, path)
    return Path("photos")


def times_aside(text: str) -> str:
    text = re.sub(r"(images a second) +[\d.,]+", r"\1 #", text)
    return re.sub(TOOK, "# s", text)


def figures(done: Done) -> dict[str, Any]:
    return json.loads(done.out)  # type: ignore[no-any-return]


def test_the_figures_are_a_table(call: Call, photos: Path) -> None:
    done = call("evaluate", "photos")
    assert done.status == 0
    scores = re.sub(r"0\.\d{3}   mean score \d+\.\d%", "#   mean score #", times_aside(done.out))
    assert scores == (
        "images                   5\n"
        "top-1                80.0%   95%: 37.6–96.4%\n"
        "top-5               100.0%   95%: 56.6–100.0%\n"
        "mean per class       87.5%   4 classes\n"
        "calibration error    #   mean score #: too sure\n"
        "images a second #\n"
        "\n"
        " TOP-1   RIGHT      OF  CLASSES\n"
        " 50.0%       1       2  tabby\n"
        "100.0%       1       1  espresso\n"
        "100.0%       1       1  missile\n"
        "100.0%       1       1  tripod\n"
        "\n"
        " COUNT  CONFUSIONS: TRUTH → ANSWER\n"
        "     1  tabby → military uniform\n"
    )
    assert times_aside(done.err).splitlines()[-1] == "hiera: 5 evaluated, # s"
    assert "hiera: missile: 657 missile (n03773504); also 744 projectile, missile (n04008634)\n" in done.err


def test_json_has_all_figures(call: Call, photos: Path) -> None:
    Path("photos/missile/broken.jpg").write_bytes(b"no picture")
    Path("photos/dog").mkdir()
    shutil.copy(SAMPLES / "cat.jpg", "photos/loose.jpg")
    done = call("evaluate", "photos", "--json")
    assert done.status == 1
    record = figures(done)
    assert list(record) == [
        *("model", "precision", "complete", "images", "failed", "unknown", "unknown_names", "loose", "settings"),
        *("top1", "top1_interval", "top5", "top5_interval", "mean_per_class", "calibration_error", "mean_score"),
        *("images_per_second", "classes", "confusions", "calibration_bins"),
    ]
    assert (record["images"], record["failed"], record["loose"], record["complete"]) == (5, 1, 1, True)
    assert (record["top1"], record["top5"], record["mean_per_class"]) == (0.8, 1.0, 0.875)
    assert record["top1_interval"] == [0.375535, 0.963776]
    assert record["classes"][0] == {
        "index": 281,
        "wnid": "n02123045",
        "label": "tabby, tabby cat",
        "images": 2,
        "right": 1,
        "top1": 0.5,
    }
    assert record["confusions"] == [
        {
            "truth": {"index": 281, "wnid": "n02123045", "label": "tabby, tabby cat"},
            "answer": {"index": 652, "wnid": "n03763968", "label": "military uniform"},
            "count": 1,
        }
    ]
    assert "hiera: left out 1 image beside the folders of classes\n" in done.err
    assert "hiera: no images in 1 class folder: dog\n" in done.err
    assert "photos/missile/broken.jpg: " in done.err


def test_each_record_has_its_truth(call: Call, photos: Path) -> None:
    Path("photos/tabby/broken.jpg").write_bytes(b"no picture")
    assert call("evaluate", "photos", "-o", "r.jsonl", "-qq").status == 1
    records = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert [(each["path"], each["truth"]["name"], each["rank"], each["correct"]) for each in records] == [
        ("photos/espresso/espresso.jpg", "espresso", 1, True),
        ("photos/missile/rocket.jpg", "missile", 1, True),
        ("photos/n02123045/cat.jpg", "n02123045", 1, True),
        ("photos/tabby/broken.jpg", "tabby", None, None),
        ("photos/tabby/officer.jpg", "tabby", 3, False),
        ("photos/tripod/photographer.png", "tripod", 1, True),
    ]
    assert records[2]["truth"] == {"name": "n02123045", "index": 281, "wnid": "n02123045", "label": "tabby, tabby cat"}
    assert len({tuple(each) for each in records}) == 1
    assert [len(each["predictions"]) for each in records] == [5, 5, 5, 0, 5, 5]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_tables_of_records_have_a_row_an_image(call: Call, photos: Path, suffix: str) -> None:
    assert call("evaluate", "photos", "-o", f"r.{suffix}", "-q").status == 0
    with open(f"r.{suffix}", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="," if suffix == "csv" else "\t"))
    assert [(row["truth"], row["truth_index"], row["correct"], row["rank"], row["index"]) for row in rows] == [
        ("espresso", "967", "true", "1", "967"),
        ("missile", "657", "true", "1", "657"),
        ("n02123045", "281", "true", "1", "281"),
        ("tabby", "281", "false", "3", "652"),
        ("tripod", "872", "true", "1", "872"),
    ]


def test_the_confusion_matrix_is_a_file(call: Call, photos: Path) -> None:
    assert call("evaluate", "photos", "--confusion", "m.csv", "-q").status == 0
    matrix = Path("m.csv").read_text()
    assert matrix == (
        'truth,"tabby, tabby cat",missile,tripod,espresso,military uniform\n'
        '"tabby, tabby cat",1,0,0,0,1\n'
        "missile,0,1,0,0,0\n"
        "tripod,0,0,1,0,0\n"
        "espresso,0,0,0,1,0\n"
    )
    again = call("evaluate", "photos", "--confusion", "m.csv", "-q")
    assert (again.status, again.err) == (2, "hiera: error: m.csv exists already\n  --overwrite replaces it.\n")
    assert call("evaluate", "photos", "--confusion", "m.csv", "-q", "--overwrite").status == 0


def test_names_that_are_no_classes_end_it_before_anything_is_read(call: Call, photos: Path) -> None:
    for name in ("crane", "tabbi"):
        Path("photos", name).mkdir()
        shutil.copy(SAMPLES / "cat.jpg", Path("photos", name))
    Path("photos/empty").mkdir()  # of which there is nothing to be wrong
    done = call("evaluate", "photos", "-m", "tiny")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "hiera: error: 2 of 7 names are no class of facebook/hiera-tiny-224-in1k-hf\n"
        "  crane: it may be 134 crane (n02012849) or 517 crane (n03126707): name it by its index or WordNet id\n"
        "  tabbi: nothing is called that. The nearest: 281 tabby, tabby cat (n02123045)\n"
        "  --allow-unknown leaves their images out; `hiera labels -m facebook/hiera-tiny-224-in1k-hf` lists the "
        "classes.\n"
    )


def test_unknown_classes_are_left_out_and_counted_if_that_is_allowed(call: Call, photos: Path) -> None:
    for name in ("crane", "zzz"):
        Path("photos", name).mkdir()
        shutil.copy(SAMPLES / "cat.jpg", Path("photos", name))
    done = call("evaluate", "photos", "--allow-unknown", "--json")
    record = figures(done)
    assert (done.status, record["images"], record["unknown"], record["unknown_names"]) == (0, 5, 2, ["crane", "zzz"])
    assert "hiera: left out 2 images of unknown classes: crane, zzz\n" in done.err
    table = call("evaluate", "photos", "--allow-unknown", "-q").out
    assert table.startswith("images                   5   2 of unknown classes left out\n")
    shutil.rmtree("photos")
    Path("photos/zzz").mkdir(parents=True)
    assert call("evaluate", "photos", "--allow-unknown").status == 1


def test_any_class_under_a_concept_is_right(call: Call) -> None:
    Path("photos/cats").mkdir(parents=True)
    shutil.copy(SAMPLES / "cat.jpg", "photos/cats")
    done = call("evaluate", "photos", "--json")
    record = figures(done)
    assert (record["top1"], record["classes"][0]["label"], record["classes"][0]["index"]) == (1.0, "cat", None)
    assert "hiera: cats: cat, true cat, a kind of feline (n02121620, 7 classes)" in done.err


def test_a_table_of_truths_gives_a_record_a_row(call: Call, photos: Path) -> None:
    Path("t.csv").write_text("path,label\ntabby/officer.jpg,652\ntabby/officer.jpg,652\ngone.jpg,tabby\n")
    done = call("evaluate", "--truth", "t.csv", "photos", "-o", "r.jsonl", "--json")
    assert (done.status, figures(done)["images"], figures(done)["failed"]) == (1, 2, 1)
    assert "hiera: 1 row of t.csv name images again, which count again\n" in done.err
    records = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert [(each["path"], each["truth"]["name"], each["correct"]) for each in records] == [
        ("photos/tabby/officer.jpg", "652", True),
        ("photos/tabby/officer.jpg", "652", True),
        ("photos/gone.jpg", "tabby", None),
    ]
    forgotten = call("evaluate", "--truth", "t.csv")
    assert "hiera: tabby/officer.jpg is not in the current folder: FOLDER names the one that paths" in forgotten.err


def test_models_are_compared_on_the_same_images(call: Call, photos: Path) -> None:
    other = Path("other")
    shutil.copytree(Path(__file__).parent.parent / "hiera_cli" / "demo", other)
    swapped = (other / "config.json").read_text().replace('"espresso"', '"x"').replace('"tripod"', '"espresso"')
    (other / "config.json").write_text(swapped.replace('"x"', '"tripod"'))
    done = call("evaluate", "photos", "--models", "demo,other", "--json")
    record = figures(done)
    assert [(each["model"], each["images"], each["top1"]) for each in record["models"]] == [
        ("demo", 5, 0.8),
        ("other", 5, 0.4),
    ]
    assert record["comparisons"] == [
        {"model": "other", "against": "demo", "images": 5, "only_this": 0, "only_first": 2, "p": 0.5}
    ]
    assert done.err.count("also 744") == 1
    table = call("evaluate", "photos", "--models", "demo,other", "-q").out
    assert re.sub(r"0\.\d{3} +[\d.]+\n", "# #\n", table) == (
        "MODEL   TOP-1         95%  TOP-5 CLASSES   ECE      /s\n"
        "demo    80.0%   37.6–96.4 100.0%   87.5% # #\n"
        "other   40.0%   11.8–76.9  60.0%   37.5% # #\n"
        "CLASSES: mean top-1 of the classes. ECE: expected calibration error. /s: images a second.\n"
        "\n"
        "AGAINST demo\n"
        "  other: no sure difference (p = 0.5000); of 5 images it alone has 0 right, demo alone 2\n"
    )


def test_models_of_other_classes_are_compared_on_those_they_share(call: Call, photos: Path) -> None:
    assert call("teach", "photos", "-o", "mine", "-q", "--exclude", "n02123045").status == 2
    for name in ("tabby", "tripod", "gizmo"):
        for number in range(2):
            Path("own", name).mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLES / "cat.jpg", Path("own", name, f"{number}.jpg"))
    assert call("teach", "own", "-o", "mine", "-q").status == 0
    assert call("evaluate", "own", "--models", "mine,demo").err.startswith("hiera: error: 1 of 3 names is no class of")
    shutil.rmtree("own/gizmo")
    shutil.copytree("photos/missile", "own/missile")
    record = figures(call("evaluate", "own", "--models", "mine,demo", "--json", "--allow-unknown"))
    assert [(each["images"], each["unknown"]) for each in record["models"]] == [(4, 1), (4, 1)]
    assert record["comparisons"][0]["images"] == 4
    shutil.rmtree("own/tabby")
    shutil.rmtree("own/tripod")
    refused = call("evaluate", "own", "--models", "demo,mine", "--allow-unknown")
    assert (refused.status, refused.out) == (2, "")


def test_a_run_that_is_gone_on_with_counts_what_was_done_before(call: Call, photos: Path) -> None:
    assert call("evaluate", "photos", "-o", "r.jsonl", "--exclude", "tabby", "-q").status == 0
    first, *rest = Path("r.jsonl").read_text().splitlines(keepends=True)
    Path("r.jsonl.part").write_text("".join([first, rest[0]]))
    Path("r.jsonl").unlink()
    done = call("evaluate", "photos", "-o", "r.jsonl", "--resume", "--json")
    whole = call("evaluate", "photos", "--json", "-q")
    assert "hiera: 3 evaluated, 2 done before, " in done.err
    apart = {"images_per_second": None}
    assert {**figures(done), **apart} == {**figures(whole), **apart}
    again = call("evaluate", "photos", "-o", "r.jsonl", "--resume", "--json")
    assert again.status == 0
    assert {**figures(again), **apart} == {**figures(whole), **apart}
    assert figures(again)["images_per_second"] is None


def test_records_of_another_truth_are_not_gone_on_with(call: Call, photos: Path) -> None:
    Path("t.csv").write_text("photos/tabby/officer.jpg,tabby\n")
    assert call("evaluate", "--truth", "t.csv", "-o", "r.jsonl", "-q").status == 0
    before = Path("r.jsonl").read_bytes()
    Path("t.csv").write_text("photos/tabby/officer.jpg,652\n")
    done = call("evaluate", "--truth", "t.csv", "-o", "r.jsonl", "--resume", "-q")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "hiera: error: cannot go on with the records: the truth of photos/tabby/officer.jpg was 'tabby', "
        "and is '652' now\n  Name another --output, or --overwrite to begin anew.\n"
    )
    assert Path("r.jsonl").read_bytes() == before
    classified = call("classify", "photos/tabby/officer.jpg", "-o", "c.jsonl", "-q")
    assert classified.status == 0
    assert call("evaluate", "--truth", "t.csv", "-o", "c.jsonl", "--resume", "-q").status == 2


def test_a_matrix_of_nothing_has_its_header(call: Call, photos: Path) -> None:
    assert call("evaluate", "photos", "--max-pixels", "1", "--confusion", "m.csv", "-q").status == 1
    assert Path("m.csv").read_text() == "truth\n"


def test_where_nothing_can_be_read_there_are_no_figures(call: Call) -> None:
    Path("photos/tabby").mkdir(parents=True)
    done = call("evaluate", "photos")
    assert (done.status, done.out) == (1, "")
    assert done.err == "hiera: photos: no images in this folder\n"
    done = call("evaluate", "photos", "--json", "-q")
    assert (done.status, figures(done)["images"], figures(done)["top1"]) == (1, 0, None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to evaluate on: name a folder with one folder per class in it\n  Of photos that"),
        (["gone"], "there is no folder gone\n"),
        (["photos/tabby"], "there is no folder in photos/tabby: one per class is needed\n"),
        (["photos/tabby/officer.jpg"], "photos/tabby/officer.jpg is a file, not a folder with one folder per class"),
        (["--truth", "t.csv", "gone"], "gone is not there: it is what the paths of t.csv are in\n"),
        (["photos", "-o", "-"], "standard output has the figures: the records need a file\n"),
        (["photos", "-o", "r"], "r: no suffix names a format\n"),
        (["photos", "-o", "r.txt"], "r.txt: no format of records has the suffix '.txt'\n"),
        (["photos", "--models", "demo"], "--models takes two models or more, with commas between, not 'demo'\n"),
        (["photos", "--models", "demo,demo"], "--models names a model twice: demo,demo\n"),
        (["photos", "--models", "demo,tiny", "-m", "demo"], "--model and --models contradict each other\n"),
        (["photos", "--models", "demo,tiny", "-o", "r.csv"], "--output is of one model, and --models names several\n"),
        (["photos", "--models", "demo,tinny"], "no model, folder or file is called 'tinny'\n"),
        (["photos", "--confusion", "-"], "standard output has the figures: the matrix needs a file\n"),
        (["photos", "--confusion", "m.csv", "-o", "m.csv"], "--output and --confusion name one file: m.csv\n"),
        (["photos", "--confusion", "m.csv", "-o", "./m.csv"], "--output and --confusion name one file: ./m.csv\n"),
        (["--truth", "t.csv", "-o", "t.csv", "--overwrite"], "--output and --truth name one file: t.csv\n"),
        (["photos", "--confusion", "photos/tabby/cat.jpg"], "the matrix is csv, which photos/tabby/cat.jpg is not"),
        (["--truth", "t.csv", "--exclude", "x"], "--exclude is about folders, and --truth names images\n"),
        (["photos", "--exclude", "*"], "there is no folder that is not excluded or hidden in photos: one per class"),
        (["photos", "--confusion", ""], "--confusion is empty\n"),
        (["photos", "--overwrite"], "--overwrite is about an --output, and there is none\n"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Call, photos: Path, arguments: list[str], told: str) -> None:
    done = call("evaluate", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: {told}")


def test_figures_of_an_interrupted_run_are_marked(call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A signal that is sent would end the process: OpenVINO gives its thread a stack for handlers that is too small for
    # the registers which PyTorch uses, and earlier tests may have had both in this process.
    import signal

    from hiera_cli.evaluation.tally import Tally

    add = Tally.add

    def add_and_interrupt(self: Tally, *arguments: Any, **options: Any) -> None:
        add(self, *arguments, **options)
        handler = signal.getsignal(signal.SIGINT)  # called, not sent: see above
        assert callable(handler)
        handler(signal.SIGINT, None)
        monkeypatch.setattr(Tally, "add", add)

    monkeypatch.setattr(Tally, "add", add_and_interrupt)
    done = call("evaluate", "photos", "-o", "r.jsonl", "--confusion", "m.csv", "-q")
    assert done.status == 130
    assert done.out.startswith("INCOMPLETE: the figures of what was done\nimages ")
    assert not Path("m.csv").exists()
    assert not Path("m.csv.part").exists()
    records = [json.loads(line) for line in Path("r.jsonl.part").read_text().splitlines()]
    assert all(each["truth"]["name"] == each["path"].split("/")[1] for each in records)


def test_figures_are_shown_where_the_matrix_or_the_records_find_no_space(call: Call, photos: Path) -> None:
    for option in ("--confusion", "-o"):
        done = call("evaluate", "photos", option, "/dev/full", "-q")
        assert (done.status, done.err) == (2, "hiera: error: cannot write /dev/full: No space left on device\n")
        assert "\ntop-1 " in done.out
        assert done.out.startswith("INCOMPLETE") == (option == "-o")


def test_another_command_can_have_the_figures_of_a_model_on_a_folder(photos: Path) -> None:
    from hiera_cli.commands.evaluate import evaluated_on
    from hiera_cli.commands.request import InputRequest, ModelRequest, OutputRequest, ReportRequest, Request

    taught = ModelRequest("another", "torch", "cpu", "fp32")
    request = Request(InputRequest(), taught, OutputRequest("", "not-written"), ReportRequest(quiet=1))
    told: list[str] = []
    done = evaluated_on("photos", "demo", request, told.append)
    assert (done.status, done.figures.images, done.figures.top1_count) == (0, 5, 4)
    assert told == ["missile: 657 missile (n03773504); also 744 projectile, missile (n04008634)"]
    assert not Path("not-written").exists()


def test_progress_shows_the_running_accuracy() -> None:
    from hiera_cli.commands.report import Report

    report = Report(progress=True)
    report.note = lambda: "top-1 81.2%"
    report.total = 10
    assert report._parts(0.0)[:2] == ["0 of 10", "top-1 81.2%"]


@pytest.fixture(scope="module")
def made_photos(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, int]:
    """Crops of the sample images and noise, four of each of ten classes, with classes that are partly true."""
    from PIL import Image

    generator = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("made")
    found: dict[Path, int] = {}
    for index in range(10):
        (folder / str(index)).mkdir()
        for number in range(4):
            with Image.open(sorted(SAMPLES.glob("*.[jp]*g"))[(index + number) % 6]) as image:
                left, top = generator.integers(0, min(image.size) // 2, 2).tolist()
                side = min(image.size) // 2
                crop = image.convert("RGB").crop((left, top, left + side, top + side))
            path = folder / str(index) / f"{number}.png"
            crop.save(path)
            found[path] = index
    return found


@either_engine
def test_the_counts_are_those_of_transformers_on_the_same_photos(
    call: Call, made_photos: dict[Path, int], tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    import torch
    from checkpoint_maker import SMALL, reference_model, save
    from PIL import Image
    from sklearn import metrics

    from hiera_cli.images.recipe import preprocess

    model = reference_model(replace(SMALL, num_classes=10), {index: f"class {index}" for index in range(10)})
    save(model, tmp_path / "model")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of the demo model alone, otherwise
    pixels = np.stack([preprocess(Image.open(path)) for path in made_photos])
    logits = model(torch.from_numpy(pixels)).logits.numpy()
    truths = np.array([*made_photos.values()])
    top1 = metrics.accuracy_score(truths, logits.argmax(1), normalize=False)
    top5 = metrics.top_k_accuracy_score(truths, logits, k=5, normalize=False)
    root = next(iter(made_photos)).parent.parent
    record = figures(call("evaluate", root, "-m", tmp_path / "model", "--json", "-q"))
    assert (record["images"], record["precision"]) == (40, "fp32")
    assert (round(40 * record["top1"]), round(40 * record["top5"])) == (top1, top5)
    assert 0 < top1 < top5 < 40
    balanced = metrics.balanced_accuracy_score(truths, logits.argmax(1))
    assert record["mean_per_class"] == pytest.approx(balanced, abs=1e-6)
