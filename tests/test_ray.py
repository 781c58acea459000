"""Runs on a real Ray cluster: what of them no test without one can hold.

nodes of one core each, in namespaces of their own     tests/ray_cluster.py
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import SAMPLES
from ray_cluster import HEAD, PORT, ROOT, SECOND, Cluster, Ended, ended, kill, reason_for_none, wait_for

from hiera_cli import __version__

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]  # one cluster for all of them

COUNT = 400  # of pictures: twelve blocks and some
GATES = range(200, COUNT, 32)  # those that are not read while the gate is closed
BUCKET = "http://127.0.0.1:5555"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
HOST = platform.node()
DEMO = "hiera: the demo model knows the sample images and nothing else; `-m tiny` is a real one"
ONE = "hiera: demo on cpu (1 thread), fp32, on 1 node of a Ray cluster"
TWO = "hiera: demo on cpu (1 thread), fp32, on 2 nodes of a Ray cluster"
DIED = "hiera: a worker has died, or its node (NODE): what it had is done again"
JSONL = ("-k1", "-f", "jsonl", "--no-progress")


@pytest.fixture(scope="module")
def _possible() -> None:
    if reason := reason_for_none():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def one_node(_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node, until `cluster` is asked for."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.environment |= {"AWS_ENDPOINT_URL": BUCKET, "AWS_EC2_METADATA_DISABLED": "true", **CREDENTIALS}
    make_pictures(cluster.folder)
    cluster.start_head()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def cluster(one_node: Cluster) -> Cluster:
    """A cluster of two nodes."""
    one_node.start_node()
    return one_node


@pytest.fixture
def own(_possible: None, tmp_path: Path) -> Iterator[Cluster]:
    """Namespaces without a node, for a test to do what it wants with."""
    cluster = Cluster(tmp_path)
    (tmp_path / "seen").mkdir()
    shutil.copy(SAMPLES / "cat.jpg", tmp_path / "seen" / "cat.jpg")
    yield cluster
    cluster.close()


def make_pictures(folder: Path) -> None:
    """In `many` COUNT small pictures, with gates among them; elsewhere some in all ways that inputs come."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    small = []
    for path in sorted(SAMPLES.glob("*.[jp][pn]g")):
        data = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").resize((96, 96)).save(data, "JPEG")
        small.append(data.getvalue())
    for name in ("many", "odd", "crash"):
        (folder / name).mkdir()
    for place in range(COUNT):
        (folder / "many" / f"{place:03}{'-gate' * (place in GATES)}.jpg").write_bytes(small[place % len(small)])
    for place in range(40):
        (folder / "crash" / f"{place:03}{'-crash' * (place == 20)}.jpg").write_bytes(small[place % len(small)])
    for name in ("a b.jpg", "\n.jpg", "😀 日本.jpg", os.fsdecode(b"caf\xe9.jpg"), "d/e.jpg", "d/truncated.jpg"):
        (folder / "odd" / name).parent.mkdir(exist_ok=True)
        (folder / "odd" / name).write_bytes(small[0][: 700 if "trunc" in name else None])
    (folder / "odd" / "no.jpg").write_text("no picture")
    (folder / "odd" / "text.txt").write_text("no picture")
    (folder / "odd" / "dead.jpg").symlink_to("nowhere")
    members = [(f"{place:02}.jpg", small[place % len(small)]) for place in range(50)] + [
        ("no.jpg", b"no"),
        ("x.txt", b""),
    ]
    with tarfile.open(folder / "a.tar", "w") as tar, zipfile.ZipFile(folder / "a.zip", "w") as zipped:
        for name, data in members:  # type: ignore[assignment]
            about = tarfile.TarInfo(name)
            about.size = len(data)  # type: ignore[arg-type]
            tar.addfile(about, io.BytesIO(data))  # type: ignore[arg-type]
            zipped.writestr(name, data)  # type: ignore[arg-type]
    rows = [{"name": name, "image": {"bytes": data, "path": name}} for name, data in members[:40]]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    with tarfile.open(folder / "crash.tar", "w") as tar:
        tar.add(folder / "crash", "crash")


