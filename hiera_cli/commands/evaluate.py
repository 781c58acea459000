"""`hiera evaluate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiera_cli.checkpoints.published import MODELS, model_name
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
    MaxMib,
    MaxPixels,
    Model,
    NoBanner,
    Offline,
    Overwrite,
    Precision,
    Progress,
    Quiet,
    Resume,
    UrlTimeout,
    Verbose,
    Workers,
)
from hiera_cli.errors import HieraError, InputError, UsageError
from hiera_cli.limits import MAX_PIXELS, Limits

if TYPE_CHECKING:
    from hiera_cli.commands.figures_table import Look
    from hiera_cli.commands.output import Output as Opened
    from hiera_cli.commands.output import Sink
    from hiera_cli.commands.report import ExitStatus
    from hiera_cli.commands.request import Request
    from hiera_cli.evaluation.compare import Comparison
    from hiera_cli.evaluation.pairing import Pairing
    from hiera_cli.evaluation.tally import Figures
    from hiera_cli.evaluation.truth import Truths
    from hiera_cli.inputs.labelled import ClassFolders, Labelled
    from hiera_cli.inputs.labelled_list import LabelledList
    from hiera_cli.result import Records

Tell = Callable[[str], None]

MOST_NAMES = 5  # that a remark gives


def evaluate(
    context: typer.Context,
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="FOLDER",
            help="A folder with one folder per class, named by label, WordNet id, index or concept (dog). "
            "With --truth: what its relative paths are in.",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Paths and labels, as csv or tsv, in place of folders (- for stdin)."),
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Leave out images whose class the model does not have.")
    ] = False,
    models: Annotated[
        str | None,
        typer.Option(metavar="MODEL,...", help="Compare several models, each against the first, in place of --model."),
    ] = None,
    confusion: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the confusion matrix here, as csv: truths down, answers across."),
    ] = None,
    as_json: Json = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write each image's record here: .jsonl, .json, .csv, .tsv, .parquet or .html.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
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
    url_timeout: UrlTimeout = Limits.total,
    max_mib: MaxMib = Limits.bytes >> 20,
    offline: Offline = False,
    quiet: Quiet = 0,
    no_banner: NoBanner = False,
    progress: Progress = None,
    verbose: Verbose = False,
) -> None:
    """Tell how right a model is, on photos whose classes are known: top-1, top-5, what it confuses."""
    from hiera_cli.commands.request import STDOUT, check_current_folder, output_path, request_of
    from hiera_cli.inputs.source import is_cloud

    options = locals()
    path = output_path(output)
    if output is not None and path is None:
        raise UsageError("standard output has the figures: the records need a file", "Name one: -o FILE.jsonl")
    if confusion and offline and is_cloud(confusion):
        raise UsageError(f"--offline contradicts a --confusion on the network: {confusion}")
    if confusion in STDOUT:
        raise UsageError("standard output has the figures: the matrix needs a file", "Name one: --confusion FILE.csv")
    named = {"--output": path, "--confusion": confusion, "--truth": truth if truth != "-" else None}
    _check_apart({option: each for option, each in named.items() if each})
    if truth is not None and exclude:
        raise UsageError("--exclude is about folders, and --truth names images", "Leave one of them out.")
    several = _several(models, context)
    if several and (path or confusion):
        raise UsageError(f"{'--output' if path else '--confusion'} is of one model, and --models names several")
    lists = {"inputs": None, "files_from": None, "files0_from": None}
    request = request_of({**options, **lists}, _record_format(path), path)
    replace(request.output, overwrite=overwrite and not (confusion and not path)).check()
    for name, value in (("FOLDER", folder), ("--truth", truth), ("--confusion", confusion)):
        if value == "":
            raise UsageError(f"{name} is empty", "Is a variable of the script not set?")
    if folder is None and truth is None:
        raise UsageError("nothing to evaluate on: name a folder with one folder per class in it", remedy="truth file")
    check_current_folder()

    from hiera_cli.checkpoints import resolve

    for each in several or (model,):
        resolve.check_name(each)
    images = _labelled_list(truth, folder) if truth is not None else class_folders(folder or "", request)

    evaluation = _Evaluation(request, images, allow_unknown, as_json)
    raise typer.Exit(evaluation.of_several(several) if several else evaluation.of_one(confusion))


def _check_apart(files: Mapping[str, str]) -> None:
    """Raise UsageError for a file that two options name, or a matrix that is called like anything but csv."""
    from hiera_cli.outputs.destination import is_stream

    real = {option: os.path.realpath(path) for option, path in files.items()}
    for (one, path), (other, same) in combinations(real.items(), 2):
        if path == same:
            raise UsageError(f"{one} and {other} name one file: {files[one]}")
    confusion = files.get("--confusion", "")
    if confusion and not confusion.lower().endswith(".csv") and not is_stream(confusion):
        raise UsageError(
            f"the matrix is csv, which {confusion} is not called", "Name another one: --confusion FILE.csv"
        )


def class_folders(folder: str, request: Request, alternative: str = "truth file") -> ClassFolders:
    """The folders of classes in a folder. Raises UsageError if there are none, with the remedy `alternative`."""
    if not os.path.lexists(folder):
        raise UsageError(f"there is no folder {folder}")
    if os.path.isfile(folder):
        raise UsageError(f"{folder} is a file, not a folder with one folder per class in it", remedy=alternative)
    from hiera_cli.inputs.labelled import ClassFolders
    from hiera_cli.inputs.skipped import Skipped

    walk = request.inputs.walk()
    try:
        found = ClassFolders(folder, walk, lambda warning: None, Skipped())
    except InputError as error:
        raise UsageError(f"{folder}: {error.message}") from error
    if not found.names:
        which = "that is not excluded or hidden " if walk.exclude else ""
        raise UsageError(f"there is no folder {which}in {folder}: one per class is needed", remedy=alternative)
    return found


def without_empty(images: ClassFolders | LabelledList, truths: Truths) -> list[str]:
    """The names of the classes but for those that mean nothing and have no image."""
    from hiera_cli.inputs.labelled import ClassFolders

    empty: set[str] = set()
    if truths.unknown and isinstance(images, ClassFolders):
        there = {image.label for image in images.images(frozenset(truths.known))}
        empty = {name for name in truths.unknown if name not in there}
    return [name for name in images.names if name not in empty]


def _labelled_list(truth: str, folder: str | None) -> LabelledList:
    from hiera_cli.inputs.labelled_list import LabelledList
    from hiera_cli.inputs.source import is_url

    if folder is not None and not os.path.isdir(folder):
        what = "is not a folder: with --truth" if os.path.lexists(folder) else "is not there:"
        raise UsageError(f"{folder} {what} it is what the paths of {truth} are in")
    from hiera_cli.commands.tables import counted

    found = LabelledList(truth, folder or "")
    if found.repeated:
        messages.remark(f"{counted(found.repeated, 'row')} of {truth} name images again, which count again")
    first = next(found.images()).source.path
    if folder is None and not is_url(first) and not os.path.isabs(first) and not os.path.lexists(first):
        messages.remark(f"{first} is not in the current folder: FOLDER names the one that paths of {truth} are in")
    return found


def _several(models: str | None, context: typer.Context) -> tuple[str, ...]:
    """The models to compare; none for the one of --model."""
    if models is None:
        return ()
    source = context.get_parameter_source("model")
    if source is not None and source.name == "COMMANDLINE":
        raise UsageError("--model and --models contradict each other", "Name all of them with --models.")
    named = tuple(model_name(each.strip()) for each in models.split(","))
    if not all(named) or len(named) < 2:
        raise UsageError(f"--models takes two models or more, with commas between, not {models!r}")
    if len({os.path.realpath(each) if os.path.exists(each) else each for each in named}) < len(named):
        raise UsageError(f"--models names a model twice: {models}")
    return named


def _record_format(path: str | None) -> str:
    """Of the records. Raises UsageError for a suffix that no format has."""
    if path is None:
        return ""
    from hiera_cli.commands.request import check_parquet
    from hiera_cli.outputs.destination import is_stream
    from hiera_cli.outputs.evaluated import SUFFIXES

    if is_stream(path):
        return "jsonl"
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        fault = f"no format of records has the suffix {suffix!r}" if suffix else "no suffix names a format"
        raise UsageError(f"{path}: {fault}", "Name one: .jsonl, .json, .csv, .tsv, .parquet or .html")
    if SUFFIXES[suffix] == "parquet":
        check_parquet(path)
    return SUFFIXES[suffix]


@dataclass(frozen=True)
class Done:
    """How a run over labelled images ended. outcomes: of each image, where they had been
    listed. about: what else JSON tells of the run.
    """

    status: ExitStatus
    figures: Figures
    outcomes: bytearray
    about: dict[str, Any]


@dataclass(frozen=True)
class _Evaluation:
    """What is asked, and the way to the answer on stdout. allow_unknown: labels that mean nothing are no error."""

    request: Request
    images: ClassFolders | LabelledList
    allow_unknown: bool
    as_json: bool

    def of_one(self, confusion: str | None) -> ExitStatus:
        """The request's model. confusion: the file for the matrix, if one is asked for. Returns the exit status."""
        from hiera_cli.outputs.evaluated import confusion_matrix

        tell = messages.remarks_unless(self.request.report.quiet)
        truths = known_truths(self.request, self.images, tell, allow_unknown=self.allow_unknown)
        matrix = _opened_matrix(confusion, self.request.output.overwrite)

        has_matrix = False

        def show(done: Done) -> None:
            nonlocal has_matrix
            try:
                if matrix is not None and done.figures.complete:
                    for line in confusion_matrix(done.figures):
                        matrix.write(line)
                    has_matrix = True
            finally:  # where the one can't be written, the other is not lost
                _show_figures(done, self.as_json)

        try:
            return evaluated(self.request, self.images, truths, tell, show=show).status
        finally:  # of an interrupted run there is none: the file is left as it was
            if matrix is not None:
                matrix.close(complete=has_matrix)

    def of_several(self, models: Sequence[str]) -> ExitStatus:
        """Several models, on the same images. Returns the exit status."""
        from hiera_cli.commands.report import ExitStatus
        from hiera_cli.evaluation.compare import compared

        remark = messages.remarks_unless(self.request.report.quiet)
        told: set[str] = set()  # what one model's run says of the images, the next one's need not say again

        def tell(message: str) -> None:
            if message not in told:
                told.add(message)
                remark(message)

        requests = [replace(self.request, model=replace(self.request.model, model=each)) for each in models]
        known = [known_truths(each, self.images, tell, allow_unknown=self.allow_unknown) for each in requests]
        common = frozenset.intersection(*(frozenset(each.known) for each in known))
        if not common:
            raise UsageError(
                f"there is no class that all of {', '.join(models)} have", "Models compare where their classes do."
            )
        truths = [each.restricted(common) for each in known]
        found = list(self.images.images())  # once: all models are to have the same ones
        done: list[Done] = []
        try:
            for request, each_truths in zip(requests, truths, strict=True):
                done.append(evaluated(request, self.images, each_truths, tell, found=found))
                if not done[-1].figures.complete:
                    break
        finally:
            if done:
                first = done[0]
                comparisons = [
                    compared(each.figures.model, each.outcomes, first.figures.model, first.outcomes)
                    for each in done[1:]
                ]
                _show_comparison(done, comparisons, self.as_json)
        return ExitStatus(max(each.status for each in done))


