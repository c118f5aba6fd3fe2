"""However the parent ends, no child and no file stays: run for real, in parents of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edgewright.workers.process import start_child

Wait = Callable[[Callable[[], bool]], None]
IsGone = Callable[[int], bool]

ONE_WORKER = """
from edgewright.workers.pool import Worker
with Worker("interrupted") as worker:
    worker.call("operations_for_tests:hang", {"marker": MARKERS[0]})
"""
CAUGHT = """
import os
from edgewright.workers.pool import Worker
worker = Worker("goes on")
try:
    worker.call("operations_for_tests:hang", {"marker": MARKERS[0]})
except KeyboardInterrupt:
    assert worker.pid is None
    assert os.listdir(os.environ["TMPDIR"]) == []
    print(worker.call("operations_for_tests:count", {})["calls"])
"""
MANY_JOBS = """
from edgewright.workers.jobs import Job, map_jobs
jobs = [Job(key=marker, operation="operations_for_tests:hang", arguments={"marker": marker}) for marker in MARKERS]
map_jobs(jobs, max_workers=2)
"""
NEVER_CLOSED = """
from edgewright.workers.pool import Worker
worker = Worker("never closed")
print(worker.call("operations_for_tests:count", {})["pid"])
"""
FORKED = """
import os, sys
from edgewright.workers.pool import Worker
with Worker("kept") as worker:
    first = worker.call("operations_for_tests:count", {})
    if os.fork() == 0:
        sys.exit()  # runs what is registered for the exit, with a copy of the parent's workers
    os.wait()
    assert worker.call("operations_for_tests:count", {}) == {"calls": 2, "pid": first["pid"]}
"""

# As in tests/command_line.py: a background job starts with interrupts ignored.
_HEEDS_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def start_parent(
    program: str, tmp_path: Path, temporary_folder: Path
) -> tuple[subprocess.Popen[str], list[Path]]:
    """Start Python with `program`; return it, and the files in which two operations note their process ids."""
    markers = [tmp_path / "first", tmp_path / "second"]
    preamble = f"import sys; sys.path[:] = {sys.path!r}; MARKERS = {[str(marker) for marker in markers]!r}\n"
    parent = subprocess.Popen(
        [sys.executable, "-c", _HEEDS_INTERRUPTS + preamble + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary_folder)},
    )
    return parent, markers


@pytest.mark.parametrize(("program", "count"), [(ONE_WORKER, 1), (MANY_JOBS, 2)], ids=["worker", "jobs"])
def test_an_interrupt_leaves_nothing(
    program: str, count: int, tmp_path: Path, temporary_folder: Path, wait_until: Wait, is_gone: IsGone
) -> None:
    parent, markers = start_parent(program, tmp_path, temporary_folder)
    wait_until(lambda: all(marker.exists() for marker in markers[:count]) or parent.poll() is not None)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    _, errors = parent.communicate()
    assert "KeyboardInterrupt" in errors
    assert all(is_gone(int(marker.read_text())) for marker in markers[:count])
    assert list(temporary_folder.iterdir()) == []


def test_a_caught_interrupt_has_ended_the_child_and_the_worker_goes_on(
    tmp_path: Path, temporary_folder: Path, wait_until: Wait
) -> None:
    parent, markers = start_parent(CAUGHT, tmp_path, temporary_folder)
    wait_until(lambda: markers[0].exists() or parent.poll() is not None)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate() == ("1\n", "")


def test_a_killed_parent_takes_its_children_along(
    tmp_path: Path, temporary_folder: Path, wait_until: Wait, is_gone: IsGone
) -> None:
    """The control folders of a killed parent stay until a later parent sweeps them."""
    parent, markers = start_parent(MANY_JOBS, tmp_path, temporary_folder)
    wait_until(lambda: all(marker.exists() for marker in markers) or parent.poll() is not None)
    parent.kill()
    parent.communicate()
    for marker in markers:
        wait_until(partial(is_gone, int(marker.read_text())))
    folders = list(temporary_folder.iterdir())
    assert len(folders) == 2
    old_s = time.time() - 3600
    for folder in folders:
        os.utime(folder, (old_s, old_s))
    later, _ = start_parent(NEVER_CLOSED, tmp_path, temporary_folder)
    _, errors = later.communicate()
    assert errors == ""
    assert list(temporary_folder.iterdir()) == []


def test_a_folder_in_use_is_not_swept(tmp_path: Path, temporary_folder: Path) -> None:
    child = start_child({})
    old_s = time.time() - 3600
    os.utime(child.folder, (old_s, old_s))
    later, _ = start_parent(NEVER_CLOSED, tmp_path, temporary_folder)
    later.communicate()
    assert list(temporary_folder.iterdir()) == [Path(child.folder)]
    child.end()


def test_a_worker_that_is_never_closed_ends_with_the_program(
    tmp_path: Path, temporary_folder: Path, is_gone: IsGone
) -> None:
    parent, _ = start_parent(NEVER_CLOSED, tmp_path, temporary_folder)
    pid, errors = parent.communicate()
    assert errors == ""
    assert parent.returncode == 0
    assert is_gone(int(pid))
    assert list(temporary_folder.iterdir()) == []


def test_a_fork_of_the_parent_leaves_the_workers_alone(tmp_path: Path, temporary_folder: Path) -> None:
    parent, _ = start_parent(FORKED, tmp_path, temporary_folder)
    _, errors = parent.communicate()
    assert errors == ""
    assert parent.returncode == 0
