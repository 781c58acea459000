"""What the command line asks for, as records, and what of it can be refused at once.

Free of what reads images and runs models: the checks come before those are imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from hiera_cli.errors import UsageError
from hiera_cli.limits import MAX_PIXELS, Limits

if TYPE_CHECKING:
    from hiera_cli.inputs.walk import Walk

T = TypeVar("T")

STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")  # as an --output


@dataclass(frozen=True)
class InputRequest:
    """The inputs, what a folder walk takes, and how they are read. Every field is an option, under its name."""

    inputs: tuple[str, ...] = ()
    files_from: tuple[str, ...] = ()
    files0_from: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow: bool = False
    archives: bool = False
    column: str = ""
    max_pixels: int = MAX_PIXELS
    full_decode: bool = False
    url_timeout: float = Limits.total
    max_mib: int = Limits.bytes >> 20
    workers: int | None = None

    @property
    def lists(self) -> tuple[str, ...]:
        """The lists of paths, of either kind."""
        return (*self.files_from, *self.files0_from)

    @property
    def limits(self) -> Limits:
        """Of a URL, of stdin and of what is in an archive."""
        return Limits(min(Limits.connect, self.url_timeout), self.url_timeout, self.max_mib << 20)

    def walk(self, *, offline: bool = False) -> Walk:
        """What is taken of folders, archives and prefixes."""
        from hiera_cli.images import decode
        from hiera_cli.inputs.walk import Walk

        return Walk(
            decode.suffixes,
            self.exclude,
            self.hidden,
            self.follow,
            self.archives,
            self.column,
            self.limits.bytes,
            offline,
        )

    def check(self, command: str) -> None:
        """Raise UsageError if there is nothing to begin with. command: such as `classify`."""
        from hiera_cli.inputs import read, source

        if not (self.inputs or self.lists):
            hint = f"For example: hiera {command} cat.jpg photos/"
            if read.is_piped():
                hint = "Of what comes on stdin, `--files-from -` takes a list of paths, and `-` takes an image."
            raise UsageError(f"nothing to {command}: name files, folders or URLs", hint)
        if [*map(source.descriptor, (*self.inputs, *self.lists))].count(0) > 1:
            raise UsageError("stdin (-) can be read only once")
        check_current_folder()


@dataclass(frozen=True)
class ModelRequest:
    """The model, and what runs it. Every field is an option, under its name."""

    model: str = "tiny"
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None


@dataclass(frozen=True)
class OutputRequest:
    """Where the results go. format: its name. path: of a file, pipe or device; None for stdout.

    parts: it is a folder, or a prefix in a bucket, that the workers of a cluster write.
    """

    format: str
    path: str | None = None
    overwrite: bool = False
    resume: bool = False
    offline: bool = False
    parts: bool = False

    def check(self) -> None:
        """Raise UsageError if --overwrite and --resume ask for what this output can't do."""
        if self.format == "html" and self.path is None:
            raise UsageError("a page is a file, and this run writes to standard output", "Name it: -o page.html")
        for asked, option in ((self.resume, "--resume"), (self.overwrite, "--overwrite")):
            if asked and self.path is None:
                raise UsageError(f"{option} is about an --output, and there is none", "Name one: -o FILE.jsonl")
        if self.path is not None:
            from hiera_cli.inputs.source import is_cloud

            if self.offline and is_cloud(self.path):
                raise UsageError(f"--offline contradicts an --output on the network: {self.path}")
            if self.path.endswith("/") and not self.parts:
                raise UsageError(
                    f"{self.path} is the name of a folder, and results go into a file",
                    "Name one in it. The workers of a cluster write parts into a folder: --ray",
                )
            if self.resume and is_cloud(self.path) and not self.parts:
                raise UsageError(
                    "--resume goes on with a file on this machine",
                    "Write there, and copy it when complete. On a cluster -o PREFIX/ does it too.",
                )
        if not self.resume:
            return
        if self.format != "jsonl" and not self.parts:
            raise UsageError(
                "--resume goes on with a jsonl file only: the other formats can't be taken up in the middle",
                "Use -o FILE.jsonl; `jq` makes any other format of it. On a cluster -o FOLDER/ does it too.",
            )
        if self.overwrite:
            raise UsageError("--resume and --overwrite contradict each other")
        from hiera_cli.outputs.destination import is_stream

        if self.path is not None and is_stream(self.path):
            raise UsageError(f"cannot go on with {self.path}: it is not a file")


