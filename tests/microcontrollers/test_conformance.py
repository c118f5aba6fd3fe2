"""A smoke of the conformance sweep and of the attack: models of every kind, none wrong; mutants, none unclean."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.microcontrollers import oracle

pytestmark = pytest.mark.toolchain("ai_edge_litert")
FEW = "conv_2d,add,prelu,batch_matmul,svdf,int16_softmax,float_resize_bilinear,graph,int16_graph"


def _run(script: str, repo_root: Path, tmp_path: Path, *options: str) -> list[dict[str, str]]:
    if not oracle.is_installed() or shutil.which("gcc") is None:
        pytest.skip("needs gcc and the interpreter; run: edgewright toolchain install tflm")
    record = tmp_path / "record.json"
    path = repo_root / "benchmarks" / "microcontrollers" / script
    command = [sys.executable, str(path), "--json", str(record), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows: list[dict[str, str]] = json.loads(record.read_text())["rows"]
    return rows


def test_a_few_kinds_are_exact(repo_root: Path, tmp_path: Path) -> None:
    rows = _run("conformance.py", repo_root, tmp_path, "--each", "3", "--seed", "5", "--only", FEW)
    assert len(rows) == 3 * len(FEW.split(","))
    assert {row["verdict"] for row in rows} <= {"exact", "refused"}
    assert sum(row["verdict"] == "exact" for row in rows) >= 20


@pytest.mark.slow
def test_one_model_of_every_kind_is_exact_and_clean(repo_root: Path, tmp_path: Path) -> None:
    rows = _run("conformance.py", repo_root, tmp_path, "--each", "1", "--seed", "7", "--sanitize")
    assert len(rows) >= 150
    assert sum(row["verdict"] in ("exact", "close") for row in rows) >= 0.9 * len(rows)
    assert not [row for row in rows if row["verdict"] == "wrong"]


@pytest.mark.slow
def test_mutants_are_refused_or_clean(repo_root: Path, assets: Path, tmp_path: Path) -> None:
    options = ("--each", "25", "--only", "hello_world", "--compare", "--assets", str(assets))
    rows = _run("hostile.py", repo_root, tmp_path, *options)
    verdicts = [row["verdict"] for row in rows]
    assert len(rows) >= 40 and verdicts.count("refused") >= 20 and verdicts.count("exact") >= 3
    assert set(verdicts) <= {"refused", "clean", "exact", "too large"}
