"""The sweep on emulated cores: layers with weights, computed by the DSP extension and by Helium, are exact."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.microcontrollers import oracle
from edgewright.microcontrollers.qemu import DEVICES

pytestmark = [pytest.mark.toolchain("ai_edge_litert"), pytest.mark.slow]
BOARDS = ("cortex-m4", "cortex-m55")


def test_layers_with_weights_are_exact_on_cores_with_fast_paths(repo_root: Path, tmp_path: Path) -> None:
    tools = {tool for board in BOARDS for tool in (DEVICES[board].compiler, DEVICES[board].emulator)}
    if not oracle.is_installed() or any(shutil.which(tool) is None for tool in tools):
        pytest.skip(f"needs {', '.join(sorted(tools))} and the toolchain tflm")
    record = tmp_path / "record.json"
    script = repo_root / "benchmarks" / "microcontrollers" / "cores.py"
    options = ["--each", "3", "--seed", "12", "--boards", ",".join(BOARDS), "--json", str(record)]
    done = subprocess.run(
        [sys.executable, str(script), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(record.read_text())["rows"]
    assert len(rows) == 2 * 3 * 4
    assert sum(row["verdict"] == "exact" and row["is_fast"] == "yes" for row in rows) >= 12
