"""Hostile `.pt2` archives: what torch.export.load would run is refused, and is shown not to run."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright.core.errors import EdgewrightError, IntegrityError
from edgewright.sources.torch_archive import is_safe_expression

pytestmark = pytest.mark.toolchain("torch")
Members = dict[str, bytes]


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def _members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {info.filename.split("/", 1)[1]: archive.read(info) for info in archive.infolist()}


def _write(path: Path, members: Members, root: str = "tiny") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{root}/{name}", content)


def _evil_expression(members: Members, marker: Path) -> None:
    text = members["models/model.json"].decode()
    record = json.loads(text)
    found = [value for value in _strings(record) if value.startswith("Symbol(")]
    evil = f"__import__('os').system('touch {marker}') or {found[0]}"
    members["models/model.json"] = text.replace(json.dumps(found[0]), json.dumps(evil)).encode()


def _strings(record: object) -> list[str]:
    if isinstance(record, dict):
        return [text for value in record.values() for text in _strings(value)]
    if isinstance(record, list):
        return [text for value in record for text in _strings(value)]
    return [record] if isinstance(record, str) else []


def _evil_samples(members: Members, marker: Path) -> None:
    members["data/sample_inputs/model.pt"] = pickle.dumps(_Evil(marker))


def _evil_weight(members: Members, marker: Path) -> None:
    config = json.loads(members["data/weights/model_weights_config.json"])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    members[f"data/weights/{first['path_name']}"] = pickle.dumps(_Evil(marker))
    members["data/weights/model_weights_config.json"] = json.dumps(config).encode()


def _evil_constant(members: Members, marker: Path) -> None:
    config = json.loads(members["data/constants/model_constants_config.json"])
    next(iter(config["config"].values()))["path_name"] = "opaque_obj_0"
    members["data/constants/opaque_obj_0"] = pickle.dumps(_Evil(marker))
    members["data/constants/model_constants_config.json"] = json.dumps(config).encode()


def _legacy_weights(members: Members, marker: Path) -> None:
    members["data/weights/model.pt"] = pickle.dumps(_Evil(marker))


def _native_code(members: Members, marker: Path) -> None:
    members["data/aotinductor/model/model.so"] = b"\x7fELF"


def _evil_operator(members: Members, marker: Path) -> None:
    record = json.loads(members["models/model.json"])
    record["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"
    members["models/model.json"] = json.dumps(record).encode()


def _traversal(members: Members, marker: Path) -> None:
    members["../../escaped"] = b"x"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_evil_expression, "not arithmetic"),
        (_evil_samples, "more than tensors"),
        (_evil_weight, "pickled object"),
        (_evil_constant, "pickled object"),
        (_legacy_weights, "legacy pickle"),
        (_native_code, "native code"),
        (_evil_operator, "no tensor operator"),
        (_traversal, "unsafe name"),
    ],
)
def test_code_in_an_archive_is_refused_and_not_run(
    spoil: Callable[[Members, Path], None], reason: str, tiny_pt2: Path, tmp_path: Path, read
) -> None:
    members, marker, path = _members(tiny_pt2), tmp_path / "it-ran", tmp_path / "evil.pt2"
    spoil(members, marker)
    _write(path, members)
    with pytest.raises(IntegrityError, match=reason):
        read(path)
    assert not marker.exists()
    assert not list(tmp_path.glob("*.part"))
    assert [file.name for file in tmp_path.glob("*.pt2")] == ["evil.pt2"]


def test_torch_alone_would_run_it(tiny_pt2: Path, tmp_path: Path) -> None:
    """The reason for the checks above: if torch ever refuses this by itself, they can be reconsidered."""
    import torch

    members, marker, path = _members(tiny_pt2), tmp_path / "it-ran", tmp_path / "evil.pt2"
    _evil_samples(members, marker)
    _write(path, members)
    # It fails, but after the code has run.
    with pytest.raises(RuntimeError, match="error when deserializing"):
        torch.export.load(path)
    assert marker.exists()


def test_a_zip_bomb_is_refused(tiny_pt2: Path, tmp_path: Path, read) -> None:
    path = tmp_path / "bomb.pt2"
    members = _members(tiny_pt2)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"tiny/{name}", bytes(64 << 20) if name.endswith("weight_0") else content)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(IntegrityError, match="unpacks"):
        read(path)


def test_a_member_that_is_there_twice_is_refused(tiny_pt2: Path, tmp_path: Path, read) -> None:
    path = tmp_path / "twice.pt2"
    path.write_bytes(tiny_pt2.read_bytes())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("tiny/models/model.json", b"{}")
    with pytest.raises((IntegrityError, EdgewrightError), match="twice"):
        read(path)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Add(Mul(Integer(2), Symbol('s0', integer=True)), Integer(-1))",
        "Max(1, FloorDiv(Symbol('s1'), 2))",
        "s77*4 + 1",
    ],
)
def test_what_sympy_prints_is_safe(text: str) -> None:
    assert is_safe_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x')",
        "Symbol.__class__",
        "(lambda: 1)()",
        "[x for x in ()]",
        "eval('1')",
        "Symbol('a b')",
        "x" * 20_000,
        "Symbol(",
        None,
    ],
)
def test_anything_else_is_not(text: object) -> None:
    assert not is_safe_expression(text)
