"""The benchmark of sources, on one small model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.toolchain("onnx", "onnxruntime", "openvino", "ai_edge_litert")
def test_a_tflite_source_reaches_three_runtimes(repo_root: Path, assets: Path, tmp_path: Path) -> None:
    script = repo_root / "benchmarks" / "sources.py"
    command = [sys.executable, script, "--only", "keypoint_classifier.tflite", "--assets", assets]
    done = subprocess.run(
        [*map(str, command), "--json", str(tmp_path / "sources.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 float rows: 3 within 0.0001" in done.stdout
    rows = json.loads((tmp_path / "sources.json").read_text())["rows"]
    assert [row["runtime"] for row in rows] == ["litert", "onnxruntime", "openvino"]
    assert all(0 < row["max_abs"] <= 1e-4 for row in rows)
