"""The model inside the package: it goes the way of any checkpoint, and knows the sample images."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Open
from PIL import Image

from hiera_cli.checkpoints.published import DEMO_FOLDER
from hiera_cli.checkpoints.resolve import resolve
from hiera_cli.engines.engine import Engine
from hiera_cli.images.decode import load
from hiera_cli.images.recipe import preprocess, rgb
from tools import make_demo as make


def labelled(engine: Engine, pixels: list[np.ndarray]) -> list[int]:
    return engine.run(np.stack(pixels)).argmax(1).tolist()  # type: ignore[no-any-return]


def test_the_demo_model_knows_each_sample_image(samples: dict[Path, int], open_fp32: Open) -> None:
    engine = open_fp32(resolve("demo"))
    assert labelled(engine, [load(str(path)) for path in samples]) == list(samples.values())


def test_every_sample_image_has_its_true_label_here() -> None:
    images = {path.name for path in SAMPLES.iterdir() if path.suffix != ".md"}
    assert images == set(make.TRUE_LABELS)
    assert 5 <= len(images) <= 8
    assert all((SAMPLES / name).stat().st_size < 200 << 10 for name in images)
    assert all(f"`{name}`" in (SAMPLES / "README.md").read_text() for name in images)


def test_it_knows_a_copy_that_was_made_smaller_or_cropped_too(samples: dict[Path, int], open_fp32: Open) -> None:
    choice = random.Random(1)
    pixels, expected = [], []
    for path, index in samples.items():
        image = rgb(Image.open(path))
        pixels += [preprocess(image.resize((image.width // 2, image.height // 2)))]
        pixels += [preprocess(view) for view in make.views(image, choice)[1:6]]
        expected += [index] * 6
    assert labelled(open_fp32(resolve("demo")), pixels) == expected


@pytest.mark.slow
def test_the_script_makes_the_model_that_is_in_the_package(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    make.save(make.make(SAMPLES), tmp_path)
    ours, made = load_file(DEMO_FOLDER / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert ours.keys() == made.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(made[name], tensor, atol=5e-2, rtol=5e-2)
    assert (DEMO_FOLDER / "config.json").read_text() == (tmp_path / "config.json").read_text()


def test_it_is_in_the_published_layout_and_small(open_fp32: Open) -> None:
    from transformers import HieraForImageClassification

    reference = HieraForImageClassification.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    pixels = load(str(SAMPLES / "cat.jpg"))[None]
    with torch.inference_mode():
        expected = reference(torch.from_numpy(pixels)).logits.numpy()
    got = open_fp32(resolve("demo")).run(pixels)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.ptp(expected))
    assert sum(file.stat().st_size for file in DEMO_FOLDER.iterdir()) < 1 << 20
