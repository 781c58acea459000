"""`hiera teach`."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiera_cli.checkpoints.published import MODELS
from hiera_cli.commands import messages
from hiera_cli.commands.options import (
    BatchSize,
    Device,
    Engine,
    Exclude,
    Follow,
    FullDecode,
    Hidden,
    Json,
    MaxPixels,
    Model,
    NoBanner,
    Offline,
    Overwrite,
    Precision,
    Progress,
    Quiet,
    Verbose,
    Workers,
)
from hiera_cli.errors import HieraError, InputError, OutputError, UsageError
from hiera_cli.limits import MAX_PIXELS

if TYPE_CHECKING:
    from hiera_cli.checkpoints.save import ModelFolder
    from hiera_cli.classifier import Classifier
    from hiera_cli.commands.request import Request
    from hiera_cli.commands.teach_facts import TeachFacts
    from hiera_cli.inputs.labelled import Labelled
    from hiera_cli.teaching.fit import Fitted
    from hiera_cli.teaching.photos import Photos
    from hiera_cli.teaching.report import Taught

LEAST = 2  # photos of a class: one to learn from, and one to ask
FILES = (".safetensors", ".pth", ".pt", ".bin", ".onnx", ".ckpt")  # what models in files are called
MANY = 1000  # photos: of so many, learning takes seconds or minutes


def teach(
    folder: Annotated[
        str | None,
        typer.Argument(metavar="FOLDER", help="A folder with a folder of photos for each class.", show_default=False),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="MODEL", help="The folder to write, for -m; complete or not at all."),
    ] = None,
    overwrite: Overwrite = False,
    test: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Evaluate the model on other photos, in folders of the same names."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="What cross-validation shuffles by.")] = 0,
    as_json: Json = False,
    model: Model = "tiny",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    exclude: Exclude = None,
    hidden: Hidden = False,
    follow: Follow = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    full_decode: FullDecode = False,
    offline: Offline = False,
    quiet: Quiet = 0,
    no_banner: NoBanner = False,
    progress: Progress = None,
    verbose: Verbose = False,
) -> None:
    """Teach a model classes of your own, from a folder of photos for each."""
    from hiera_cli.commands.request import STDOUT, check_current_folder, request_of

    check_current_folder()
    options = {**locals(), "inputs": None, "files_from": None, "files0_from": None}
    if not folder:
        raise UsageError(
            "nothing to teach: name a folder that has a folder of photos for each class",
            "For example: hiera teach birds -o my-birds",
        )
    if not output or output in STDOUT:
        raise UsageError("the model needs a folder", "Name one: -o MODEL")
    if output.lower().endswith(FILES):
        raise UsageError(f"{output} is called like a file, and a model is a folder", "Name another one: -o MODEL")
    if test == "":
        raise UsageError("--test needs a folder: it is empty", "Is a variable of the script not set?")
    request = request_of(options, "json" if as_json else "", output)

    from importlib.util import find_spec

    from hiera_cli.checkpoints import resolve

    resolve.check_name(model)
    if find_spec("sklearn") is None:
        raise UsageError("teaching needs scikit-learn, which is not installed", "pip install 'hiera-cli[teach]'")

    from hiera_cli.checkpoints.save import ModelFolder

    _check_apart(output, folder)
    to = ModelFolder(output, overwrite=overwrite)
    raise typer.Exit(_taught(folder, to, request, seed, test))


def _check_apart(output: str, folder: str) -> None:
    """Raise UsageError for a model among the photos: the next run would take it for a class."""
    inside = os.path.realpath(folder)
    if os.path.realpath(output).startswith(os.path.join(inside, "")):
        raise UsageError(f"{output} lies in {folder}, where folders are classes", "Name another one: -o MODEL")


def _taught(folder: str, to: ModelFolder, request: Request, seed: int, test: str | None) -> int:
    """Teach, and evaluate on other photos if there are any; returns the exit status."""
    from dataclasses import replace

    from hiera_cli.checkpoints import resolve
    from hiera_cli.classifier import load_classifier
    from hiera_cli.commands import run
    from hiera_cli.commands.interrupts import interruptible
    from hiera_cli.commands.output import Output
    from hiera_cli.commands.tables import counted
    from hiera_cli.commands.teach_facts import TeachFacts, card
    from hiera_cli.inputs.skipped import Skipped
    from hiera_cli.system.threads import apart
    from hiera_cli.tasks.teach import Teach
    from hiera_cli.teaching.photos import Photos

    skipped = Skipped()
    with interruptible("no model was made"):
        names, images = _listed(folder, request, skipped)
        if test is not None:
            _check_test(test, folder, names, images, request)
    photos = Photos(images, names)
    loaded: list[Classifier] = []

    def load(model: str, **options: Any) -> Classifier:
        classifier = load_classifier(model, **options)
        to.check_room(replace(classifier.checkpoint.architecture, num_classes=len(names)))
        loaded.append(classifier)
        return classifier

    output = Output(lambda results: results, photos)  # type: ignore[arg-type, return-value]
    read = run.reading(request, resolve.record_name(request.model.model))
    sources = (image.source for image in images)
    ended = run.Run(request, output, Teach(), read, load, sources=sources, total=len(images), skipped=skipped).run()
    tell = messages.remarks_unless(request.report.quiet)
    if ended > 2:  # it was interrupted
        tell("no model was made")
        return ended
    _check_readable(photos, len(images))
    with interruptible("no model was made"):
        tell_steps = tell if len(photos.paths) >= MANY else _silent
        fitted, taught = apart(lambda: _learnt(photos, seed, tell_steps))
        (classifier,) = loaded
        precision, failed = classifier.engine.precision, tuple(photos.failed)
        facts = TeachFacts(to.path, classifier.name, precision, seed, taught, failed)
        # On this thread, so that an interrupt removes what is not complete.
        to.save(classifier.checkpoint, fitted.weight, fitted.bias, photos.names, card(facts))
    if test is None or request.output.format != "json":  # whose one object has the test, too
        try:
            _show(facts, request)
        except OutputError as error:
            raise OutputError(error.message, f"The model is complete: {to.path}") from error
    if photos.failed:
        tell(f"{to.path} was made without the {counted(len(photos.failed), 'photo')} that failed")
    name = os.path.join(".", to.path) if to.path in MODELS else to.path  # which would mean that one
    tell(f"{to.path} is made; to use it: hiera classify -m {shlex.quote(name)} INPUT...")
    if test is None:
        return ended
    return max(ended, _tested(facts, name, test, request, tell))


def _silent(message: str) -> None:
    """Of what takes no time, nothing is told."""


def _listed(folder: str, request: Request, skipped: Any) -> tuple[list[str], list[Labelled]]:
    """The names of the classes, and their photos in order. Raises UsageError for what no classifier comes of."""
    from hiera_cli.inputs.labelled import ClassFolders

    if request.report.verbose:
        skipped.tell = lambda path, why: messages.remark(f"{path}: skipped, {why}")
    tell = messages.remarks_unless(request.report.quiet)
    try:
        found = ClassFolders(folder, request.inputs.walk(), messages.remark, skipped)
    except InputError as error:
        raise UsageError(
            f"{folder}: {error.message}", "Name a folder that has a folder of photos for each class."
        ) from error
    _check_names(folder, found.names)
    images = list(found.images())
    skipped.tell = None
    if found.loose:
        are = "photo lies" if found.loose == 1 else "photos lie"
        tell(f"{found.loose:,} {are} in {folder} itself, in the folder of no class: left out")
    counts = Counter(image.label for image in images if image.source.error is None)
    unreadable = {image.label for image in images if image.source.error is not None}
    for name in found.names:
        if not counts[name] and name not in unreadable:
            tell(f"{os.path.join(folder, name)}: no photo is in it, so it is no class")
    names = [name for name in found.names if counts[name]]
    _check_names(folder, names)
    _check_counts(counts, names)
    return names, images


def _check_names(folder: str, names: list[str]) -> None:
    """Raise UsageError if they are not those of two classes or more."""
    if not names:
        raise UsageError(f"{folder} has no folders with photos", "A folder for each class is needed, of its photos.")
    if len(names) == 1:
        raise UsageError(
            f"{folder} has photos of one class alone, {names[0]}", "Two or more are needed: a folder for each."
        )
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{os.path.join(folder, name)}: a class can't have this name, which is not UTF-8", "Rename the folder."
            ) from None


def _check_counts(counts: Counter[str], names: list[str] | tuple[str, ...], read: str = "") -> None:
    """Raise UsageError if a class has not enough photos. read: what is said of those that count."""
    lacking = [name for name in names if counts[name] < LEAST]
    if lacking:
        first = f"{lacking[0]} has {'one photo' if counts[lacking[0]] else 'no photo'}{read}"
        others = len(lacking) - 1
        more = f", and {others:,} more {'class has' if others == 1 else 'classes have'} as few" if others else ""
        raise UsageError(
            f"{first}{more}: a class needs {LEAST} or more, better some dozens",
            "Add some, or leave it out: --exclude NAME",
        )


def _check_readable(photos: Photos, listed: int) -> None:
    if not photos.paths:
        raise HieraError(f"none of the {listed:,} photos could be read: no model was made")
    counts = Counter(photos.names[target] for target in photos.targets.tolist())
    _check_counts(counts, photos.names, " that can be read")


def _check_test(test: str, folder: str, names: list[str], images: list[Labelled], request: Request) -> None:
    """Raise UsageError if its folders are not of the classes. Says so if its photos are those that are learnt from."""
    from hiera_cli.checkpoints.labels import Label
    from hiera_cli.commands.evaluate import class_folders, without_empty
    from hiera_cli.commands.tables import counted
    from hiera_cli.evaluation.truth import truths

    labels = [Label(index, None, name) for index, name in enumerate(names)]
    others = class_folders(test, request, alternative="")
    truths(without_empty(others, truths(others.names, labels)), labels).check(
        "the model", f"The classes are {folder}'s folders."
    )
    learnt = {os.path.realpath(image.source.path) for image in images}
    same = sum(os.path.realpath(image.source.path) in learnt for image in others.images())
    if same:
        messages.remark(
            f"{counted(same, 'photo')} of {test} are learnt from as well: what the model says of such shows nothing"
        )


def _tested(facts: TeachFacts, name: str, test: str, request: Request, tell: Callable[[str], None]) -> int:
    """Evaluate the model, which stays as it is whatever comes of that; returns the exit status. name: for -m."""
    from hiera_cli.commands.evaluate import evaluated_on, figures_text

    as_json = request.output.format == "json"
    done = None
    try:
        done = evaluated_on(test, name, request, tell)
    finally:
        if as_json:
            _show(facts, request, None if done is None else done.figures.to_dict(done.about))
    if not as_json and done.figures.images:
        messages.write("\n".join(["", f"{test}:", *figures_text(done)]))
    return done.status


def _learnt(photos: Photos, seed: int, tell: Callable[[str], None]) -> tuple[Fitted, Taught]:
    """A classifier of the photos, and what is to be told of it."""
    from hiera_cli.commands.tables import counted
    from hiera_cli.teaching.copies import copies
    from hiera_cli.teaching.fit import fit
    from hiera_cli.teaching.report import report

    features, targets = photos.features, photos.targets
    tell(f"comparing {counted(len(targets), 'photo')} with each other")
    found = copies(features)
    fitted = fit(features, targets, found.originals, seed, tell)
    return fitted, report(photos.names, photos.paths, targets, fitted, found, len(photos.failed))


def _show(facts: TeachFacts, request: Request, test: dict[str, Any] | None = None) -> None:
    from hiera_cli.commands import tables
    from hiera_cli.commands.teach_facts import as_record
    from hiera_cli.system import terminal

    if request.output.format == "json":
        messages.write_json({**as_record(facts), "test": test})
    else:
        unicode = terminal.is_utf8(sys.stdout.encoding)
        messages.write("\n".join(tables.taught_lines(facts, terminal.columns(1), unicode=unicode)))
