"""The guide's commands and its Python example run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(repo_root: Path, language: str) -> list[str]:
    text = (repo_root / "docs" / "guide.md").read_text(encoding="utf-8")
    return [body for kind, body in _BLOCK.findall(text) if kind == language]


def _environment(tmp_path: Path) -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "EDGEWRIGHT_CACHE": str(tmp_path / "cache"),
    }


@pytest.mark.slow
@pytest.mark.toolchain("torch", "litert_torch", "onnxruntime")
def test_the_commands_of_the_guide_run_in_order(repo_root: Path, tmp_path: Path) -> None:
    commands = [line for block in _blocks(repo_root, "sh") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 8
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=_environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.toolchain("torch", "onnxruntime")
def test_the_python_example_of_the_guide_runs(repo_root: Path, tmp_path: Path) -> None:
    (example,) = _blocks(repo_root, "python")
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("ok")
