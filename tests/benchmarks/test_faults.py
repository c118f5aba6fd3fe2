"""One fault of benchmarks/faults.py, and one model of benchmarks/real_models.py, end to end."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.toolchain("torch", "onnxruntime")
def test_a_fault_is_caught_and_counted(repo_root: Path) -> None:
    done = _run(repo_root, "faults.py", "--only", "another training run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 faults caught" in done.stdout


@pytest.mark.slow
@pytest.mark.toolchain("ai_edge_litert", "openvino")
def test_a_real_model_agrees_on_every_runtime(repo_root: Path, assets: Path) -> None:
    done = _run(repo_root, "real_models.py", "--only", "keypoint", "--assets", str(assets))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 targets that can be made here, 8 ok, 0 not" in done.stdout


def _run(repo_root: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repo_root / "benchmarks" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
