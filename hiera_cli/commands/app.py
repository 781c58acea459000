"""The command line: options, and the one place where errors become messages and exit statuses.

What a command needs is imported when it runs: `--help`, completion, `labels` and usage errors import neither torch nor
numpy, Pillow or huggingface_hub.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiera_cli import __version__
from hiera_cli.checkpoints.published import LICENCE, MODELS, PUBLISHED, model_name
from hiera_cli.commands.help import HelpCommand, HelpGroup
from hiera_cli.engines.placement import ENGINES, PRECISIONS
from hiera_cli.errors import CheckpointError, DeviceError, HieraError, UsageError, is_out_of_memory
from hiera_cli.limits import MAX_PIXELS, Limits
from hiera_cli.outputs.names import FORMATS
from hiera_cli.system.near import near
from hiera_cli.system.printable import printable
from hiera_cli.system.signals import handled
from hiera_cli.system.streams import ReaderGone, interject

if TYPE_CHECKING:
    from hiera_cli.checkpoints.labels import Label


# Typer carries a Click of its own, or uses the package, from release to release.
ParseError: Any = typer.BadParameter.__mro__[2]  # click.ClickException


class Command(HelpCommand):
    """A command whose errors tell where what is wrong came from."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Click's, which leaves out of some errors to which command they belong."""
        try:
            return super().parse_args(ctx, args)
        except ParseError as error:
            error.ctx = getattr(error, "ctx", None) or ctx
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run it. An error about a value that the environment asked for says so."""
        try:
            return super().invoke(ctx)
        except (CheckpointError, DeviceError) as error:
            from hiera_cli.commands import usage

            usage.name_variables(error, ctx)
            raise


class Program(HelpGroup):
    """All commands."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run one, or answer a shell that asks how a line goes on."""
        if os.environ.get("_HIERA_COMPLETE"):
            from hiera_cli.commands import completion

            completion.register()
        return super().main(*args, **options)


