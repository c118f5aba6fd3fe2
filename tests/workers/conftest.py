"""Workers of the tests find their operations beside the tests, and leave their folders where they are looked for."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

OPERATIONS = Path(__file__).parent


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put control folders into a folder of the test, and check that none and no child is left in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.syspath_prepend(str(OPERATIONS))
    yield folder
    assert list(folder.iterdir()) == []
    assert [child.cmdline() for child in psutil.Process().children() if str(folder) in child.cmdline()] == []


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Return a function that waits until a condition holds; the timeout of the run ends a wait for ever."""

    def wait(condition: Callable[[], bool]) -> None:
        while not condition():
            time.sleep(0.01)

    return wait


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    """Return a function that tells whether a process has ended; one that nobody has reaped yet has ended too."""

    def gone(pid: int) -> bool:
        try:
            os.kill(pid, 0)
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return True

    return gone
