"""Features and tokens: what transformers' HieraModel gives for the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_maker import backbones, reference_model, save
from conftest import SAMPLES, Open, either_engine, needs_openvino

from hiera_cli import CheckpointError, load_classifier
from hiera_cli.checkpoints.published import PUBLISHED
from hiera_cli.checkpoints.resolve import resolve
from hiera_cli.engines import compiled
from hiera_cli.engines.engine import Output
from hiera_cli.engines.placement import Placement
from hiera_cli.images.recipe import preprocess
from hiera_cli.tasks.embed import unit_length

PIXELS = np.random.default_rng(1).standard_normal((3, 3, 224, 224), dtype=np.float32)
CAT = SAMPLES / "cat.jpg"


def reference(model: Any, pixels: np.ndarray[Any, Any] = PIXELS) -> dict[str, np.ndarray[Any, Any]]:
    """What transformers' HieraModel answers."""
    with torch.inference_mode():
        output = model(torch.from_numpy(pixels))
    return {
        "features": output.pooler_output.numpy(),
        "tokens": output.last_hidden_state.numpy().reshape(len(pixels), 7, 7, -1),
    }


def assert_parity(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert (got.dtype, got.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(got, expected, atol=1e-5 * float(np.ptp(expected)), rtol=0)


@pytest.mark.parametrize(
    "size",
    # Of huge, which is made alike, the logits alone are held against the reference: it takes a minute.
    ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED if name not in ("tiny", "huge"))],
)
def test_features_and_tokens_are_those_of_transformers(tmp_path: Path, open_fp32: Open, size: str) -> None:
    model = reference_model(PUBLISHED[size].architecture)
    pixels = PIXELS if size == "tiny" else PIXELS[:1]
    expected = reference(model.hiera, pixels)
    save(model, tmp_path / "classifier")
    del model
    engine = open_fp32(resolve(str(tmp_path / "classifier")))
    for output in ("features", "tokens"):
        assert_parity(engine.run(pixels, output), expected[output])


@either_engine
def test_a_backbone_of_any_layout_gives_the_same_features(tmp_path: Path, open_fp32: Open) -> None:
    model = reference_model(PUBLISHED["tiny"].architecture)
    expected = reference(model.hiera, PIXELS[:1])
    for path in backbones(model, tmp_path).values():
        engine = open_fp32(resolve(str(path)))
        for output in ("features", "tokens"):
            assert_parity(engine.run(PIXELS[:1], output), expected[output])


def test_an_image_has_the_same_features_in_whatever_batch_it_is(open_fp32: Open) -> None:
    engine = open_fp32(resolve("demo"))
    for output in ("logits", "features", "tokens"):
        together = engine.run(PIXELS, output)
        alone = [engine.run(image[None], output)[0] for image in PIXELS]
        np.testing.assert_array_equal(together, alone)


@pytest.fixture(params=[{}, {"normalize": True}, {"tokens": True}, {"tokens": True, "normalize": True}], ids=str)
def options(request: pytest.FixtureRequest) -> dict[str, bool]:
    return dict(request.param)


def test_embed_gives_a_result_with_features_for_each_input(options: dict[str, bool], engine: str) -> None:
    classifier = load_classifier("demo", engine=engine, device="cpu", precision="fp32")
    first, missing, again = classifier.embed([CAT, "gone.jpg", CAT], **options)
    from PIL import Image

    expected = classifier.engine.run(
        preprocess(Image.open(CAT))[None], "tokens" if options.get("tokens") else "features"
    )[0]
    if options.get("normalize"):
        expected = unit_length(expected)
    assert first.features is not None
    assert first.features.dtype == np.float32
    np.testing.assert_allclose(first.features, expected, atol=1e-5)
    assert again.features is not None
    np.testing.assert_array_equal(again.features, first.features)
    assert (missing.features, missing.error and missing.error.type) == (None, "NotFoundError")
    assert first.to_dict()["settings"] == {"tokens": False, "normalize": False, "full_decode": False, **options}
    assert list(first.to_dict()) == list(missing.to_dict())


def test_from_python_a_backbone_gives_features_and_refuses_labels(tmp_path: Path) -> None:
    from checkpoint_maker import SMALL

    reference_model(SMALL).hiera.save_pretrained(tmp_path / "backbone")
    backbone = load_classifier(tmp_path / "backbone", engine="torch", device="cpu", precision="fp32")
    (result,) = backbone.embed(CAT)
    assert result.features is not None
    assert result.features.shape == (SMALL.features,)
    with pytest.raises(CheckpointError, match="is a Hiera backbone without a classifier: it gives no labels"):
        backbone.classify(CAT)


def test_the_classifier_is_linear_on_the_features(open_fp32: Open) -> None:
    checkpoint = resolve("demo")
    engine = open_fp32(checkpoint)
    weights = checkpoint.arrays()
    logits = engine.run(PIXELS, "features") @ weights["head.fc.weight"].T + weights["head.fc.bias"]
    np.testing.assert_allclose(engine.run(PIXELS), logits, atol=1e-4)


@needs_openvino
def test_one_compiled_model_on_disk_gives_logits_features_and_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    from hiera_cli.engines import openvino_engine

    checkpoint, placement = resolve("demo"), Placement("cpu", "fp32", "openvino")
    outputs: list[Output] = ["logits", "features", "tokens"]
    expected = [openvino_engine.OpenVinoEngine(checkpoint, placement).run(PIXELS, output) for output in outputs]
    monkeypatch.setattr(openvino_engine, "build", lambda *arguments: pytest.fail("compiled again"))
    for output, rows in zip(outputs, expected, strict=True):
        again = openvino_engine.OpenVinoEngine(checkpoint, placement).run(PIXELS, output)
        np.testing.assert_array_equal(again, rows)
    assert len(compiled.saved()) == 1
