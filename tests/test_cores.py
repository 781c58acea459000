"""Processes that share a machine each take cores of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can't be chosen here")

# A process that takes cores, says which, and keeps them until its stdin ends.
TAKES = """
import os, sys
from hiera_cli.system.cores import take_cores
take_cores(int(sys.argv[1]))
print(*sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


def takes(count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TAKES, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def cores(process: subprocess.Popen[str]) -> set[int]:
    assert process.stdout is not None
    return set(map(int, process.stdout.readline().split()))


def test_each_of_two_processes_has_a_core_of_its_own_and_a_third_one_all_the_same(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the locks lie
    there = sorted(os.sched_getaffinity(0))
    if len(there) < 2:
        pytest.skip("there is one core")
    processes = []
    taken = []
    for _ in range(len(there) + 1):
        processes.append(takes(1))
        taken.append(cores(processes[-1]))
    assert all(len(each) == 1 for each in taken)
    assert set.union(*taken[: len(there)]) == set(there)
    for process in processes:
        process.communicate("")
    again = takes(1)
    assert cores(again) == {there[0]}  # what a process had is free when it has ended
    again.communicate("")


@pytest.mark.parametrize("count", [0, 10_000])
def test_none_or_more_than_there_are_changes_nothing(count: int) -> None:
    from hiera_cli.system.cores import take_cores

    before = os.sched_getaffinity(0)
    take_cores(count)
    assert os.sched_getaffinity(0) == before