def told(err: str) -> list[str]:
    """What was said, but for how long it took."""
    err = err.replace(f"({HOST}, {HEAD})", "(NODE)").replace(f"({HOST}, {SECOND})", "(NODE)")
    return re.sub(r", [\d.,]+ (s|min)( [\d.]+ s)?(, [\d.,]+/s)?", ", T", err).splitlines()


def lines_of(path: Path) -> list[str]:
    """Of a file, or of the parts of a folder."""
    files = sorted(path.glob("part-*.jsonl")) if path.is_dir() else [path]
    return [line for file in files if file.exists() for line in file.read_text().splitlines()]


# ---- the same records

EVERYTHING = ("odd", "a.tar", "gone.jpg", "a.zip", "many/000.jpg", "a.parquet", "a.tar", "--archives", *JSONL)


@pytest.fixture(scope="module")
def urls(one_node: Cluster) -> Iterator[list[str]]:
    """Of pictures, and of what is none, in the cluster's network."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from image_server import ImageServer, reply; s = ImageServer();"
        "cat = open(sys.argv[2], 'rb').read();"
        "print(*[s.at(a) for a in (reply(body=cat), reply(404), reply(body=b'no'), reply(body=cat))], flush=True);"
        "sys.stdin.read()"
    )
    server = one_node.start(sys.executable, "-c", code, str(ROOT / "tests"), str(SAMPLES / "cat.jpg"))
    assert server.stdout
    yield server.stdout.readline().decode().split()
    ended(server)


@pytest.fixture(scope="module")
def alone(one_node: Cluster, urls: list[str]) -> Ended:
    """A run over everything by one process."""
    return everything(one_node, urls)


def everything(cluster: Cluster, urls: list[str], *options: str) -> Ended:
    """A run over what there is of all kinds; on stdin a list of files."""
    listed = b"".join(b"many/%03d.jpg\n" % place for place in range(1, 80))
    return cluster.hiera("classify", *EVERYTHING, *urls, "--files-from", "-", *options, input=listed)


def test_the_records_of_one_node_are_those_of_one_process(one_node: Cluster, urls: list[str], alone: Ended) -> None:
    done = everything(one_node, urls, "--ray", "auto")
    assert (done.status, done.out) == (1, alone.out)
    records = [json.loads(line) for line in done.out.splitlines()]
    assert sum(record["status"] == "ok" for record in records) == 5 + 50 + 50 + 1 + 40 + 50 + 2 + 79
    assert sorted(told(done.err)) == sorted([ONE, *told(alone.err)[1:]])


def test_the_records_of_two_nodes_are_those_of_one_process(cluster: Cluster, urls: list[str], alone: Ended) -> None:
    done = everything(cluster, urls, "--ray", f"{HEAD}:{PORT}")
    assert (done.status, done.out) == (1, alone.out)
    assert sorted(told(done.err)) == sorted([TWO, *told(alone.err)[1:]])


def test_features_are_those_of_one_process(cluster: Cluster) -> None:
    embed = ("embed", "odd", "a.tar", "--archives", "-f", "jsonl")
    assert cluster.hiera(*embed, "--ray", "auto").out == cluster.hiera(*embed).out != ""


# ---- parts


@pytest.fixture(scope="module")
def expected(cluster: Cluster) -> list[str]:
    """The lines of the records of `many`."""
    done = cluster.hiera("classify", "many", *JSONL, "--ray", "auto")
    assert (done.status, told(done.err)) == (0, [TWO, DEMO, f"hiera: {COUNT} labelled, T"])
    assert len(set(done.out.splitlines())) == COUNT
    return done.out.splitlines()


def test_parts_have_a_row_for_each_input_and_a_manifest(cluster: Cluster, expected: list[str]) -> None:
    duckdb = pytest.importorskip("duckdb")
    done = cluster.hiera("classify", "many", "odd/no.jpg", "-k1", "--no-progress", "-o", "rows/", "--ray", "auto")
    assert (done.status, done.out) == (1, "")
    assert told(done.err)[2:] == [
        "hiera: odd/no.jpg: not an image of a format that is read here",
        f"hiera: {COUNT} labelled, 1 failed, T → rows/",
    ]
    query = f"select path, status, predictions[1].label from '{cluster.folder}/rows/*.parquet' order by path"
    records = [json.loads(line) for line in expected]
    rows = [(record["path"], "ok", record["predictions"][0]["label"]) for record in records]
    assert duckdb.sql(query).fetchall() == [*rows, ("odd/no.jpg", "error", None)]
    manifest = json.loads((cluster.folder / "rows" / "_manifest.json").read_text())
    assert {name: manifest[name] for name in ("format", "model", "precision", "records", "answered", "failed")} == {
        "format": "parquet",
        "model": "demo",
        "precision": "fp32",
        "records": COUNT + 1,
        "answered": COUNT,
        "failed": 1,
    }
    assert sorted(os.listdir(cluster.folder / "rows")) == [
        "_manifest.json",
        *sorted(part["name"] for part in manifest["parts"]),
    ]


# ---- what dies on the way


def at_the_gate(cluster: Cluster, output: str) -> tuple[subprocess.Popen[bytes], int]:
    """A run over `many` whose nodes have all come to the gate, and something is done; who reads at the second node."""
    cluster.close_gate()
    running = cluster.start_hiera("classify", "many", *JSONL, "-o", output, "--overwrite", "--ray", "auto")
    cluster.wait_at_gate(running, cluster.raylet_of(HEAD))
    worker = cluster.wait_at_gate(running, cluster.raylet_of(SECOND))
    path = cluster.folder / (output if output.endswith("/") else f"{output}.part")
    wait_for(lambda: bool(lines_of(path)))
    return running, worker


def records_in(cluster: Cluster, output: str) -> list[str]:
    """Those of a file of lines, or of all parts of a folder, without what --resume needs of them."""
    return [re.sub(r', "resume": {.*}}$', "}", line) for line in lines_of(cluster.folder / output)]


@pytest.mark.parametrize("output", ["worker.jsonl", "worker/"])
def test_what_a_killed_worker_had_is_done_again(cluster: Cluster, expected: list[str], output: str) -> None:
    running, worker = at_the_gate(cluster, output)
    cluster.kill_inside(worker)
    cluster.open_gate()
    done = ended(running)
    assert (done.status, done.out) == (0, "")
    assert told(done.err) == [TWO, DEMO, DIED, f"hiera: {COUNT} labelled, T → {output}"]
    assert sorted(records_in(cluster, output)) == expected


@pytest.mark.parametrize("output", ["node.jsonl", "node/"])
def test_a_node_may_go_and_another_may_come(cluster: Cluster, expected: list[str], output: str) -> None:
    running, _ = at_the_gate(cluster, output)
    cluster.kill_inside(cluster.raylet_of(SECOND))
    wait_for(lambda: not cluster.processes(f"--node_ip_address={SECOND} "))
    cluster.start_node()
    cluster.wait_at_gate(running, cluster.raylet_of(SECOND))
    cluster.open_gate()
    done = ended(running)
    assert (done.status, done.out) == (0, "")
    assert told(done.err) == [TWO, DEMO, DIED, f"hiera: {COUNT} labelled, T → {output}"]
    assert sorted(records_in(cluster, output)) == expected


def test_a_part_that_can_not_be_written_ends_the_run_and_what_was_done_is_kept(cluster: Cluster) -> None:
    running, _ = at_the_gate(cluster, "full/")
    folder = cluster.folder / "full"
    before = lines_of(folder)
    folder.rename(cluster.folder / "moved")
    folder.touch()
    cluster.open_gate()
    done = ended(running)
    assert (done.status, done.out) == (2, "")
    assert re.fullmatch(r"hiera: stopped early: \d+ labelled, T", told(done.err)[2])
    assert told(done.err)[3:] == [
        f"hiera: error: cannot write {folder}: Not a directory",
        "  What was done is kept. Of jsonl, and of a folder of parts, --resume goes on from there.",
    ]
    assert lines_of(cluster.folder / "moved") == before


def test_a_picture_that_ends_its_worker_gets_an_error_record_and_all_others_are_labelled(cluster: Cluster) -> None:
    done = cluster.hiera("classify", "crash", "crash.tar", "--archives", *JSONL, "--ray", "auto", timeout=240)
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [record["path"] for record in records if record["status"] == "error"] == [
        "crash/020-crash.jpg",
        "crash.tar/crash/020-crash.jpg",
    ]
    assert {json.dumps(record["error"]) for record in records if record["status"] == "error"} == {
        '{"type": "CrashError", "message": "the process that reads it dies of it: it was tried again alone"}'
    }
    assert [record["path"] for record in records] == [
        f"{where}/{place:03}{'-crash' * (place == 20)}.jpg"
        for where in ("crash", "crash.tar/crash")
        for place in range(40)
    ]
    assert done.status == 1
    assert told(done.err)[-1] == "hiera: 78 labelled, 2 failed, T"


@pytest.mark.parametrize("output", ["driver.jsonl", "driver/"])
def test_what_a_killed_run_had_done_is_gone_on_with(cluster: Cluster, expected: list[str], output: str) -> None:
    running, _ = at_the_gate(cluster, output)
    kill(running)
    assert ended(running).status in (-signal.SIGKILL, 128 + signal.SIGKILL)
    cluster.open_gate()
    done = cluster.hiera("classify", "many", *JSONL, "-o", output, "--resume", "--ray", "auto")
    assert done.status == 0
    end = re.fullmatch(rf"hiera: (\d+) labelled, (\d+) done before, T → {output}", told(done.err)[-1])
    assert end
    assert int(end[1]) + int(end[2]) == COUNT
    assert int(end[2]) > 0
    assert sorted(records_in(cluster, output)) == expected


def test_ctrl_c_keeps_what_was_done(cluster: Cluster, expected: list[str]) -> None:
    running, _ = at_the_gate(cluster, "c.jsonl")
    kill(running, signal.SIGINT)
    assert running.stderr
    lines = [running.stderr.readline().decode() for _ in range(3)]
    assert lines[2] == "hiera: finishing what is running; again to stop now\n"
    cluster.open_gate()
    done = ended(running)
    assert done.status == 130
    end = re.fullmatch(
        r"hiera: interrupted: (\d+) labelled, T; what was done is in c\.jsonl\.part, --resume goes on from there",
        "\n".join(told(done.err)),
    )
    assert end
    assert 0 < int(end[1]) < COUNT
    done = cluster.hiera("classify", "many", *JSONL, "-o", "c.jsonl", "--resume", "--ray", "auto")
    assert (done.status, told(done.err)[2:]) == (
        0,
        [f"hiera: {COUNT - int(end[1])} labelled, {end[1]} done before, T → c.jsonl"],
    )
    assert records_in(cluster, "c.jsonl") == expected


def test_workers_that_never_get_as_far_as_their_model_end_the_run(cluster: Cluster) -> None:
    cluster.dying.touch()
    try:
        done = cluster.hiera("classify", "many", *JSONL, "--ray", "auto")
    finally:
        cluster.dying.unlink()
    assert (done.status, done.out) == (2, "")
    died = f"the worker on the node {HOST} died before it had its model"
    assert told(done.err) == [f"hiera: a node is left out (NODE): {died}", f"hiera: error: {died}"]


# ---- others on the same cluster


def test_a_run_waits_for_another_one_and_says_so(cluster: Cluster, expected: list[str]) -> None:
    first, _ = at_the_gate(cluster, "first.jsonl")
    second = cluster.start_hiera("classify", "many/000.jpg", *JSONL, "--ray", "auto")
    assert second.stderr
    assert second.stderr.readline() == b"hiera: no core of the cluster is free: waiting for one\n"
    third = cluster.start_hiera("classify", "many/000.jpg", *JSONL, "--ray", "auto")
    assert third.stderr
    assert third.stderr.readline() == b"hiera: no core of the cluster is free: waiting for one\n"
    kill(third, signal.SIGINT)
    done = ended(third)
    assert (done.status, done.out, told(done.err)) == (130, "", ["hiera: interrupted: 0 labelled, T"])
    cluster.open_gate()
    assert ended(first).status == 0
    done = ended(second)
    assert (done.status, done.out.splitlines()) == (0, expected[:1])
    assert records_in(cluster, "first.jsonl") == expected


def test_what_the_cluster_has_not_is_told(cluster: Cluster) -> None:
    done = cluster.hiera("classify", "many", "--device", "cuda", "--ray", "auto")
    assert done == Ended(
        2,
        "",
        "hiera: error: no node of the cluster has a GPU for cuda\n"
        "  What its nodes were started with: nodes 2, cores 2, GPUs 0.\n",
    )


# ---- storage elsewhere


@contextmanager
def bucket(cluster: Cluster, pictures: str) -> Iterator[None]:
    """A server of buckets, with a folder of the cluster's in one called box."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    # What it says of each request would fill a pipe that nobody reads.
    serve = f'exec "$0" -m moto.server -H 127.0.0.1 -p {BUCKET.rpartition(":")[2]} > /dev/null 2>&1'
    server = cluster.start("bash", "-c", serve, sys.executable)
    fill = (
        "import s3fs, time\n"
        "for _ in range(200):\n"
        "    try: s3fs.S3FileSystem(skip_instance_cache=True).mkdir('box'); break\n"
        "    except Exception: time.sleep(0.1)\n"
        f"s3fs.S3FileSystem(skip_instance_cache=True).put('{pictures}', 'box/{pictures}', recursive=True)"
    )
    try:
        filled = cluster.run(sys.executable, "-c", fill)
        assert filled.status == 0, filled.err
        yield
    finally:
        kill(server)