def known_truths(
    request: Request, images: ClassFolders | LabelledList, tell: Tell, *, allow_unknown: bool = False
) -> Truths:
    """What the names of the classes mean for the request's model. tell: told where one may mean something else.

    Raises UsageError for names that mean nothing, if those are not allowed, and if none means anything.
    """
    from hiera_cli.checkpoints import hub, resolve
    from hiera_cli.checkpoints.labels import imagenet_labels
    from hiera_cli.evaluation.truth import truths

    model = request.model.model
    if model in MODELS:  # all of them have ImageNet's classes: a name that is wrong is told before anything is fetched
        labels = imagenet_labels()
    else:
        progress = hub.Progress(tell, bar=False)
        labels = resolve.resolve(model, labels=True, offline=request.offline, progress=progress).labels
    found = truths(images.names, labels)
    if found.unknown:
        found = truths(without_empty(images, found), labels)
    if not allow_unknown or not found.known:
        found.check(resolve.record_name(model))
    for remark in found.remarks:
        tell(remark)
    return found


def evaluated(
    request: Request,
    images: ClassFolders | LabelledList,
    truths: Truths,
    tell: Tell,
    *,
    found: Sequence[Labelled] | None = None,
    show: Callable[[Done], None] = lambda done: None,
) -> Done:
    """A run over labelled images. The model, and where records go, are the request's; failures are told as anywhere.

    truths: of the model, by `known_truths`. tell: told which images are left out. found: the images, where they have
    been listed. show: gets the figures, also those of a run that fails on the way. Raises as a run does.
    """
    from hiera_cli.checkpoints import resolve
    from hiera_cli.classifier import load_classifier
    from hiera_cli.commands import run
    from hiera_cli.commands.report import ExitStatus
    from hiera_cli.evaluation.pairing import Pairing
    from hiera_cli.evaluation.tally import Tally
    from hiera_cli.inputs.labelled import ClassFolders
    from hiera_cli.tasks.evaluate import Evaluate

    name = resolve.record_name(request.model.model)
    task = Evaluate()
    read = run.reading(request, name)
    records = read.records(task)
    tally = Tally(name, len(found or ()))
    pairing = Pairing(images.images() if found is None else found, truths, tally)
    opened = _opened(request, records)
    if opened.journal is not None:
        opened.journal.met = pairing.add_done

    def load(**options: Any) -> Any:
        classifier = load_classifier(labels=True, **options)
        tally.start(len(classifier.labels))
        return classifier

    total = skipped = None
    if found is not None:
        total = sum(image.label in truths.known for image in found)
    elif not isinstance(images, ClassFolders):
        total = sum(images.counts[each] for each in truths.known)
    else:  # counted on the side
        folders = tuple(os.path.join(images.folder, each) for each in truths.known)
        request = replace(request, inputs=replace(request.inputs, inputs=folders))
    if isinstance(images, ClassFolders):
        skipped = images.skipped
    one = run.Run(
        request,
        replace(opened, writer=lambda results: opened.writer(pairing.evaluated(results))),
        task,
        read,
        load,
        sources=pairing.sources(),
        total=total,
        skipped=skipped,
        note=tally.running,
    )
    if isinstance(images, ClassFolders):
        images.warn = one.warn

    def done(status: ExitStatus) -> Done:
        about = {
            "unknown": pairing.unknown,
            "unknown_names": sorted(truths.unknown),
            "loose": getattr(images, "loose", 0),
            "settings": dict(records.settings),
        }
        complete = status in (ExitStatus.OK, ExitStatus.SOME_FAILED)
        return Done(status, tally.figures(complete=complete), tally.outcomes, about)

    try:
        status = one.run()
    except HieraError:
        if tally.images:  # what was computed is not lost
            show(done(ExitStatus.COULD_NOT_START))
        raise
    ended = done(status)
    if ended.figures.complete:
        _tell_left_out(images, truths, pairing, tell)
    show(ended)
    return ended


