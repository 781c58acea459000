"""`hiera reconstruct`, as its user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Call
from PIL import Image

from hiera_cli import load_autoencoder
from hiera_cli.images.recipe import preprocess
from hiera_cli.tasks.reconstruct import noise_for, picture

CAT, ROCKET = SAMPLES / "cat.jpg", SAMPLES / "rocket.jpg"


@pytest.fixture(autouse=True)
def _demo(environment: dict[str, str]) -> None:
    environment.update(HIERA_MODEL="demo", HIERA_DEVICE="cpu")
    del environment["HIERA_ENGINE"]


def test_a_picture_and_a_loss_are_those_of_the_model(call: Call) -> None:
    done = call("reconstruct", CAT, "-o", "out.png", "-q")
    pixels = preprocess(Image.open(CAT))
    prediction, visible, loss = load_autoencoder("demo", device="cpu").predict(pixels[None], noise_for(0, 0)[None])
    assert (done.status, done.out) == (0, f"{CAT}\t{loss[0]:.4f}\tout.png\n")
    np.testing.assert_array_equal(Image.open("out.png"), picture(pixels, prediction[0], visible[0]))


def test_each_of_several_inputs_has_a_picture_of_its_own_also_under_one_name(call: Call, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(CAT, tmp_path / folder / "cat.jpg")
    (tmp_path / "a" / "broken.jpg").write_text("no picture")
    done = call("reconstruct", "a", "b", "-o", "pictures", "-f", "jsonl", "-q")
    assert done.status == 1
    records = done.records()
    assert [record["picture"] for record in records] == [None, "pictures/000002-cat.png", "pictures/000003-cat.png"]
    assert [record["loss"] is None for record in records] == [True, False, False]
    assert len({record["loss"] for record in records}) == 3  # other places, other masks
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["000002-cat.png", "000003-cat.png"]
    keys = ["path", "path_bytes", "status", "model", "precision", "loss", "picture", "error", "remarks", "settings"]
    assert [list(record) for record in records] == [keys] * 3


def test_what_is_hidden_follows_from_the_seed_and_the_place_alone(call: Call) -> None:
    def losses(*arguments: str | Path) -> list[float]:
        done = call("reconstruct", *arguments, "--json", "-qq")
        return [record["loss"] for record in json.loads(done.out) if record["loss"] is not None]

    first, second = losses(CAT, ROCKET)
    assert losses("gone.jpg", ROCKET) == [second]
    assert losses(CAT) == [first]
    assert losses(CAT, "--seed", "0", "--mask-ratio", "0.6") == [first]
    assert losses(CAT, "--seed", "1") != [first]
    assert losses(CAT, "--mask-ratio", "0.8") != [first]


def test_what_is_there_is_not_overwritten_unasked(call: Call) -> None:
    Path("out.png").write_text("mine")
    Path("pictures").mkdir()
    Path("pictures", "mine.txt").write_text("mine")
    for output in ("out.png", "pictures"):
        done = call("reconstruct", CAT, "-o", output)
        assert (done.status, f"{output} exists already" in done.err, "--overwrite" in done.err) == (2, True, True)
        assert call("reconstruct", CAT, "-o", output, "--overwrite", "-q").status == 0
    with Image.open("out.png") as shown:
        assert shown.size == (688, 224)
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["000001-cat.png", "mine.txt"]
    call("reconstruct", SAMPLES, "-o", "pictures", "--overwrite", "-q")
    assert call("reconstruct", CAT, "-o", "pictures", "--overwrite", "-q").status == 0
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["000001-cat.png", "mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to reconstruct: name files, folders or URLs"),
        ([CAT, ROCKET, "-o", "x.png"], "x.png is one picture, and there may be several inputs"),
        ([SAMPLES, "-o", "x.png"], "x.png is one picture, and there may be several inputs"),
        ([CAT, "--engine", "openvino"], "masked autoencoders run in PyTorch, not with the openvino engine"),
        ([CAT, "--mask-ratio", "0"], "a mask ratio of 0 leaves nothing to hide"),
        ([CAT, "--mask-ratio", "1"], "a mask ratio of 1 leaves nothing to show"),
        ([CAT, "--overwrite"], "--overwrite is about an --output, and there is none"),
        ([CAT, "-o", "x.jpg"], "pictures are written as PNG, not as .jpg"),
        ([CAT, "-o", "-"], "pictures are not written to standard output"),
        ([CAT, "-o", SAMPLES / "README.md"], f"{SAMPLES}/README.md is not a folder"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_sentence(call: Call, arguments: list[str | Path], told: str) -> None:
    done = call("reconstruct", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: {told}")


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_the_engine_of_the_environment_is_no_affair_of_this_model(
    call: Call, environment: dict[str, str], engine: str
) -> None:
    environment["HIERA_ENGINE"] = engine
    assert call("reconstruct", CAT, "-qq").status == 0


def test_a_picture_that_can_not_be_written_ends_the_run_with_its_name(call: Call) -> None:
    done = call("reconstruct", CAT, "-o", "/proc/no/such/x.png", "-q")
    assert (done.status, "cannot write /proc/no/such/x.png: No such file or directory" in done.err) == (2, True)