def test_pictures_and_parts_in_a_bucket(cluster: Cluster) -> None:
    look = (
        "import s3fs; s = s3fs.S3FileSystem()\n"
        "for name in sorted(s.glob('box/out/part-*.jsonl')): print(s.cat(name).decode(), end='')\n"
        "import sys; print(*sorted(s.ls('box/out')), file=sys.stderr)"
    )
    with bucket(cluster, "many"):
        options = (*JSONL, "-o", "s3://box/out/", "--ray", "auto")
        done = cluster.hiera("classify", "s3://box/many", "s3://box/gone.jpg", *options)
        assert (done.status, done.out) == (1, "")
        assert told(done.err)[-1] == f"hiera: {COUNT} labelled, 1 failed, T → s3://box/out/"
        cluster.run(
            sys.executable,
            "-c",
            "import s3fs; s3fs.S3FileSystem().pipe('box/many/x.jpg', open('many/000.jpg', 'rb').read())",
        )
        done = cluster.hiera("classify", "s3://box/many", "s3://box/gone.jpg", *options, "--resume")
        assert told(done.err)[-1] == f"hiera: 1 labelled, 1 failed, {COUNT} done before, T → s3://box/out/"
        found = cluster.run(sys.executable, "-c", look)
        records = [json.loads(line) for line in found.out.splitlines()]
        names = [*(f"s3://box/{path.relative_to(cluster.folder)}" for path in cluster.folder.glob("many/*"))]
        assert sorted((record["path"], record["status"]) for record in records) == sorted(
            [*((name, "ok") for name in names), ("s3://box/many/x.jpg", "ok"), ("s3://box/gone.jpg", "error")]
        )
        assert "box/out/_manifest.json" in found.err


