"""A model's name, Hub repository, folder or file → verified weights, architecture and labels.

Three layouts of the same network are published, and each loads: transformers, the original release, timm. The model's
own attribute names are timm's; the others are a table of names. Nothing is guessed: a tensor that is missing, left over
or of the wrong shape refuses the checkpoint, by name.
"""

from __future__ import annotations

import os
import reprlib
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from hiera_cli.checkpoints import hub
from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.checkpoints.config import architecture_from_config, default_labels, labels_from_config, read_config
from hiera_cli.checkpoints.layouts import Layout, Shape, check_shapes, find_layout, is_autoencoder, translated
from hiera_cli.checkpoints.published import (
    CONFIG,
    DEMO,
    DEMO_FOLDER,
    MODELS,
    PUBLISHED,
    WEIGHTS,
    model_name,
    near_model,
)
from hiera_cli.checkpoints.tensors import read_shapes, unreadable
from hiera_cli.errors import CheckpointError
from hiera_cli.model.architecture import Architecture

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What is loaded of a model: a classifier, or something else that is published under the same names.

    repositories: by published name. demo: the folder inside the package. describe: from the name of its records, its
    weights and their configuration, if there is one, to what `resolve` returns.
    """

    repositories: Mapping[str, str]
    demo: Path
    describe: Callable[[str, Path, Path | None], T]


def resolve(
    model: str, *, labels: bool = False, offline: bool = False, progress: hub.Progress | None = None
) -> Checkpoint:
    """Find a model and read everything about it but the weights themselves.

    model: a published name (`tiny` … `huge`, and what `model_name` takes for one), `demo`, a Hub repository
    (`ORG/NAME`), a folder or a file. It is a classifier or a backbone.
    labels: refuse a backbone, which gives features alone.
    offline: only what is on this machine already. progress: told about a download, should there be one.
    Raises CheckpointError (its message says what was tried).
    """
    checkpoint = resolve_kind(_CLASSIFIERS, model, offline, progress)
    if labels:
        check_labels(checkpoint)
    return checkpoint


def check_labels(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError for a backbone, which gives features alone."""
    if not checkpoint.labels:
        raise CheckpointError(
            f"{checkpoint.name} is a Hiera backbone without a classifier: it gives no labels",
            remedy="features",
            model=checkpoint.name,
        )


def resolve_kind(kind: Kind[T], model: str, offline: bool, progress: hub.Progress | None) -> T:
    """The same for any kind of model."""
    model = model_name(model)
    if model == DEMO:
        return kind.describe(DEMO, *in_folder(kind.demo))
    if model in PUBLISHED:
        return _from_hub(kind, kind.repositories[model], offline, progress)
    check_name(model)
    path = Path(os.path.expanduser(model))
    if _mode(path) is None:
        return _from_hub(kind, model, offline, progress)
    return kind.describe(model, *(in_folder(path) if path.is_dir() else with_config(path)))


def record_name(model: str) -> str:
    """What `resolve` calls a model in its records."""
    return PUBLISHED[model].repository if model in PUBLISHED else model


def check_name(model: str) -> None:
    """Raise CheckpointError if a model is called by no name that `resolve` knows, before anything is read."""
    known = model in MODELS or hub.is_repository_name(model)
    if not known and not (model and _mode(Path(os.path.expanduser(model)))):
        close = near_model(model)
        raise CheckpointError(
            f"no model, folder or file is called {model!r}",
            (f"Did you mean {close}?\n" if close else "")
            + f"Name one of {', '.join(MODELS)}, a Hub repository (ORG/NAME), a folder or a weights file.",
        )


def _from_hub(kind: Kind[T], repository: str, offline: bool, progress: hub.Progress | None) -> T:
    config, weights = hub.fetch(repository, (CONFIG, WEIGHTS), offline=offline, progress=progress)
    try:
        return kind.describe(repository, weights, config)
    except CheckpointError as error:
        if not (error.hint or error.remedy):  # a damaged file in the cache can be fetched again
            error.remedy, error.about = "damaged copy", {"repository": repository}
        raise


