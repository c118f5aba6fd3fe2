"""The benchmark of ONNX conformance, on a handful of its tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.toolchain("onnx", "onnxruntime", "openvino")
def test_right_and_refused_are_told_apart(repo_root: Path, tmp_path: Path) -> None:
    script = repo_root / "benchmarks" / "onnx_conformance.py"
    options = "--backend onnxruntime --backend openvino --workers 1 --verbose".split()
    match = "test_(abs|strnorm_model_nostopwords_nochangecase)$"
    done = subprocess.run(
        [sys.executable, str(script), "--match", match, *options, "--json", str(tmp_path / "c.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "StringNormalizer" in done.stdout
    record = json.loads((tmp_path / "c.json").read_text())
    assert "openvino" in json.dumps(record)
    assert done.stdout.count("1 right") >= 2