@pytest.mark.parametrize("inputs", ["prefix", "list", "parts"])
def test_a_node_without_credentials_is_left_out(own: Cluster, inputs: str) -> None:
    for number in range(200):
        shutil.copy(SAMPLES / "cat.jpg", own.folder / "seen" / f"{number:03}{'-gate' * (number % 32 == 0)}.jpg")
    own.environment |= {"AWS_ENDPOINT_URL": BUCKET, "AWS_EC2_METADATA_DISABLED": "true"}
    own.start_head(cores=0)
    own.start_node()
    own.environment |= CREDENTIALS
    own.start_node("127.0.0.3")
    with bucket(own, "seen"):
        names = [f"s3://box/{path.relative_to(own.folder)}" for path in sorted(own.folder.glob("seen/*"))]
        (own.folder / "list").write_text("".join(f"{name}\n" for name in names))
        given, why = {
            "prefix": (["s3://box/seen"], r"s3://box/seen, which this machine does \(no credentials .*\)"),
            "list": (["--files-from", "list"], r"s3://box/seen/\S+, which this machine does \(no credentials .*\)"),
            "parts": (["seen", "-o", "s3://box/out/"], r"s3://box/out/, into which parts are to go \(no cred.*\)"),
        }[inputs]
        own.close_gate()  # or all may be done before the one that lacks them is there
        running = own.start_hiera("classify", *given, *JSONL, "--ray", "auto")
        assert running.stderr
        left_out = re.compile(rf"hiera: a node is left out \({HOST}, 127.0.0.2\): it does not see {why}\n".encode())
        while not left_out.fullmatch(line := running.stderr.readline()):
            assert line, ended(running)
        own.open_gate()
        done = ended(running)
        assert done.status == 0
        if inputs != "parts":
            assert [json.loads(line)["path"] for line in done.out.splitlines()] == names
        assert told(done.err)[-1].startswith(f"hiera: {len(names)} labelled, T")


