"""What `doctor` prints: runtimes of one family share a row, and JSON keeps them apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgewright import bundle_tools
from edgewright.cli import show
from edgewright.doctor import Check, Diagnosis


def test_a_family_that_found_the_same_is_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    family = [
        Check(name=f"npu-u{size}", is_ok=True, found="tool 1.0", fix="get it") for size in (32, 64, 128, 256)
    ]
    others = [Check(name=name, is_ok=True, found="none") for name in ("apple", "pear", "plum", "quince")]
    found = Diagnosis(checks=(*family, *others), host={"processor": "a", "cores": 1})
    show.diagnosis(found, as_json=False)
    printed = capsys.readouterr().out
    assert "npu-u* (4)" in printed and "npu-u64" not in printed
    assert all(check.name in printed for check in others), "they found the same, but are no family"
    show.diagnosis(found, as_json=True)
    assert [check["name"] for check in json.loads(capsys.readouterr().out)["checks"]][:2] == [
        "npu-u32",
        "npu-u64",
    ]
    changed = Diagnosis(
        checks=(*family[:3], Check(name="npu-u256", is_ok=False, found="broken")), host=found.host
    )
    show.diagnosis(changed, as_json=False)
    assert "npu-u64" in capsys.readouterr().out


def test_the_headers_of_onnx_runtime_are_found_by_their_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_tools, "_HEADERS", ())
    monkeypatch.setenv(bundle_tools.INCLUDE_VARIABLE, str(tmp_path))
    assert bundle_tools.find_headers() is None, "a folder without them"
    (tmp_path / "onnxruntime_cxx_api.h").touch()
    assert bundle_tools.find_headers() == tmp_path
