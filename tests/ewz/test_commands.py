"""The commands pack, unpack and inspect on `.ewz` files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.small_models import write_onnx

from edgewright.cli.ending import run_to_exit_code
from edgewright.cli.main import app
from edgewright.core.errors import IntegrityError
from edgewright.single import describe

pytestmark = pytest.mark.toolchain("onnx")


def test_pack_inspect_unpack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_onnx(tmp_path / "model.onnx")
    packed = tmp_path / "model.onnx.ewz"
    assert run_to_exit_code(app, ["pack", str(model), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["packed_bytes"] == packed.stat().st_size < record["source_bytes"] == model.stat().st_size
    assert record["packed_bytes"] == sum(
        record[name] for name in ("header_bytes", "control_bytes", "rest_bytes", "weight_bytes")
    )
    assert run_to_exit_code(app, ["pack", str(model)]) == 2
    assert "exists already" in capsys.readouterr().err

    found, plain = describe(str(packed)), describe(str(model))
    assert found.parameters == plain.parameters and found.sha256 == plain.sha256
    assert found.notes[0].startswith(f"packed: download {record['packed_bytes']:,} bytes, disk ")

    assert run_to_exit_code(app, ["unpack", str(packed), "--out", str(tmp_path / "out")]) == 0
    assert "every digest right" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.onnx").read_bytes() == model.read_bytes()
    assert run_to_exit_code(app, ["unpack", str(packed), "--out", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_errors_have_their_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.ewz"
    bad.write_bytes(b"EWZ\x01\x01")
    assert (
        run_to_exit_code(app, ["unpack", str(bad), "--out", str(tmp_path / "out")])
        == IntegrityError.exit_code
    )
    assert run_to_exit_code(app, ["inspect", str(bad)]) == IntegrityError.exit_code
    assert run_to_exit_code(app, ["pack", str(tmp_path / "nothing")]) == 2
    assert run_to_exit_code(app, ["unpack", str(bad), "--limit-mb", "-1"]) == 2
    capsys.readouterr()
