"""The benchmark of explain runs, and tells foretold from real outcomes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.toolchain("onnx", "onnxruntime", "openvino")
def test_a_few_operators_go_as_foretold(repo_root: Path, tmp_path: Path) -> None:
    record = tmp_path / "explain.json"
    command = [
        sys.executable,
        str(repo_root / "benchmarks" / "explain.py"),
        "--kinds",
        "node",
        "--nodes",
        "6",
    ]
    done = subprocess.run(
        [*command, "--to", "onnxruntime,openvino", "--json", str(record)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    rows = json.loads(record.read_text())["rows"]
    assert len(rows) >= 8
    assert sum(foretold == real for *_, foretold, real, _ in rows) / len(rows) >= 0.8
    assert "small models, held out" in done.stdout