app = typer.Typer(
    cls=Program,
    help="Label images with Hiera, a hierarchical vision transformer.",
    rich_markup_mode=None,  # Typer's plain help: half the time of the rich one, and it pipes
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    suggest_commands=False,  # usage.py does
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")
MODELS_COLUMNS = 93  # that the table of models needs
STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")  # as an --output


def main() -> None:
    """Run `hiera`. Exit statuses: see run.ExitStatus."""
    try:
        status = app(prog_name="hiera", windows_expand_args=False, standalone_mode=False)
    except ReaderGone:
        raise SystemExit(0) from None
    except ParseError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `hiera` alone
            print(error.format_message(), file=sys.stderr)
            raise SystemExit(2) from None
        from hiera_cli.commands import usage

        _tell(UsageError(*usage.explain(error, sys.argv[1:])))
        raise SystemExit(2) from None
    except Exception as error:
        _tell(error)
        raise SystemExit(2) from None
    raise SystemExit(status if isinstance(status, int) else 0)


def _tell(error: Exception) -> None:
    """What went wrong, and what to do next."""
    if isinstance(error, HieraError):
        from hiera_cli.commands import remedies

        message, hint = error.message, remedies.hint(error)
    elif is_out_of_memory(error):
        message, hint = "there is not enough memory", "Free some, or use a smaller model (-m tiny) or --batch-size 1."
    else:  # a fault of ours
        import traceback

        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
        message = f"internal error, which should not happen: {type(error).__name__}: {error} ({where})"
        hint = "Please report it, with the command. HIERA_TRACEBACK=1 shows where it came from."
        if os.environ.get("HIERA_TRACEBACK"):
            traceback.print_exception(error)
    from hiera_cli.system import terminal

    print(terminal.message(f"hiera: error: {printable(message)}"), file=sys.stderr)
    for line in hint.splitlines():
        print("  " + terminal.message(printable(line)), file=sys.stderr)


def _print(text: str) -> None:
    """To stdout, now."""
    print(text, flush=True)


def _json(value: Any, *, indent: int | None = 2) -> str:
    from hiera_cli.system.utf8 import as_json

    return as_json(value, indent=indent)


def _say_unless(quiet: int) -> Callable[[str], None]:
    """What tells the user something, a line at a time on stderr; or does not."""

    def say(message: str) -> None:
        if not quiet:
            from hiera_cli.system import terminal

            print(terminal.message(f"hiera: {printable(message)}"), file=sys.stderr)

    return say


@contextmanager
def _interruptible() -> Iterator[None]:
    """Within it a signal to end ends the command in good order: what waits in `apart` cleans up behind itself."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        interject("hiera: interrupted\n")
        raise SystemExit(128 + number)

    with handled(interrupted):
        yield


def _completes(values: tuple[str, ...]) -> Any:
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def _completed_models(incomplete: str) -> list[str]:
    from hiera_cli.checkpoints.hub import cached_models

    return [name for name in (*MODELS, *cached_models()) if name.startswith(incomplete)]


def _one_of(values: tuple[str, ...]) -> Any:
    def check(value: str | None) -> str | None:
        if value is None or value in values:
            return value
        from hiera_cli.commands import usage

        return usage.one_of(value, values)

    return check


def _checked_device(value: str) -> str:
    if value in DEVICES:
        return value
    from hiera_cli.commands import usage

    return usage.device(value)


def _checked_number(value: float) -> float:
    if not math.isfinite(value):  # nan passes every comparison with the bounds
        raise typer.BadParameter(f"{value} is not a valid number")
    return value


def _print_version(value: bool) -> None:
    if value:
        _print(f"hiera {__version__}")
        raise typer.Exit


def _print_schema(value: bool) -> None:
    if value:
        from importlib.resources import files

        _print(files("hiera_cli").joinpath("data", "record.schema.json").read_text(encoding="utf-8").rstrip())
        raise typer.Exit


@app.callback()
def _hiera(
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(name="help", hidden=True)
def show_help(
    context: typer.Context,
    command: Annotated[str | None, typer.Argument(metavar="COMMAND", show_default=False)] = None,
) -> None:
    """Explain the program, or one of its commands."""
    parent = context.parent
    assert parent is not None
    if command is None:
        return _print(parent.get_help())
    commands = parent.command.commands  # type: ignore[attr-defined]
    if command not in commands:
        shown = [name for name, each in commands.items() if not each.hidden]
        close = near(command, shown)
        hint = f"Did you mean `hiera help {close}`?" if close else f"Commands: {', '.join(shown)}."
        raise UsageError(f"there is no command {command!r}", hint)
    with typer.Context(commands[command], info_name=command, parent=parent) as about:
        _print(commands[command].get_help(about))
    return None


Model = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        envvar="HIERA_MODEL",
        metavar="MODEL",
        help="tiny, small, base, base-plus, large, huge, demo, ORG/NAME, a folder or a file.",
        autocompletion=_completed_models,
        callback=model_name,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        envvar="HIERA_DEVICE",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:N or mps. auto takes CUDA where it is available.",
        autocompletion=_completes(DEVICES),
        callback=_checked_device,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        envvar="HIERA_PRECISION",
        metavar="PRECISION",
        help="auto, fp32, bf16 or fp16. auto is bf16 where the processor or GPU has it; fp32 is the reference.",
        autocompletion=_completes(PRECISIONS),
        callback=_one_of(PRECISIONS),
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        envvar="HIERA_ENGINE",
        metavar="ENGINE",
        help="auto, torch or openvino. auto is openvino on a CPU where it is installed.",
        autocompletion=_completes(ENGINES),
        callback=_one_of(ENGINES),
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use no network, for weights or inputs.")]
Quiet = Annotated[
    int,
    typer.Option(
        "-q",
        "--quiet",
        count=True,
        show_default=False,
        help="No remarks and no progress on stderr; failures are told. -qq: nothing but what ends the run.",
    ),
]


@app.command(cls=Command)
def classify(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Files, folders, http(s) URLs, - for stdin.", show_default=False),
    ] = None,
    files_from: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Label the paths listed in FILE, one a line (- for stdin)."),
    ] = None,
    files0_from: Annotated[
        list[str] | None,
        typer.Option("--files0-from", metavar="FILE", help="The same with NUL between, as find -print0 writes."),
    ] = None,
    top_k: Annotated[
        int, typer.Option("-k", "--top-k", metavar="N", min=1, help="Labels per image.", show_default=True)
    ] = 5,
    format: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--format",
            metavar="FORMAT",
            help="table, plain, json, jsonl, csv or tsv. By default: from the suffix of --output, "
            "else table on a terminal and plain elsewhere.",
            autocompletion=_completes(FORMATS),
            callback=_one_of(FORMATS),
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write here; the name appears when it is complete. - is stdout."
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option("-0", "--null", help="End plain's lines with NUL, and leave names as they are: for xargs -0."),
    ] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", callback=_print_schema, is_eager=True, help="Print the JSON Schema of a JSON record, and end."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing --output.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished jsonl --output: done files are not done again.")
    ] = False,
    min_score: Annotated[
        float,
        typer.Option(metavar="P", min=0, max=1, help="Leave out labels that score under P.", callback=_checked_number),
    ] = 0.0,
    model: Model = "tiny",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images run together. Chosen well by itself.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Decoding threads. Chosen well by itself.")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Skip files and folders of this name in a folder; may be repeated."),
    ] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Take hidden files and folders too.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Follow links in folders.")] = False,
    max_pixels: Annotated[
        int, typer.Option(metavar="N", min=1, help="Refuse larger images.", show_default=True)
    ] = MAX_PIXELS,
    full_decode: Annotated[
        bool, typer.Option("--full-decode", help="Decode large JPEGs in full, as the reference does: slower.")
    ] = False,
    url_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, help="Time for one URL, retries included.", callback=_checked_number),
    ] = Limits.total,
    max_mib: Annotated[
        int, typer.Option(metavar="MIB", min=1, help="Size of one URL's body, or of stdin.")
    ] = Limits.bytes >> 20,
    offline: Offline = False,
    quiet: Quiet = 0,
    no_banner: Annotated[bool, typer.Option("--no-banner", help="Do not say which model and device are used.")] = False,
    progress: Annotated[
        bool | None,
        typer.Option(
            "--progress/--no-progress",
            help="A progress bar on a terminal, a line a minute elsewhere. By default: without -q.",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")] = False,
) -> None:
    """Label images: the top-k labels of files, folders, URLs or stdin."""
    if as_json and format not in (None, "json"):
        raise UsageError(f"--json and --format {format} contradict each other")
    if output == "":
        raise UsageError("--output needs a name: it is empty", "Is a variable of the script not set?")
    suffix = os.path.splitext(output or "")[1].lower()
    if as_json and suffix not in ("", ".json"):
        raise UsageError(
            f"--json and the suffix of {output} contradict each other",
            f"Leave --json out, or say --format json: then {output} holds JSON.",
        )
    from hiera_cli.checkpoints import resolve
    from hiera_cli.commands import run
    from hiera_cli.images.decode import Decoding
    from hiera_cli.pipeline.options import Options
    from hiera_cli.tasks.classify import Classify

    decoding = Decoding(max_pixels=max_pixels, full=full_decode)
    limits = Limits(connect=min(Limits.connect, url_timeout), total=url_timeout, bytes=max_mib << 20)
    request = run.Request(
        inputs=tuple(inputs or ()),
        files_from=tuple(files_from or ()),
        files0_from=tuple(files0_from or ()),
        format="json" if as_json else format,
        output=None if output in STDOUT else output,
        null=null,
        overwrite=overwrite,
        resume=resume,
        model=model,
        engine=engine,
        device=device,
        precision=precision,
        batch_size=batch_size,
        task=Classify(top_k, min_score),
        options=Options(
            workers=workers,
            limits=limits,
            decoding=decoding,
            offline=offline,
            model=resolve.record_name(model),
        ),
        exclude=tuple(exclude or ()),
        hidden=hidden,
        follow=follow,
        offline=offline,
        quiet=quiet,
        no_banner=no_banner,
        progress=progress,
        verbose=verbose,
    )
    raise typer.Exit(run.classify(request))


@app.command(cls=Command)
def download(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Names or Hub repositories. [default: tiny]",
            autocompletion=_completes(tuple(PUBLISHED)),
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Put the files into DIR as well, to carry to another machine."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is here already.")] = False,
    as_json: Json = False,
    quiet: Quiet = 0,
) -> None:
    """Fetch weights ahead of time, into the Hub cache or a folder."""
    from dataclasses import asdict

    from hiera_cli.checkpoints import hub, inventory
    from hiera_cli.system.threads import apart

    names = [model_name(name) for name in models or ["tiny"]]
    say = _say_unless(quiet)
    progress = hub.Progress(say, bar=not quiet)
    fetched = []
    for name in names:
        folder = None if to is None else to if len(names) == 1 else f"{to}/{name.replace('/', '--')}"
        download = partial(inventory.download, name, folder, force=force, progress=progress)
        with _interruptible():
            entry = apart(download)
        if folder is not None:
            say(f"there: hiera classify -m {folder} INPUT...")
        fetched.append(asdict(entry))
        if not as_json:
            _print(printable(f"{entry.name}\t{entry.folder}", keep="\t"))
    if as_json:
        _print(_json(fetched))


@app.command(cls=Command)
def models(as_json: Json = False) -> None:
    """List the models: size, published accuracy, licence, whether they are on this machine."""
    from dataclasses import asdict

    from hiera_cli.checkpoints import inventory

    rows = inventory.models()
    if as_json:
        return _print(_json([asdict(row) for row in rows]))
    from hiera_cli.system import terminal

    columns = terminal.columns(1)
    below = columns is not None and columns < MODELS_COLUMNS  # the repositories, each under its model
    lines = [
        f"{'NAME':<10} {'PARAMETERS':>10} {'DOWNLOAD':>10} {'TOP-1':>7}  {'HERE':<8}" + "  REPOSITORY" * (not below)
    ]
    for row in rows:
        accuracy = f"{row.top1:.1f} %" if row.top1 is not None else "–"
        size = f"{row.bytes / 1e6:,.0f} MB" if row.repository else "–"
        here = "built in" if not row.repository else "yes" if row.on_this_machine else "no"
        lines.append(
            f"{row.name:<10} {row.parameters / 1e6:>8.1f} M {size:>10} {accuracy:>7}  {here:<8}"
            + ("\n    " if below else "  ")
            + (row.repository or "knows the sample images alone")
        )
    lines.append("")
    lines += terminal.wrapped(f"Licence of the weights: {LICENCE}. TOP-1: ImageNet-1K, as published.", columns)
    return _print("\n".join(lines))


@app.command(cls=Command)
def labels(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERY...", help="Words of the label, an index or a WordNet id.", show_default=False),
    ] = None,
    model: Model = "tiny",
    as_json: Json = False,
    offline: Offline = False,
) -> None:
    """List the classes of the model: index, WordNet id, label."""
    from hiera_cli.checkpoints.labels import matching

    query = " ".join(words or ())
    if words and not query.strip():
        raise UsageError("the query is empty", "Is a variable of the script not set? `hiera labels` lists all classes.")
    found = matching(_labels_of(model, offline), query)
    if as_json:
        _print(_json([{"index": each.index, "wnid": each.wnid, "label": each.text} for each in found], indent=None))
    elif found:
        _print("\n".join(f"{each.index}\t{each.wnid or '-'}\t{printable(each.text)}" for each in found))
    if not found:
        print(f"hiera: no label matches {printable(query)!r}", file=sys.stderr)
        raise typer.Exit(1)


def _labels_of(model: str, offline: bool) -> tuple[Label, ...]:
    if model in MODELS:  # all of them have ImageNet's classes
        from hiera_cli.checkpoints.labels import imagenet_labels

        return imagenet_labels()
    from hiera_cli.checkpoints import resolve

    return resolve.resolve(model, labels=True, offline=offline).labels


@app.command(cls=Command)
def info(
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    clear_compiled: Annotated[bool, typer.Option("--clear-compiled", help="Remove the compiled models.")] = False,
    as_json: Json = False,
) -> None:
    """Show versions, the engine, device and precision that would be used and why, and what is cached."""
    from dataclasses import asdict

    from hiera_cli.commands import info_facts
    from hiera_cli.engines import compiled

    if clear_compiled:
        count, freed = len(compiled.saved()), compiled.clear()
        print(f"hiera: removed {count} compiled model{'s' * (count != 1)} ({freed / 1e6:,.0f} MB)", file=sys.stderr)
    facts = info_facts.info(engine, device, precision)
    if as_json:
        return _print(_json(asdict(facts)))
    from hiera_cli.system import terminal

    columns = terminal.columns(1)

    def fact(name: str, text: str) -> str:
        room = None if columns is None else max(columns - 17, 20)
        return f"{name:<16} " + f"\n{'':<17}".join(terminal.wrapped(text, room, whole_words=True))

    lines = [fact(name, version) for name, version in facts.versions.items()]
    lines += [
        "",
        fact("device", f"{facts.device} ({facts.device_why})"),
        fact("precision", f"{facts.precision} ({facts.precision_why})"),
        fact("engine", f"{facts.engine} ({facts.engine_why})"),
        fact("processors", str(facts.processors)),
        "",
        fact("cache", facts.cache),
    ]
    for cached in facts.cached:
        lines.append(fact("", f"{cached.name} ({cached.repository}, {cached.bytes / 1e6:,.0f} MB)"))
    if not facts.cached:
        lines.append(fact("", "no weights yet: `hiera download` fetches them"))
    lines += ["", fact("compiled", facts.compiled_folder)]
    for kept in facts.compiled:
        lines.append(fact("", f"{kept.name} ({kept.bytes / 1e6:,.0f} MB)"))
    if not facts.compiled:
        lines.append(fact("", "none: the openvino engine keeps its compiled models there"))
    return _print("\n".join(lines))


@app.command(cls=Command)
def bench(
    model: Model = "tiny",
    device: Device = "auto",
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="How long to measure each line.", callback=_checked_number)
    ] = 5.0,
    as_json: Json = False,
    quiet: Quiet = 0,
) -> None:
    """Measure this machine: images a second by engine, precision and batch size."""
    from hiera_cli import bench

    with _interruptible():
        measured = bench.bench(model, device, seconds, _say_unless(quiet))
    if as_json:
        return _print(_json(measured))
    lines = [f"{'ENGINE':<9} {'PRECISION':<9} {'BATCH':>5} {'MODEL ALONE':>16} {'END TO END':>16}"]
    for rate in measured["rates"]:
        lines.append(
            f"{rate['engine']:<9} {rate['precision']:<9} {rate['batch_size']:>5} "
            f"{_speed(rate['model_only']):>16} {_speed(rate['end_to_end']):>16}"
        )
    from hiera_cli.system import terminal

    columns = terminal.columns(1)
    caption = f"{measured['model']} on {measured['rates'][0]['device']}, images a second: the median of "
    caption += f"{measured['rounds']} rounds, and half of what lies between the slowest and the fastest."
    names = [f"--engine {each['engine']} --precision {each['precision']}" for each in measured["fastest"]]
    if measured["too_busy"]:
        advice = "The machine was too busy to tell which is the fastest: try again when nothing else runs."
    elif len(names) > 1:
        advice = f"The fastest end to end, and alike: {', '.join(names)}"
    else:
        advice = f"The fastest end to end: {names[0]}"
    lines += ["", *terminal.wrapped(caption, columns), *terminal.wrapped(advice, columns)]
    return _print("\n".join(lines))


def _speed(speed: dict[str, float] | None) -> str:
    """Such as `1,204.5/s ± 3%`."""
    if speed is None:
        return "–"
    from hiera_cli.bench import Speed

    return f"{speed['median']:,.1f}/s ±{Speed(**speed).spread:>3.0%}"
