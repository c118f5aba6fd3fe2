"""The comparison with the runtimes' own tools runs, and both sides measure the same model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "vendor_tools.py"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["litert", "openvino"])
def test_both_sides_give_a_median(assets: Path, tmp_path: Path, runtime: str) -> None:
    record = tmp_path / "tools.json"
    ran = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--assets", str(assets), "--json", str(record)),
            *("--runs", "2", "--models", "kws_dscnn_int8", "--runtimes", runtime),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr
    (row,) = json.loads(record.read_text())["rows"]
    assert row["name"] == f"{runtime} kws_dscnn_int8"
    assert [len(row[side]) for side in ("ours", "inside", "theirs")] == [2, 2, 2]
    assert all(us > 0 for side in ("ours", "inside", "theirs") for us in row[side])
    # Not a figure of speed: another model, or times in another unit, would be off by far more.
    assert 0.2 < row["ratio"] < 5
