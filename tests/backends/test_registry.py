"""Backends are found by entry points, and a broken one is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.backends import registry
from edgewright.core.contracts import Backend
from edgewright.core.errors import UnavailableError, UnknownNameError

BUILT_IN = {"reference", "litert", "onnxruntime", "openvino"}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return a function that puts a real distribution with one entry point onto the import path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.get.cache_clear()

    def add(name: str, value: str, *, package: str = "foreign") -> None:
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[edgewright.backends]\n{name} = {value}\n")

    return add


def test_built_in_backends_are_registered_and_have_the_contract() -> None:
    assert set(registry.names()) >= BUILT_IN
    for name in BUILT_IN:
        backend = registry.get(name)
        assert isinstance(backend, Backend)
        assert backend.name == name


def test_looking_at_every_backend_imports_no_vendor_package() -> None:
    code = (
        "import sys\n"
        "from edgewright.backends import registry\n"
        "for name in registry.names(): registry.get(name).probe()\n"
        "vendors = {'torch', 'onnx', 'onnxruntime', 'openvino', 'nncf', 'ai_edge_litert', 'litert_torch', 'torchao'}\n"
        "print(sorted(vendors & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'onnxruntime'"):
        registry.get("onnxruntme")


def test_foreign_backend_registers_the_same_way(install: object) -> None:
    assert callable(install)
    install("reference_too", "edgewright.backends.reference:ReferenceBackend")
    assert "reference_too" in registry.names()
    # Its class says another name, so it is no backend of that name.
    with pytest.raises(UnavailableError, match="not a Backend of that name"):
        registry.get("reference_too")


def test_backend_that_cannot_be_imported_is_named(install: object) -> None:
    assert callable(install)
    install("gone", "no_such_package.module:Backend")
    with pytest.raises(UnavailableError, match="no_such_package"):
        registry.get("gone")


def test_two_claims_to_one_name_are_refused(install: object) -> None:
    assert callable(install)
    install("litert", "somewhere.else:LiteRT")
    with pytest.raises(UnavailableError, match="registered by 2 packages"):
        registry.get("litert")
    registry.get.cache_clear()
