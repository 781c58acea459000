"""Make the demo model: a miniature Hiera that knows the sample images, in the published layout.

    python -m tools.make_demo sample_images

The backbone is random (seeded) and stays so; its features of a few hundred crops of each sample image are enough for a
linear classifier to tell them apart. The classifier has ImageNet's 1000 classes, and says the sample images' true ones.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from PIL import Image, ImageEnhance
from safetensors.torch import save_file
from torch import Tensor, nn

from hiera_cli.checkpoints.labels import imagenet_labels
from hiera_cli.checkpoints.layouts import TRANSFORMERS
from hiera_cli.checkpoints.published import CONFIG, DEMO_FOLDER, WEIGHTS
from hiera_cli.images.recipe import preprocess, rgb
from hiera_cli.model.architecture import Architecture
from hiera_cli.model.hiera import Hiera
from hiera_cli.tasks.linear import fit

ARCHITECTURE = Architecture(embed_dim=8, num_heads=(1, 2, 4, 8), depths=(1, 1, 2, 1))
TRUE_LABELS = {  # what each sample image shows, as an index of ImageNet's classes
    "astronaut.jpg": 812,  # space shuttle: the model on the desk; ImageNet has no astronaut
    "cat.jpg": 281,  # tabby, tabby cat
    "espresso.jpg": 967,  # espresso
    "officer.jpg": 652,  # military uniform
    "photographer.png": 872,  # tripod
    "rocket.jpg": 657,  # missile: ImageNet has no other rocket
}
VIEWS = 96  # of each image
WEIGHT_DECAY = 1e-3
SEED = 2306_00989


def random_backbone() -> Hiera:
    """A Hiera whose features vary with its input: weights scaled by the fan-in, nothing trained."""
    generator = torch.Generator().manual_seed(SEED)
    model = Hiera(ARCHITECTURE)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.constant_(parameter, float("norm" in name and name.endswith("weight")))
        else:
            fan_in = parameter[0].numel() if name != "pos_embed" else ARCHITECTURE.embed_dim
            nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
    return model.requires_grad_(False).eval()


def views(image: Image.Image, choice: random.Random) -> list[Image.Image]:
    """The image itself, and crops, mirror images and exposures of it such as a user's copy might show."""
    made = [image]
    while len(made) < VIEWS:
        scale = choice.uniform(0.7, 1)
        width, height = int(image.width * scale), int(image.height * scale)
        left, top = choice.randint(0, image.width - width), choice.randint(0, image.height - height)
        view = image.crop((left, top, left + width, top + height))
        if choice.random() < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        view = ImageEnhance.Brightness(view).enhance(choice.uniform(0.8, 1.2))
        made.append(ImageEnhance.Color(view).enhance(choice.uniform(0.8, 1.2)))
    return made


def make(samples: Path) -> Hiera:
    """The demo model, fitted on the images of a folder that `TRUE_LABELS` names."""
    torch.manual_seed(SEED)
    choice = random.Random(SEED)
    model = random_backbone()
    features, targets = [], []
    for name, index in TRUE_LABELS.items():
        with Image.open(samples / name) as image:
            pixels = torch.stack([torch.from_numpy(preprocess(view)) for view in views(rgb(image), choice)])
        collected: list[Tensor] = []
        hook = model.head.norm.register_forward_hook(lambda _, __, out, into=collected: into.append(out))
        model(pixels)
        hook.remove()
        features.append(collected[0])
        targets += [index] * len(pixels)
    weight, bias = fit(torch.cat(features), torch.tensor(targets), ARCHITECTURE.num_classes, WEIGHT_DECAY)
    assert model.head.fc is not None
    model.head.fc.weight.copy_(weight)
    model.head.fc.bias.copy_(bias)
    return model


def save(model: Hiera, folder: Path) -> None:
    """Write config.json and model.safetensors, as transformers would."""
    tensors = {
        TRANSFORMERS.name(name, ARCHITECTURE): tensor.half().contiguous() for name, tensor in model.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    config = {
        "architectures": ["HieraForImageClassification"],
        "model_type": "hiera",
        "embed_dim": ARCHITECTURE.embed_dim,
        "num_heads": list(ARCHITECTURE.num_heads),
        "depths": list(ARCHITECTURE.depths),
        "torch_dtype": "float16",
        "id2label": {str(label.index): label.text for label in imagenet_labels()},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    save(make(Path(sys.argv[1])), DEMO_FOLDER)