@dataclass(frozen=True)
class ReportRequest:
    """What is told on stderr. quiet: how often it is given. progress: None for what `quiet` leaves of it."""

    quiet: int = 0
    no_banner: bool = False
    progress: bool | None = None
    verbose: bool = False

    @property
    def shows_progress(self) -> bool:
        """Whether to show how far the run is."""
        return not self.quiet if self.progress is None else self.progress


@dataclass(frozen=True)
class Request:
    """All that a command over inputs is asked, but for what it does with them. offline: for weights and inputs."""

    inputs: InputRequest
    model: ModelRequest
    output: OutputRequest
    report: ReportRequest
    offline: bool = False


def check_current_folder() -> None:
    """Raise UsageError if it has been removed: PyTorch's libraries end the process in such a one."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("the current folder has been removed", "cd to another one, and try again.") from error


def index_path(index: str | None) -> str:
    """The path of an --index, or where it is by default. Raises UsageError for an empty one."""
    if index == "":
        raise UsageError("--index needs a name: it is empty", "Is a variable of the script not set?")
    from hiera_cli.index.store import default_path

    return index or default_path()


def request_of(options: Mapping[str, Any], format: str, path: str | None, **changes: Any) -> Request:
    """What a command is asked. options: its own, by name. format, path: of the output. changes: of the options."""
    lists = ("inputs", "files_from", "files0_from", "exclude")
    values = {
        **options,
        **{name: tuple(options[name] or ()) for name in lists},
        **changes,
        "format": format,
        "path": path,
    }

    def of(record: type[T]) -> T:
        known = {field.name for field in fields(record)}  # type: ignore[arg-type]
        return record(**{name: value for name, value in values.items() if name in known})

    request = Request(of(InputRequest), of(ModelRequest), of(OutputRequest), of(ReportRequest), values["offline"])
    check_apart(request.inputs, request.output.path)
    return request


def check_apart(inputs: InputRequest, output: str | None) -> None:
    """Raise UsageError for an output that is one of the inputs, or a list of them: it would be lost."""
    if output is None or not os.path.isfile(output):
        return
    from hiera_cli.inputs import source

    for name in (*inputs.inputs, *inputs.lists):
        if source.descriptor(name) is None and os.path.exists(name) and os.path.samefile(name, output):
            raise UsageError(f"--output and an input name one file: {output}", "Name another --output.")


def check_parquet(path: str | None) -> None:
    """Raise UsageError if Parquet can't be written: to a terminal, or without pyarrow. path: None for stdout."""
    if path is None and sys.stdout.isatty():
        raise UsageError("parquet is for files, and this run writes to a terminal", "Name one: -o FILE.parquet")
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow, which is not installed", "pip install 'hiera-cli[parquet]'")


def output_path(output: str | None) -> str | None:
    """The path of an --output; None for stdout, under any of its names. Raises UsageError for an empty one."""
    if output == "":
        raise UsageError("--output needs a name: it is empty", "Is a variable of the script not set?")
    return None if output in STDOUT else output


def asked_format(format: str | None, as_json: bool, output: str | None) -> str | None:
    """The format that --format or --json names; None if neither does. Raises UsageError if they contradict."""
    if not as_json:
        return format
    if format not in (None, "json"):
        raise UsageError(f"--json and --format {format} contradict each other")
    if _suffix(output) not in ("", ".json"):
        raise UsageError(
            f"--json and the suffix of {output} contradict each other",
            f"Leave --json out, or use --format json: then {output} holds JSON.",
        )
    return "json"


def format_of_suffix(path: str, suffixes: Mapping[str, str], formats: Sequence[str]) -> str | None:
    """The format of a file by its suffix; None without one. Raises UsageError for one that no format has."""
    suffix = _suffix(path)
    if suffix and suffix not in suffixes:
        raise UsageError(
            f"no format has the suffix {suffix!r} of {path}", f"Name the format: --format {'|'.join(formats)}"
        )
    return suffixes.get(suffix)


def _suffix(path: str | None) -> str:
    return os.path.splitext(path or "")[1].lower()
