"""The benchmark of start-up runs, and `--help` imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "startup.py"


def test_help_imports_no_heavy_package(tmp_path: Path) -> None:
    record = tmp_path / "startup.json"
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "--runs", "2", "--json", str(record)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr  # the time itself is not this test's
    found = json.loads(record.read_text())
    assert found["heavy_imports"] == []
    assert {name: len(times) for name, times in found["times_ms"].items()} == {
        "python -c pass": 2,
        "import edgewright": 2,
        "edgewright --help": 2,
    }
