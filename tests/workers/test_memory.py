"""The memory and the members of a process tree, of real processes."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from edgewright.workers import memory

PARENT_OF_ONE = """
import subprocess, sys
block = bytearray(b"x") * (60 << 20)
inner = "import time; block = bytearray(b'x') * (40 << 20); print('ready', flush=True); time.sleep(1000)"
subprocess.run([sys.executable, "-c", inner])
"""


@pytest.fixture
def tree() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT_OF_ONE], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_counts_the_whole_tree(tree: subprocess.Popen[str]) -> None:
    (child,) = psutil.Process(tree.pid).children(recursive=True)
    try:
        assert sorted(memory.tree_of(tree.pid)) == sorted([tree.pid, child.pid])
        resident = memory.resident_bytes(tree.pid)
        by_psutil = child.memory_info().rss + psutil.Process(tree.pid).memory_info().rss
        assert 100 << 20 < resident < 200 << 20
        assert abs(resident - by_psutil) < 2 << 20
        assert sorted(memory._tree_by_psutil(tree.pid)) == sorted(memory.tree_of(tree.pid))
        assert abs(memory._resident_by_psutil(child.pid) - child.memory_info().rss) < 1 << 20
    finally:
        os.killpg(tree.pid, 9)
        tree.communicate()
    assert memory.tree_of(tree.pid) == ()
    assert memory.resident_bytes(tree.pid) == 0
