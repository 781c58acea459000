"""Make the demo autoencoder: a miniature that has learnt the sample images, in the published layout.

    python -m tools.make_demo_mae sample_images

It is trained as the paper has it, on the middle of each image and on crops and mirror images of it; in half precision
it takes less than 600 KB. What it paints is what it remembers: it says nothing of what a published model would paint.
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from hiera_cli.checkpoints.autoencoder import DEMO_AUTOENCODER_FOLDER, TRANSFORMERS
from hiera_cli.checkpoints.published import CONFIG, WEIGHTS
from hiera_cli.images.recipe import Pixels, preprocess, rgb
from hiera_cli.model.architecture import MAE_QUERY_POOLS, MASK_UNITS, Architecture, Decoder
from hiera_cli.model.mae import MaskedAutoencoder
from tools.make_demo import TRUE_LABELS

ARCHITECTURE = Architecture(8, (1, 2, 4, 8), (1, 1, 2, 1), num_classes=0, query_pools=MAE_QUERY_POOLS)
DECODER = Decoder(dim=64, depth=2, num_heads=4)
VIEWS = 6  # of each image, beside its middle, which is half of what is learnt
STEPS, BATCH = 1300, 12
LEARNING_RATE, WARM_UP = 5e-3, 100  # steps
SEED = 2306_00989


def views(image: Image.Image, choice: random.Random) -> list[Pixels]:
    """What the program makes of an image, and of crops and mirror images such as a user's copy might show."""
    made = [preprocess(image)]
    while len(made) <= VIEWS:
        scale = choice.uniform(0.9, 1)
        width, height = int(image.width * scale), int(image.height * scale)
        left, top = choice.randint(0, image.width - width), choice.randint(0, image.height - height)
        view = image.crop((left, top, left + width, top + height))
        if choice.random() < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        made.append(preprocess(view))
    return made


def fresh() -> MaskedAutoencoder:
    """The miniature with seeded random weights, scaled by the fan-in."""
    generator = torch.Generator().manual_seed(SEED)
    model = MaskedAutoencoder(ARCHITECTURE, DECODER)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.constant_(parameter, float("norm" in name and name.endswith("weight")))
        elif parameter.dim() == 3:  # the position embeddings and the mask token
            nn.init.normal_(parameter, std=0.02, generator=generator)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
    return model


def make(samples: Path, steps: int = STEPS) -> MaskedAutoencoder:
    """The demo autoencoder, trained on the images of a folder that `TRUE_LABELS` names."""
    torch.manual_seed(SEED)
    choice = random.Random(SEED)
    images = []
    for name in TRUE_LABELS:
        with Image.open(samples / name) as image:
            images.append(views(rgb(image), choice))
    model = fresh()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0)
    for step in range(steps):
        for group in optimizer.param_groups:  # a short warm-up, then half a cosine
            group["lr"] = LEARNING_RATE * min(1, step / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
        batch = [
            image[choice.choice((0, choice.randint(1, VIEWS)))] for _ in range(BATCH // len(images)) for image in images
        ]
        loss = model(torch.from_numpy(np.stack(batch)), torch.rand(BATCH, MASK_UNITS))[2].mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.3f}", file=sys.stderr)
    return model.requires_grad_(False).eval()


def save(model: MaskedAutoencoder, folder: Path) -> None:
    """Write config.json and model.safetensors, as transformers would."""
    tensors = {
        TRANSFORMERS.name(name, ARCHITECTURE): tensor.half().contiguous() for name, tensor in model.state_dict().items()
    }
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    config = {
        "architectures": ["HieraForPreTraining"],
        "model_type": "hiera",
        "embed_dim": ARCHITECTURE.embed_dim,
        "num_heads": list(ARCHITECTURE.num_heads),
        "depths": list(ARCHITECTURE.depths),
        "num_query_pool": ARCHITECTURE.query_pools,
        "decoder_hidden_size": DECODER.dim,
        "decoder_depth": DECODER.depth,
        "decoder_num_heads": DECODER.num_heads,
        "mask_ratio": DECODER.mask_ratio,
        "normalize_pixel_loss": True,
        "torch_dtype": "float16",
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    save(make(Path(sys.argv[1])), DEMO_AUTOENCODER_FOLDER)
