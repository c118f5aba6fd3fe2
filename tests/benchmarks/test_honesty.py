"""The benchmark of honesty: it runs, keeps its runs, and its slow-down is a real one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.contracts import LayerCost
from edgewright.core.tensors import Arrays, TensorSpec

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


class _Waiting:
    """A session whose every call takes 2 ms."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def run(self, inputs: Arrays) -> Arrays:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        return inputs

    def layers(self, inputs: Arrays) -> tuple[LayerCost, ...]:
        return ()

    def close(self) -> None:
        pass


def test_a_slowed_session_returns_the_same_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from slowed import SlowedSession

    slowed = SlowedSession(_Waiting(), 2.0)
    given = {"x": np.ones(3, np.float32)}
    start = time.perf_counter()
    assert slowed.run(given) is given
    assert time.perf_counter() - start >= 0.004


def test_it_runs_and_goes_on_where_it_stopped(assets: Path, tmp_path: Path) -> None:
    record = tmp_path / "honesty.json"
    command = [
        *(sys.executable, str(SCRIPTS / "honesty.py"), "--assets", str(assets), "--json", str(record)),
        *("--launches", "3", "--models", "mlperf-tiny/kws_dscnn_int8.tflite"),
    ]
    for count in (1, 2):
        ran = subprocess.run(
            [*command, "--comparisons", str(count)], capture_output=True, text=True, check=False
        )
        assert ran.returncode in (0, 1), ran.stderr  # what it finds on a busy machine is not this test's
        found = json.loads(record.read_text())
        assert len(found["runs"]) == count
    assert "going on after 1 kept runs" in ran.stdout
    assert {run["same"] for run in found["runs"]} <= {"no difference", "a faster", "b faster"}
    assert all(run["p50_ms"] > 0 for run in found["runs"])
    other = subprocess.run([*command, "--seed", "5"], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "holds runs with other settings" in other.stderr
