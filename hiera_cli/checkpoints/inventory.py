"""What is known of models' weights: which were published, which are on this machine, and how more get there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from hiera_cli.checkpoints import autoencoder, hub, resolve
from hiera_cli.checkpoints.published import CONFIG, DEMO, DEMO_FOLDER, LICENCE, PUBLISHED, WEIGHTS, near_model
from hiera_cli.errors import CheckpointError, OutputError, UsageError
from hiera_cli.system import parts

Kind = Literal["classifier", "autoencoder"]


@dataclass(frozen=True)
class ModelEntry:
    """A model that has a name of its own.

    kind: what it gives, labels and features (classifier) or pictures of what it paints (autoencoder). repository: None
    for the demo, which is inside the package. bytes: of its weights. top1: its accuracy on ImageNet-1K in percent; None
    where there is none to state.
    """

    name: str
    repository: str | None
    parameters: int
    bytes: int
    top1: float | None
    licence: str
    on_this_machine: bool
    kind: Kind = "classifier"


@dataclass(frozen=True)
class Downloaded:
    """A model whose files are on this machine. folder: where they are. bytes: of its weights.

    downloaded: whether they were fetched now.
    """

    name: str
    repository: str
    folder: str
    bytes: int
    downloaded: bool


@dataclass(frozen=True)
class CachedModel:
    """A model with a name of its own that is in the Hub cache. bytes: of all its files."""

    name: str
    repository: str
    bytes: int


def models(kind: Kind = "classifier") -> list[ModelEntry]:
    """The models that have a name of their own, by size; the demo is the last of the classifiers. Makes no request."""
    if kind == "autoencoder":
        return [
            replace(
                _entry(model.name, model.mae_repository, model.mae_parameters, model.mae_weight_bytes, None), kind=kind
            )
            for model in PUBLISHED.values()
        ]
    size = (DEMO_FOLDER / WEIGHTS).stat().st_size  # in half precision, with a header of next to nothing
    return [
        *(
            _entry(model.name, model.repository, model.parameters, model.weight_bytes, model.accuracy)
            for model in PUBLISHED.values()
        ),
        ModelEntry(DEMO, None, size // 2, size, None, "Apache-2.0", True),
    ]


def _entry(name: str, repository: str, parameters: int, size: int, top1: float | None) -> ModelEntry:
    here = hub.cached(repository, (CONFIG, WEIGHTS)) is not None
    return ModelEntry(name, repository, parameters, size, top1, LICENCE, here)


def cached() -> tuple[CachedModel, ...]:
    """Those of the classifiers with a name of their own that are in the Hub cache. Makes no request."""
    here = ((model, hub.cached(model.repository, (CONFIG, WEIGHTS))) for model in PUBLISHED.values())
    return tuple(
        CachedModel(model.name, model.repository, sum(file.stat().st_size for file in files))
        for model, files in here
        if files
    )


def download(
    name: str, folder: str | None, *, kind: Kind = "classifier", force: bool, progress: hub.Progress
) -> Downloaded:
    """Fetch one model's files into the Hub cache, verified, and copy them into a folder if one is named.

    kind: which of those that are published under the name of a size; of any other repository its tensors tell. force:
    fetch them again although they are there. Raises UsageError for what is not the name of a model to download,
    CheckpointError if the files can't be fetched or are not a Hiera, OutputError for the folder.
    """
    if name == DEMO:
        raise UsageError("the demo model is inside the program: there is nothing to download")
    repository = name
    if published := PUBLISHED.get(name):
        repository = published.repository if kind == "classifier" else published.mae_repository
    if not hub.is_repository_name(repository):
        close = near_model(name)
        raise UsageError(
            f"{name!r} is not a model to download",
            (f"Did you mean {close}?\n" if close in PUBLISHED else "")
            + f"Name one of {', '.join(PUBLISHED)}, or a Hub repository (ORG/NAME).",
        )
    was_here = hub.cached(repository, (CONFIG, WEIGHTS)) is not None and not force
    files = hub.fetch(repository, (CONFIG, WEIGHTS), force=force, progress=progress)
    try:
        resolve.resolve(repository, offline=True)
    except CheckpointError as error:
        if error.remedy != "reconstruct":  # it is none of labels or features, but may be a masked autoencoder
            raise
        autoencoder.resolve_autoencoder(repository, offline=True)
    if was_here:
        progress.say(f"{name} is on this machine already")
    if folder is not None:
        _copy(files, Path(folder))
    return Downloaded(name, repository, folder or str(files[1].parent), files[1].stat().st_size, not was_here)


def _copy(files: list[Path], folder: Path) -> None:
    """Each file whole or not at all, also while others do the same."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            parts.left_over(folder, f"{file.name}.*", discard=True)
            with file.open("rb") as stream:
                parts.write(folder / file.name, iter(partial(stream.read, 1 << 20), b""))
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error
