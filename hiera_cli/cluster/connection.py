"""Joining a Ray cluster, or starting one on this machine, and what can be wrong with that."""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from hiera_cli.errors import HieraError, UsageError
from hiera_cli.system.streams import set_apart_from_libraries

LOCAL, AUTO = "local", "auto"
CONNECT = 5.0  # seconds until a cluster that does not answer is given up
LET_IN = 30.0  # seconds until what answers is no cluster, or one that does not work
STORE_BYTES = 256 << 20  # of a cluster that is started here: replies are small
_TOKEN = "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to that of the cluster, which is in ~/.ray/auth_token of its head."
_CURRENT = "ray/ray_current_cluster"  # where Ray keeps the address of the cluster that was started on this machine


def check_address(address: str) -> None:
    """Raise UsageError for an address that can't be one of a cluster, or without Ray. Imports nothing of it."""
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise UsageError("a cluster needs Ray, which is not installed", "pip install 'hiera-cli[ray]'")
    named = os.environ.get("RAY_ADDRESS", "")
    if address == AUTO and named and not _is_host_and_port(named):
        raise UsageError(
            f"RAY_ADDRESS is {named!r}, which is no address of a cluster's head", "One is HOST:PORT, such as head:6379."
        )
    if address in (LOCAL, AUTO):
        return
    if "://" in address:
        raise UsageError(
            f"the cluster is joined from a machine that is a node of it, not by {address}",
            remedy="name the head",
        )
    if not _is_host_and_port(address):
        raise UsageError(
            f"{address!r} is no address of a cluster", "One is local, auto, or HOST:PORT, such as head:6379."
        )


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and "://" not in address and port.isdecimal() and 0 < int(port) < 1 << 16


@dataclass(frozen=True)
class Connection:
    """ray: the module. where: HOST:PORT of the cluster's head; "" of one that was started here.

    node: host and port of Ray's process on this machine, by which it is in the cluster.
    """

    ray: Any
    where: str
    node: tuple[str, int]

    def check(self) -> None:
        """Raise HieraError if the head, or Ray on this machine, does not answer.

        Ray itself waits a minute for its head, and ends the program then without a word; for the other it waits ever.
        """
        if self.where:
            try:
                _answering(self.where)
            except HieraError as error:
                raise HieraError(f"the head of the cluster has gone: {error.message}") from error
        if not answers(*self.node, CONNECT):
            raise HieraError("Ray on this machine has gone, by which it was in the cluster")

    def close(self) -> None:
        """Leave the cluster. One that was started here ends with that."""
        self.ray.shutdown()

    def drop(self) -> None:
        """Leave a cluster that does not answer any more, without a word to it."""
        atexit.unregister(self.ray.shutdown)


def connect(address: str, runtime_env: dict[str, Any] | None = None) -> Connection:
    """Join a cluster. runtime_env: what of this machine its workers get.

    Raises HieraError where there is none, or it does not take this machine.
    """
    # These are read when it is imported, or by the processes that it starts.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "runtime_env": runtime_env}
    if address == LOCAL:
        where = LOCAL
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        if "RAY_AUTH_MODE" not in os.environ:  # a token for this cluster alone, where Ray would write one into ~/.ray
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    else:
        where = _answering(address)
        if "RAY_AUTH_MODE" not in os.environ and _has_token():  # as `ray start` does it
            os.environ["RAY_AUTH_MODE"] = "token"
        if os.environ.get("RAY_AUTH_MODE") == "token":
            if not _has_token():
                raise HieraError(f"there is no token on this machine for the cluster at {where}", _TOKEN)
            _try_token(where)
    set_apart_from_libraries()  # Ray's core tells of its own there; its logs have all of it
    import ray
    import ray._private.worker as internals

    if hasattr(internals, "print_to_stdstream"):  # it prints what happens to nodes on stdout, among the results
        internals.print_to_stdstream = lambda *arguments, **options: None
    try:
        _on_a_lasting_thread(lambda: ray.init(address=where, **options))
    except Exception as error:  # of whichever part of it
        raise _refused(where, error, ray.__version__) from error
    return Connection(ray, "" if address == LOCAL else where, _own_node(ray))


def _own_node(ray: Any) -> tuple[str, int]:
    mine = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == mine)
    return node["NodeManagerAddress"], node["NodeManagerPort"]


def _try_token(where: str) -> None:
    """Raise HieraError if the cluster does not take it: for that, Ray ends the process that asks."""
    code = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='CRITICAL')"
    tried = subprocess.run([sys.executable, "-c", code, where], capture_output=True, stdin=subprocess.DEVNULL)
    if tried.returncode < 0 or b"uthent" in tried.stderr:
        raise HieraError(f"the cluster at {where} does not take this token", _TOKEN)


def _on_a_lasting_thread(call: Callable[[], object]) -> None:
    """Linux ends the processes that Ray starts with the thread that has started them."""
    outcome: SimpleQueue[BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            call()
            outcome.put(None)
        except BaseException as error:  # handed to the one who waits
            outcome.put(error)
        threading.Event().wait()

    threading.Thread(target=run, name="ray", daemon=True).start()
    try:
        error = outcome.get(timeout=LET_IN)
    except Empty:
        raise TimeoutError(f"no answer within {LET_IN:g} s") from None
    if error is not None:
        raise error


def _has_token() -> bool:
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or os.path.exists(os.path.expanduser("~/.ray/auth_token"))


def _answering(address: str) -> str:
    """HOST:PORT of a cluster, which was tried: Ray itself waits minutes for one that is not there."""
    where = address
    if address == AUTO:
        where = os.environ.get("RAY_ADDRESS", "")
        if not where:
            try:
                folder = os.environ.get("RAY_TMPDIR") or "/tmp"
                with open(os.path.join(folder, _CURRENT), encoding="utf-8") as stream:
                    where = stream.read().strip()
            except OSError:
                where = ""
        if not where:
            raise HieraError("there is no Ray cluster on this machine to join", remedy="start a cluster")
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise HieraError(f"no Ray cluster answers at {where}: {reason}", remedy="the head's address") from error
    return where


def answers(host: str, port: int, seconds: float) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((host, port), seconds).close()
    except OSError:
        return False
    return True


def _refused(address: str, error: Exception, version: str) -> HieraError:
    text = " ".join(str(error).split())
    if "uthent" in text or "token" in text.lower():
        return HieraError(f"the cluster at {address} asks for a token", _TOKEN)
    if "ersion mismatch" in text:
        return HieraError(f"the cluster at {address} has another version: {_short(text)}")
    if "node_ip_address" in text or "raylet" in text.lower() or "No node" in text:
        return HieraError(
            f"this machine is no node of the cluster at {address}", remedy="become a node", address=address
        )
    if isinstance(error, ConnectionError) and not text:
        return HieraError(
            f"the cluster at {address} does not understand Ray {version}, which is what this machine has",
            remedy="the cluster's version",
        )
    reason = _short(text) or type(error).__name__
    if address == LOCAL:
        return HieraError(
            f"Ray can't start a cluster on this machine: {reason}", "Its files are in /tmp/ray: RAY_TMPDIR."
        )
    hint = "" if os.environ.get("RAY_AUTH_MODE") else f" If it is, and has a token: {_TOKEN}"
    return HieraError(f"{address} does not let this machine in: {reason}", f"Is it the head of a Ray cluster?{hint}")


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
