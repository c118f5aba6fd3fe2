"""The benchmark of `.ewz` runs on one artifact and says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compression" / "ewz.py"


def test_it_measures_an_artifact(tmp_path: Path, assets: Path) -> None:
    record = tmp_path / "ewz.json"
    arguments = ["--assets", assets, "--work", tmp_path, "--json", record, "--only", "resnet8_int8"]
    ran = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr  # it holds no claim on speed: the file is small
    found = json.loads(record.read_text())
    (row,) = found["rows"]
    assert row["ewz_bytes"] < min(row["zstd_bytes"], row["xz_bytes"]) < row["disk_bytes"]
    assert row["coded_bytes"] < 1.01 * row["bound_bytes"]
    assert row["decode_mb_s"] > 0
