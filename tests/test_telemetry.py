"""No telemetry: a runtime that reports to its maker by default is told not to before it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.colour_model import write_colour_model


def test_onnxruntime_keeps_no_identifier_and_no_events(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = write_colour_model(tmp_path / "colours.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = f"import edgewright, onnxruntime; onnxruntime.InferenceSession({str(model)!r})"
    # What would silence it by itself, and what the user may have said, are taken out.
    silencing = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in silencing} | {"HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], env=env, cwd=home, check=True)
    assert not list(home.rglob("*")), "it left a device's identifier or events that wait to be sent"
