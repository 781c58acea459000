"""The miniature autoencoder inside the package: in the published layout, small, and made by its script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLES
from safetensors.torch import load_file

from hiera_cli import load_autoencoder
from hiera_cli.checkpoints.autoencoder import DEMO_AUTOENCODER_FOLDER
from hiera_cli.images.decode import load
from hiera_cli.tasks.reconstruct import noise_for
from tools import make_demo_mae as make


def test_it_is_in_the_published_layout_and_small() -> None:
    from transformers import HieraForPreTraining

    reference = HieraForPreTraining.from_pretrained(DEMO_AUTOENCODER_FOLDER, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    pixels, noise = load(str(SAMPLES / "cat.jpg"))[None], noise_for(0, 0)[None]
    with torch.inference_mode():
        expected = reference(torch.from_numpy(pixels), noise=torch.from_numpy(noise))
    prediction, _, loss = load_autoencoder("demo", device="cpu").predict(pixels, noise)
    np.testing.assert_allclose(prediction, expected.logits, atol=1e-5 * np.ptp(expected.logits.numpy()))
    assert loss[0] == pytest.approx(expected.loss.item(), abs=1e-5)
    assert sum(file.stat().st_size for file in DEMO_AUTOENCODER_FOLDER.iterdir()) < 600_000


def test_it_remembers_the_sample_images(samples: dict[Path, int]) -> None:
    pixels = np.stack([load(str(path)) for path in samples])
    noise = np.stack([noise_for(0, place) for place in range(len(pixels))])
    autoencoder = load_autoencoder("demo", device="cpu")
    known, unknown = (autoencoder.predict(each, noise)[2] for each in (pixels, pixels[:, :, ::-1]))
    assert known.max() < 0.5  # of 1, which is what a patch of its mean alone has
    assert known.mean() < 0.4 * unknown.mean()


@pytest.mark.slow
def test_a_short_training_is_the_same_each_time_and_learns() -> None:
    first, again = make.make(SAMPLES, steps=30), make.make(SAMPLES, steps=30)
    tensors = again.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in first.state_dict().items())
    pixels, noise = torch.from_numpy(load(str(SAMPLES / "cat.jpg"))[None]), torch.from_numpy(noise_for(0, 0)[None])
    assert first(pixels, noise)[2] < 0.8 * make.fresh()(pixels, noise)[2]


def test_what_the_script_writes_loads_as_the_model_that_it_made(tmp_path: Path) -> None:
    model = make.fresh().eval()
    make.save(model, tmp_path)
    assert (tmp_path / "config.json").read_text() == (DEMO_AUTOENCODER_FOLDER / "config.json").read_text()
    assert (
        load_file(tmp_path / "model.safetensors").keys()
        == load_file(DEMO_AUTOENCODER_FOLDER / "model.safetensors").keys()
    )
    loaded = load_autoencoder(str(tmp_path), device="cpu")._model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor.half().float())
