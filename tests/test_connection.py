"""Addresses of a cluster, and what is said where none can be joined. Nothing of Ray is imported."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SAMPLES, Call

from hiera_cli.cluster.connection import Connection, _answering, _refused, check_address, connect
from hiera_cli.errors import HieraError, UsageError

find_spec = importlib.util.find_spec


@pytest.fixture
def ray_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "ray" else find_spec(name))


@pytest.fixture(autouse=True)
def _no_cluster_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, os.environ.get(name, "0"))  # `connect` sets them


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody answers: the port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.usefixtures("ray_is_installed")
@pytest.mark.parametrize("address", ["local", "auto", "head:6379", "10.0.0.1:1", "[::1]:65535"])
def test_an_address_is_one_of_three_kinds(address: str) -> None:
    check_address(address)


@pytest.mark.usefixtures("ray_is_installed")
@pytest.mark.parametrize("address", ["", "head", "head:", ":6379", "head:0", "head:65536", "head:x", "head:²", "loca"])
def test_what_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_address(address)
    assert (refused.value.message, refused.value.hint) == (
        f"{address!r} is no address of a cluster",
        "One is local, auto, or HOST:PORT, such as head:6379.",
    )


@pytest.mark.usefixtures("ray_is_installed")
def test_a_client_address_is_told_apart() -> None:
    with pytest.raises(UsageError) as refused:
        check_address("ray://head:10001")
    assert refused.value.message.endswith("not by ray://head:10001")
    assert refused.value.remedy == "name the head"


def test_without_ray_the_way_to_it_is_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find_spec(name))
    done = call("classify", SAMPLES / "cat.jpg", "-m", "demo", "--ray", "local")
    assert (done.status, done.out) == (2, "")
    assert done.err == ("hiera: error: a cluster needs Ray, which is not installed\n  pip install 'hiera-cli[ray]'\n")


@pytest.mark.usefixtures("ray_is_installed", "demo_on_the_cpu")
def test_where_nobody_answers_that_is_said_at_once_and_nothing_is_left_behind(call: Call, closed_port: str) -> None:
    arguments = ("classify", SAMPLES / "cat.jpg", "-o", "out/", "--ray")
    done = call(*arguments, closed_port)
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        f"hiera: error: no Ray cluster answers at {closed_port}: Connection refused\n"
        "  Is that the address of its head? --ray local starts a cluster for a single run.\n"
    )
    done = call(*arguments, "auto")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "hiera: error: there is no Ray cluster on this machine to join\n"
        "  The README says how to start one; --ray local does that for a single run.\n"
    )
    assert not Path("out").exists()


def test_auto_is_what_is_named_or_was_started_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        where = f"127.0.0.1:{head.getsockname()[1]}"
        assert _answering(where) == where
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"{where}\n")
        assert _answering("auto") == where
        monkeypatch.setenv("RAY_ADDRESS", where)
        (tmp_path / "ray" / "ray_current_cluster").unlink()
        assert _answering("auto") == where


def test_a_cluster_that_is_gone_is_told_by_its_address(tmp_path: Path, closed_port: str) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(closed_port)
    with pytest.raises(HieraError, match=rf"^no Ray cluster answers at {closed_port}: Connection refused$"):
        connect("auto")


@pytest.mark.usefixtures("ray_is_installed")
@pytest.mark.parametrize("named", ["head", "ray://head:10001", "http://head:8265", "head:x", "auto", "local"])
def test_an_environment_that_names_none_is_told_of(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(UsageError) as refused:
        check_address("auto")
    assert (refused.value.message, refused.value.hint) == (
        f"RAY_ADDRESS is {named!r}, which is no address of a cluster's head",
        "One is HOST:PORT, such as head:6379.",
    )
    check_address("local")
    check_address("head:6379")


def test_an_empty_environment_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    with pytest.raises(HieraError, match=r"^there is no Ray cluster on this machine to join$"):
        _answering("auto")


def test_without_a_token_none_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as head:
        where = f"127.0.0.1:{head.getsockname()[1]}"
        with pytest.raises(HieraError, match=rf"^there is no token on this machine for the cluster at {where}$"):
            connect(where)


def test_a_cluster_goes_with_its_head_or_with_ray_on_this_machine(closed_port: str) -> None:
    gone = ("127.0.0.1", int(closed_port.partition(":")[2]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        there: tuple[str, int] = server.getsockname()
        Connection(None, f"{there[0]}:{there[1]}", there).check()
        Connection(None, "", there).check()
        told = f"the head of the cluster has gone: no Ray cluster answers at {closed_port}: Connection refused"
        with pytest.raises(HieraError, match=f"^{told}$"):
            Connection(None, closed_port, there).check()
        with pytest.raises(HieraError, match=r"^Ray on this machine has gone, by which it was in the cluster$"):
            Connection(None, "", gone).check()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Unauthenticated: no", "the cluster at h:1 asks for a token"),
        (
            "Version mismatch: the\ncluster has 2.1",
            "the cluster at h:1 has another version: Version mismatch: the cluster has 2.1",
        ),
        ("No node info of this raylet", "this machine is no node of the cluster at h:1"),
        ("", "h:1 does not let this machine in: RuntimeError"),
    ],
)
def test_what_ray_says_is_put_in_words(said: str, told: str) -> None:
    assert _refused("h:1", RuntimeError(said), "2.60").message == told
