"""What --ray asks of a command: that the workers of a cluster do its work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hiera_cli.checkpoints.published import MODELS
from hiera_cli.commands.request import Request
from hiera_cli.errors import UsageError
from hiera_cli.inputs import cloud
from hiera_cli.inputs.source import is_cloud
from hiera_cli.outputs.names import PARTS

if TYPE_CHECKING:
    from hiera_cli.cluster.workers import Workers
    from hiera_cli.outputs.parts import Parts
    from hiera_cli.pipeline.options import Options
    from hiera_cli.tasks.task import Task

MOST_LOOKED_FOR = 100  # of the inputs that were named: whether a node sees them


def _seen_here(names: Iterable[str], *, offline: bool) -> Iterator[str]:
    """Of each bucket one."""
    buckets = set()
    for name in names:
        if not is_cloud(name):
            if os.path.lexists(name):
                yield name
        elif not offline and (bucket := name.split("/")[2]) not in buckets:
            buckets.add(bucket)
            if not cloud.unseen(name):
                yield name


def is_folder_of_parts(ray: str | None, path: str | None) -> bool:
    """Whether an --output is written by the workers of a cluster."""
    return ray is not None and path is not None and (path.endswith("/") or os.path.isdir(path))


def check(ray: str | None, ship: bool, request: Request) -> None:
    """Raise UsageError for what a cluster can't do, or without one."""
    if ray is None:
        if ship:
            raise UsageError("--ship is for a cluster, and this run has none", "Name one: --ray HOST:PORT")
        return
    from hiera_cli.cluster.connection import check_address
    from hiera_cli.inputs.source import descriptor

    check_address(ray)
    output, device = request.output, request.model.device
    if device.startswith("cuda:"):
        raise UsageError(f"a cluster gives each worker a GPU of its own, and {device} names one", "Use --device cuda.")
    for name in request.inputs.inputs:
        if descriptor(name) is not None:
            raise UsageError(
                f"the workers of a cluster do not see what comes through {name}",
                "Save it first, or leave out --ray. A list of paths may come so: --files-from -",
            )
    if output.parts and output.format not in PARTS:
        raise UsageError(
            f"a folder gets parts, as parquet or jsonl, and this run writes {output.format}",
            f"Use -f parquet or jsonl, or name a file: -o {output.path}/FILE".replace("//", "/"),
        )


def workers_of(
    ray: str, ship: bool, request: Request, task: Task[Any, Any], read: Options, parts: Parts | None
) -> Workers:
    """The workers, not started yet."""
    from hiera_cli.cluster.worker import Job
    from hiera_cli.cluster.workers import Workers

    named = [*request.inputs.inputs[:MOST_LOOKED_FOR]]
    if request.model.model not in MODELS and not request.model.model.startswith("~"):
        named.append(request.model.model)
    job = Job(
        task,
        read,
        request.inputs.walk(offline=request.offline),
        os.getcwd(),
        visible=tuple(_seen_here(named, offline=request.offline)),
        verbose=request.report.verbose,
        parts=parts,
    )
    return Workers(ray, job, ship=ship)