# ---- a cluster that starts with the run, and ends with it


def test_a_local_cluster_leaves_nothing_behind(one_node: Cluster, alone: Ended, urls: list[str]) -> None:
    before = set(one_node.processes(""))
    done = one_node.hiera("classify", "odd/a b.jpg", *JSONL, "--ray", "local")
    assert (done.status, done.out) == (0, next(line for line in alone.out.splitlines(True) if "a b.jpg" in line))
    cores = len(os.sched_getaffinity(0))
    assert told(done.err) == [
        f"hiera: demo on cpu ({cores} thread{'s' * (cores != 1)}), fp32, on 1 node of a Ray cluster",
        DEMO,
    ]
    one_node.close_gate()
    path = f"{one_node.folder / 'site'}:{ROOT}"
    running = one_node.start_hiera("classify", "many", *JSONL, "--ray", "local", env={"PYTHONPATH": path})
    wait_for(lambda: len(os.listdir(one_node.gate)) > 1)
    kill(running, signal.SIGINT)
    assert running.stderr
    while b"finishing" not in running.stderr.readline():
        assert running.poll() is None
    one_node.open_gate()
    done = ended(running)
    assert done.status == 130
    assert 0 < len(done.out.splitlines()) < COUNT
    wait_for(lambda: set(one_node.processes("")) <= before)
    assert os.listdir(one_node.folder / "home") == []


