"""The benchmarks of C models run on their smallest model and say where it stands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.microcontrollers import oracle
from edgewright.microcontrollers.qemu import DEVICES

pytestmark = [pytest.mark.slow, pytest.mark.toolchain("ai_edge_litert")]


def _run(
    script: str, repo_root: Path, record: Path, assets: Path, *arguments: str
) -> tuple[int, str, list[dict]]:  # type: ignore[type-arg]
    if not oracle.is_installed():
        pytest.skip("needs the interpreter; run: edgewright toolchain install tflm")
    path = repo_root / "benchmarks" / "microcontrollers" / script
    command = [sys.executable, str(path), "--assets", str(assets), "--json", str(record), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert record.is_file(), done.stdout + done.stderr
    found = json.loads(record.read_text(encoding="utf-8"))
    return done.returncode, done.stdout, found if isinstance(found, list) else found["rows"]


def test_exactness_counts_the_runs_and_the_arena(repo_root: Path, assets: Path, tmp_path: Path) -> None:
    code, said, rows = _run(
        "exactness.py", repo_root, tmp_path / "a.json", assets, "--runs", "12", "--only", "hello_world"
    )
    assert code == 0 and "not exact: none" in said
    assert [(row["exact"], row["runs"]) for row in rows] == [(12, 12)]
    assert rows[0]["arena_bytes"] <= rows[0]["activation_bytes"] == 32


def test_devices_stand_beside_their_limits(repo_root: Path, assets: Path, tmp_path: Path) -> None:
    missing = [name for name, device in DEVICES.items() if device.tools.missing]
    if missing:
        pytest.skip(f"needs the tools of {', '.join(missing)}; see edgewright doctor")
    code, said, rows = _run("devices.py", repo_root, tmp_path / "d.json", assets, "--only", "hello_world")
    assert code == 0 and f"bit-exact on 20 inputs each: {len(DEVICES)} of {len(DEVICES)}" in said
    assert [row["device"] for row in rows] == list(DEVICES)
    for row in rows:
        assert row["instructions_per_mac"] == row["instructions"] / 288
        assert row["is_within_flash"] and row["flash_bytes"] < row["flash_limit_bytes"]
    # So few MACs cannot pay for the calls around them: the limits are broken, and the table says so.
    judged = {row["device"]: row["is_within_per_mac"] for row in rows if row["is_within_per_mac"] is not None}
    assert judged == {"cortex-m4": False, "cortex-m7": False, "cortex-m55": False}
    assert "cortex-m55, at most 0.6 instructions per MAC: none; over: hello_world" in said


def test_accuracy_is_that_of_the_interpreter(repo_root: Path, assets: Path, tmp_path: Path) -> None:
    code, _, rows = _run("accuracy.py", repo_root, tmp_path / "a.json", assets)
    assert code == 0
    assert {row["name"] for row in rows} >= {"kws", "digits"}
    for row in rows:
        assert row["samples"] >= 400
        assert row["accuracy"]["C"] == row["accuracy"]["LiteRT Micro"] > 0.88
