"""A smoke of the conformance sweep: one model of every kind, under the sanitizers, none wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.microcontrollers import oracle


@pytest.mark.slow
@pytest.mark.toolchain("ai_edge_litert")
def test_one_model_of_every_kind_is_exact(repo_root: Path, tmp_path: Path) -> None:
    if not oracle.is_installed() or shutil.which("gcc") is None:
        pytest.skip("needs gcc and the interpreter; run: edgewright toolchain install tflm")
    record = tmp_path / "sweep.json"
    script = repo_root / "benchmarks" / "microcontrollers" / "conformance.py"
    command = [sys.executable, str(script), "--each", "1", "--seed", "7", "--sanitize", "--json", str(record)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(record.read_text())["rows"]
    assert len(rows) >= 40
    assert sum(row["verdict"] == "exact" for row in rows) >= 0.9 * len(rows)
    assert not [row for row in rows if row["verdict"] == "wrong"]