def evaluated_on(folder: str, model: str, request: Request, tell: Tell) -> Done:
    """A model on a folder with one folder per class, without records. request: how all else is done.

    tell: told what is left out. Raises UsageError for folders that are no classes of the model, and as a run does.
    """
    from hiera_cli.commands.request import OutputRequest

    request = replace(request, model=replace(request.model, model=model), output=OutputRequest(""))
    images = class_folders(folder, request)
    return evaluated(request, images, known_truths(request, images, tell), tell)


def _opened(request: Request, records: Records) -> Opened:
    """Where the records go."""
    from hiera_cli.commands import output as outputs
    from hiera_cli.outputs.evaluated import RECORDS

    if request.output.path is None:
        return outputs.Output(_nothing, _Nowhere())
    if request.output.format == "html":
        return outputs.opened_page(request.output)
    return outputs.opened(request.output, RECORDS.get(request.output.format), records)


def _nothing(results: Iterable[Any]) -> Iterator[str]:
    """No text of Results that have been counted on their way."""
    for _ in results:
        yield ""


class _Nowhere:
    """A sink for no records."""

    def write(self, data: str | bytes) -> None:
        """Nothing."""

    def close(self, *, complete: bool) -> None:
        """Nothing."""


def _opened_matrix(path: str | None, overwrite: bool) -> Sink | None:
    """The file of the confusion matrix, before anything is computed. Raises OutputError if it can't be written."""
    if path is None:
        return None
    from hiera_cli.commands.output import opened_file

    return opened_file(path, overwrite=overwrite)


