"""The vendors' own calls, the other side of the overhead, really do the demo's work."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright import sample

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_vendors_calls_run_every_target(tmp_path: Path) -> None:
    folder = Path(sample.__file__).parent
    printed = ""
    for runtime in ("litert", "onnxruntime", "openvino"):
        ran = subprocess.run(
            [sys.executable, str(SCRIPTS / "vendor_calls.py"), runtime, str(tmp_path), str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        printed += ran.stdout
    timed = re.findall(r"^(\w+ \w+): p50 [\d.]+ us of \d+$", printed, re.MULTILINE)
    assert sorted(timed) == sorted(
        f"{runtime} {precision}"
        for runtime in ("litert", "onnxruntime", "openvino")
        for precision in ("fp32", "fp16", "w8", "w8a8")
    )


def test_the_vendors_calls_know_nothing_of_edgewright() -> None:
    source = (SCRIPTS / "vendor_calls.py").read_text()
    assert not re.search(r"^\s*(import|from) edgewright", source, re.MULTILINE)
