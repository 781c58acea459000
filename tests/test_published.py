"""The published check values, with the real weights: `pytest -m network` on a machine with internet."""

from __future__ import annotations

import io
import urllib.request

import numpy as np
import pytest
from PIL import Image

from hiera_cli import load_classifier
from hiera_cli.images.recipe import preprocess

COCO_CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"

# From transformers' own integration test of facebook/hiera-tiny-224-in1k-hf.
PIXELS = [
    [[0.2967, 0.4679, 0.4508], [0.3309, 0.4337, 0.3309], [0.3309, 0.3823, 0.3309]],
    [[-1.5455, -1.4930, -1.5455], [-1.5280, -1.4755, -1.5980], [-1.5630, -1.5280, -1.4755]],
    [[-0.6367, -0.4973, -0.5321], [-0.7936, -0.6715, -0.6715], [-0.8284, -0.7413, -0.5670]],
]
LOGITS = [0.8028, 0.2409, -0.2254, -0.3712, -0.2848]


@pytest.mark.network
def test_the_real_weights_give_the_published_values() -> None:
    with urllib.request.urlopen(COCO_CATS, timeout=30) as response:
        image = Image.open(io.BytesIO(response.read()))
    pixels = preprocess(image)
    np.testing.assert_allclose(pixels[:3, :3, :3], PIXELS, atol=1e-4)
    classifier = load_classifier("tiny", device="cpu", precision="fp32")
    np.testing.assert_allclose(classifier.engine.run(pixels[None])[0, :5], LOGITS, atol=1e-4)
    (result,) = classifier.classify([COCO_CATS], top_k=1)
    assert result.predictions[0].label == "tabby, tabby cat"
