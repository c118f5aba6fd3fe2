"""The commands of docs/npus.md run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.workers import environments

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.toolchain("torch", "litert_torch", "ai_edge_litert")
def test_the_commands_run(repo_root: Path, assets: Path, tmp_path: Path) -> None:
    for name in ("tflm", "vela"):
        if not environments.is_installed(name):
            pytest.skip(f"needs a toolchain; run: edgewright toolchain install {name}")
    models = assets / "models"
    shutil.copy(models / "mlperf-tiny/kws_dscnn_int8.tflite", tmp_path / "keyword.tflite")
    shutil.copy(
        models / "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite", tmp_path / "compiled_edgetpu.tflite"
    )
    scripts = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "EDGEWRIGHT_CACHE": str(tmp_path / "cache"),
    }
    text = (repo_root / "docs" / "npus.md").read_text(encoding="utf-8")
    commands = [line for block in _BLOCK.findall(text) for line in block.splitlines() if line.strip()]
    assert len(commands) >= 7
    said = {}
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[command] = done.stdout
    listed = said["ls keyword/artifacts/tflm-w8a8"].split()
    assert {"keyword_model.cc", "keyword_model.h", "keyword_resolver.h", "main.cc", "README.md"} <= set(
        listed
    )
    inspected = said["edgewright inspect compiled_edgetpu.tflite"]
    assert "chip beagle, runtime 12 or newer, 566,912 bytes of parameters" in inspected
