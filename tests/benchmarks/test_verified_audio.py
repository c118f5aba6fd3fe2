"""The figures of sound: the ratio of signal to noise is that of its definition, and two parts of them run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "processing"


def test_the_ratio_in_decibels_by_hand() -> None:
    script = (
        "import sys, numpy as np; sys.path[:0] = sys.argv[1:]; from verified_audio import ratio_db\n"
        "clean = np.tile([1.0, -1.0, 1.0, -1.0], 100); noise = np.tile([1.0, 1.0, -1.0, -1.0], 100)\n"
        "print(ratio_db(clean, 3 * clean + 0.3 * noise + 7))"
    )
    done = subprocess.run([sys.executable, "-c", script, FOLDER], capture_output=True, text=True, check=True)
    # The noise is at right angles to the signal and a tenth of it; gain and offset do not count.
    assert float(done.stdout) == pytest.approx(20)


@pytest.mark.toolchain("ai_edge_litert", "onnxruntime")
def test_voices_and_words_come_out(tmp_path: Path, assets: Path) -> None:
    record = tmp_path / "figures.json"
    command = [sys.executable, FOLDER / "verified_audio.py", "--assets", assets, "--json", record]
    done = subprocess.run(
        [*command, "--only", "voices", "--only", "yes_or_no"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "HOLDS" in done.stdout
    figures = json.loads(record.read_text())["figures"]
    assert figures["voices: runs of 512 samples"] == 1875
    assert figures["voices: share at 0.5 or above"] == pytest.approx(0.774, abs=0.002)