def in_folder(folder: Path) -> tuple[Path, Path | None]:
    """The weights and the configuration of a folder: transformers' layout, or timm's with the same two file names."""
    weights, config = folder / WEIGHTS, folder / CONFIG
    if not _is_file(weights):
        raise CheckpointError(f"{folder} has no {WEIGHTS}", remedy="model folder", config=CONFIG, weights=WEIGHTS)
    has_config = _is_file(config)
    for file in (config, weights):
        if file.is_symlink() and not _stays_near(file, folder):
            raise CheckpointError(
                f"{file} is a link to {os.path.realpath(file)}, out of its folder",
                remedy="linked weights",
                weights=WEIGHTS,
            )
    return weights, config if has_config else None


def _mode(path: Path) -> int | None:
    """Of what is there, None for nothing. Raises CheckpointError if that can't be told."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise CheckpointError(f"{path} is a link to {os.path.realpath(path)}, which does not exist") from None
        return None
    except OSError as error:  # permissions, a loop of links, a name too long
        raise unreadable(path, error) from error
    except ValueError as error:
        raise CheckpointError(f"no file can have the name {str(path)!r}: {error}") from error


def _is_file(path: Path) -> bool:
    """Whether a file is there. Raises CheckpointError for what can't be read as one: a pipe would never end."""
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is not a regular file: weights and their configuration are read only from those")
    return mode is not None


def _stays_near(link: Path, folder: Path) -> bool:
    """Whether a link ends inside its folder, or in the blobs of the Hub cache that the folder is a snapshot of."""
    target, home = Path(os.path.realpath(link)), Path(os.path.realpath(folder))
    return home in target.parents or (home.parent.name == "snapshots" and home.parent.parent in target.parents)


def with_config(file: Path) -> tuple[Path, Path | None]:
    """A weights file, safetensors or the original release's .pth, and its configuration.

    A Hiera config.json beside it is heeded.
    """
    _is_file(file)
    config = file.parent / CONFIG
    return file, config if _is_hiera_config(config) else None


def _is_hiera_config(config: Path) -> bool:
    try:
        return _is_file(config) and read_config(config).get("model_type") == "hiera"
    except CheckpointError:  # of something else
        return False


def _describe(name: str, weights: Path, config: Path | None) -> Checkpoint:
    """Architecture and labels, from the configuration where there is one, else from the tensors' shapes."""
    entries = read_config(config) if config is not None else {}
    shapes = read_shapes(weights)
    if is_autoencoder(shapes):
        raise CheckpointError(
            f"{weights} is a masked autoencoder: it gives neither labels nor features", remedy="reconstruct"
        )
    layout = find_layout(shapes, weights)
    num_classes = _num_classes(shapes, layout, weights)
    if config is not None and "model_type" in entries:
        architecture = architecture_from_config(entries, config, num_classes)
        labels = labels_from_config(entries, num_classes, config)
    else:
        if config is not None and not str(entries.get("architecture", "")).startswith("hiera"):
            raise CheckpointError(f"{config} is not the configuration of a Hiera")
        architecture = replace(
            published_size(shapes, translated("pos_embed", layout.names), weights), num_classes=num_classes
        )
        labels = default_labels(num_classes)
    check_shapes(shapes, layout, architecture, weights)
    return Checkpoint(name, weights, layout, architecture, labels)


_CLASSIFIERS = Kind({name: model.repository for name, model in PUBLISHED.items()}, DEMO_FOLDER, _describe)


def _num_classes(shapes: Mapping[str, Shape], layout: Layout, file: Path) -> int:
    """As the classifier's weight has rows; 0 without a classifier."""
    shape = shapes.get(translated("head.fc.weight", layout.names))
    if shape is None:
        return 0
    if len(shape) != 2 or shape[0] < 1:
        raise CheckpointError(f"{file}: the classifier's weight has the shape {reprlib.repr(list(shape))}")
    return shape[0]


def published_size(shapes: Mapping[str, Shape], pos_embed: str, file: Path) -> Architecture:
    """By the tensors alone. The number of heads shows in none of them, so only published sizes are known.

    shapes: of the encoder's tensors. pos_embed: what its position embedding is called.
    """
    embed_dim = (0, *shapes[pos_embed])[-1]
    blocks = sum(name.endswith(".attn.qkv.weight") for name in shapes)
    for model in PUBLISHED.values():
        if (embed_dim, blocks) == (model.architecture.embed_dim, sum(model.architecture.depths)):
            return model.architecture
    raise CheckpointError(
        f"{file}: {blocks} blocks with {embed_dim} channels is none of the published sizes",
        f"Put the {CONFIG} of the transformers layout beside it.",
    )
