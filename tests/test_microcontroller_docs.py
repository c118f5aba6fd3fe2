"""The commands, the C program and the Python example of docs/microcontrollers.md run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.microcontrollers.boards import ALL
from edgewright.microcontrollers.qemu import DEVICES

_BLOCK = re.compile(r"^```(sh|c|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LABELS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown")


def _page(repo_root: Path) -> str:
    return (repo_root / "docs" / "microcontrollers.md").read_text(encoding="utf-8")


def _block(repo_root: Path, language: str) -> str:
    (found,) = [body for kind, body in _BLOCK.findall(_page(repo_root)) if kind == language]
    return str(found)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.slow
@pytest.mark.toolchain("ai_edge_litert")
def test_the_examples_run_in_order(repo_root: Path, assets: Path, tmp_path: Path) -> None:
    missing = [name for name, device in DEVICES.items() if device.tools.missing]
    if missing or shutil.which("gcc") is None or shutil.which("make") is None:
        pytest.skip("needs gcc, make, cross compilers and QEMU; see edgewright doctor")
    shutil.copy(assets / "models" / "mlperf-tiny" / "kws_dscnn_int8.tflite", tmp_path / "keyword.tflite")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    commands = [line for line in _block(repo_root, "sh").splitlines() if line.strip()]
    assert len(commands) == 3
    said = [_run(["bash", "-c", command], tmp_path).stdout for command in commands]
    assert "20 runs, 0 failures" in said[1]
    assert "STM32 Nucleo L4R5ZI" in said[2] and "Alif Ensemble E7" in said[2]

    folder = tmp_path / "out" / "artifacts" / "c-w8a8"
    (tmp_path / "main.c").write_text(_block(repo_root, "c"), encoding="utf-8")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", str(folder)]
    _run(["gcc", *flags, "main.c", str(folder / "keyword.c"), "-o", "main"], tmp_path)
    name, value = _run(["./main"], tmp_path).stdout.split(": ")
    assert name in LABELS and 0 < float(value) <= 1

    printed = _run([sys.executable, "-c", _block(repo_root, "python")], tmp_path).stdout
    assert printed.rstrip().endswith("ok")
    assert "Raspberry Pi Pico 2 fits" in printed and "STM32 Nucleo F103RB" in printed


def test_the_page_counts_the_boards(repo_root: Path) -> None:
    assert f"which of {len(ALL)} well-known boards" in _page(repo_root)