# ---- nodes that lack something


def test_nodes_that_lack_something_are_left_out_and_told_of(own: Cluster) -> None:
    classify = ("classify", "seen/cat.jpg", "-k1", "-f", "plain", "--no-progress", "--ray", "auto")
    own.start_head(cores=0)
    none = own.folder / "none"  # an empty folder would let another copy be found that is installed
    none.mkdir()
    (none / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'hiera_cli'\")")
    own.start_node("127.0.0.2", before=f"mount --bind {none} {ROOT}/hiera_cli")
    done = own.hiera(*classify)
    assert done == Ended(
        2,
        "",
        f"hiera: error: the node {HOST} does not have this program\n"
        "  Install the same version there: pip install hiera-cli. Or leave that to this machine: --ship.\n",
    )
    done = own.hiera(*classify, "--ship")
    assert (done.status, done.out) == (0, "seen/cat.jpg\t0.9921\ttabby, tabby cat\n")
    assert told(done.err) == [ONE, DEMO]

    other = own.folder / "other.py"
    other.write_text((ROOT / "hiera_cli" / "__init__.py").read_text().replace(f'"{__version__}"', '"0.0.7"'))
    own.start_node("127.0.0.3", before=f"mount --bind {other} {ROOT}/hiera_cli/__init__.py")
    own.start_node("127.0.0.4", before="mount -t tmpfs none seen")
    own.start_node("127.0.0.5")
    done = own.hiera(*classify)
    assert (done.status, done.out) == (0, "seen/cat.jpg\t0.9921\ttabby, tabby cat\n")
    assert set(done.err.splitlines()) >= {
        f"hiera: a node is left out ({HOST}, {address}): it {why}"
        for address, why in (
            ("127.0.0.3", f"has version 0.0.7 of this program, this machine {__version__}"),
            ("127.0.0.4", "does not see seen/cat.jpg, which this machine does"),
        )
    }


