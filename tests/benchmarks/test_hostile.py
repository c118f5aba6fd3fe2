"""Hostile input: a few mutants of every preset run, and a sentence that says too much is bad."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "processing"


def run(*options: object, record: Path) -> dict[str, dict[str, dict[str, int]]]:
    command = [sys.executable, FOLDER / "hostile.py", "--json", record, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith("HOLDS\n"), done.stdout + done.stderr
    found: dict[str, dict[str, dict[str, int]]] = json.loads(record.read_text())
    return found


def test_mutants_are_refused_or_run(tmp_path: Path) -> None:
    found = run("--only", "mutants", "--mutants", 6, record=tmp_path / "record.json")["kinds"]["mutants"]
    assert found["right"] > 0 and found["refused"] > 0 and found["right"] + found["refused"] == 16 * 6


@pytest.mark.slow
@pytest.mark.toolchain("onnx", "onnxruntime")
def test_the_rest_holds(assets: Path, tmp_path: Path) -> None:
    only = [part for name in ("files", "specifications", "outputs") for part in ("--only", name)]
    found = run("--assets", assets, *only, record=tmp_path / "record.json")["kinds"]
    assert found["cut off jpg"]["refused"] and found["EXIF 1..8"]["right"] == 24