def _tell_left_out(images: ClassFolders | LabelledList, truths: Truths, pairing: Pairing, tell: Tell) -> None:
    """Say which images the figures leave out."""
    from hiera_cli.commands.tables import counted

    if truths.unknown:
        tell(f"left out {counted(pairing.unknown, 'image')} of unknown classes: {_some(sorted(truths.unknown))}")
    if loose := getattr(images, "loose", 0):
        tell(f"left out {counted(loose, 'image')} beside the folders of classes")
    empty = [name for name in images.names if name in truths.known and not pairing.found[name]]
    if empty and len(empty) < len(images.names):
        tell(f"no images in {counted(len(empty), 'class folder')}: {_some(empty)}")


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _show_figures(done: Done, as_json: bool) -> None:
    if as_json:
        messages.write_json(done.figures.to_dict(done.about))
    elif done.figures.images:
        messages.write("\n".join(figures_text(done)))


def figures_text(done: Done) -> list[str]:
    """The lines that show the figures of a run on stdout."""
    from hiera_cli.commands.figures_table import figures_lines

    return figures_lines(done.figures, _look(), done.about["unknown"])


def _show_comparison(done: Sequence[Done], comparisons: Sequence[Comparison], as_json: bool) -> None:
    if as_json:
        models = [each.figures.to_dict(each.about) for each in done]
        messages.write_json({"models": models, "comparisons": [asdict(each) for each in comparisons]})
    elif any(each.figures.images for each in done):
        from hiera_cli.commands.figures_table import comparison_lines

        messages.write("\n".join(comparison_lines([each.figures for each in done], comparisons, _look())))


def _look() -> Look:
    """What stdout can show."""
    from hiera_cli.commands.figures_table import Look
    from hiera_cli.system import terminal

    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return Look(terminal.columns(sys.stdout.fileno()), terminal.is_utf8(sys.stdout.encoding), color)