# ---- the head


def test_a_cluster_with_a_token_and_a_head_that_goes(own: Cluster) -> None:
    token, other = "a" * 64, "b" * 64
    own.start_head(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    classify = ("classify", "seen", *JSONL, "--ray", f"{HEAD}:{PORT}")
    way_on = (
        "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to that of the cluster, which is in ~/.ray/auth_token of its head."
    )
    # Both at once: Ray asks again and again for twenty seconds.
    with_another = own.start_hiera(*classify, env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": other})
    with_none = own.start_hiera(*classify)
    done = ended(with_another)
    waits = f"hiera: waiting for the cluster ({HEAD}:{PORT}) to let this machine in\n"
    not_this = f"hiera: error: the cluster at {HEAD}:{PORT} does not take this token\n  {way_on}\n"
    assert done == Ended(2, "", waits + not_this)
    done = ended(with_none)
    refused = f"{HEAD}:{PORT} does not let this machine in: Failed to connect to Ray cluster at {HEAD}:{PORT}"
    asked = "Is it the head of a Ray cluster? If it is, and has a token:"
    assert done == Ended(2, "", f"{waits}hiera: error: {refused}\n  {asked} {way_on}\n")

    shutil.copy(SAMPLES / "cat.jpg", own.folder / "seen" / "gate.jpg")
    own.close_gate()
    running = own.start_hiera(*classify, env={"RAY_AUTH_TOKEN": token})
    own.wait_at_gate(running, own.raylet_of(HEAD))
    own.kill("/gcs_server ")
    began = time.monotonic()
    done = ended(running)
    assert time.monotonic() - began < 30
    assert done.status == 2
    assert done.err.splitlines()[-2:] == [
        f"hiera: error: the head of the cluster has gone: no Ray cluster answers at {HEAD}:{PORT}: Connection refused",
        "  What was done is kept. Of jsonl, and of a folder of parts, --resume goes on from there.",
    ]


def working_on_another_node(own: Cluster) -> subprocess.Popen[bytes]:
    """A run whose only worker, which is not on the head, waits at the gate."""
    own.start_head(cores=0)
    own.start_node()
    shutil.copy(SAMPLES / "cat.jpg", own.folder / "seen" / "gate.jpg")
    own.close_gate()
    running = own.start_hiera("classify", "seen", *JSONL, "--ray", "auto")
    own.wait_at_gate(running, own.raylet_of(SECOND))
    return running


def test_a_run_that_waits_for_a_core_is_told_that_the_head_has_gone(own: Cluster) -> None:
    running = working_on_another_node(own)
    waiting = own.start_hiera("classify", "seen", *JSONL, "--ray", "auto")
    assert waiting.stderr
    assert waiting.stderr.readline() == b"hiera: no core of the cluster is free: waiting for one\n"
    own.kill("/gcs_server ")
    began = time.monotonic()
    for process in (waiting, running):
        done = ended(process)
        assert done.status == 2
        assert f"hiera: error: the head of the cluster has gone: no Ray cluster answers at {HEAD}:{PORT}" in done.err
    assert time.monotonic() - began < 30


def test_without_ray_on_this_machine_a_run_ends(own: Cluster) -> None:
    running = working_on_another_node(own)
    own.kill(f"--node_ip_address={HEAD} ")
    began = time.monotonic()
    done = ended(running)
    assert time.monotonic() - began < 30
    assert done.status == 2
    assert done.err.splitlines()[-2:] == [
        "hiera: error: Ray on this machine has gone, by which it was in the cluster",
        "  What was done is kept. Of jsonl, and of a folder of parts, --resume goes on from there.",
    ]
