"""What a build says of artifacts that their own runtime did not run, and where it puts those with folders in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import small_models

import edgewright
from edgewright.artifact_files import read_artifact
from edgewright.benchmark import bench
from edgewright.core.errors import UnavailableError
from edgewright.core.result import Result
from edgewright.single import run

pytestmark = pytest.mark.toolchain("onnx", "onnxruntime")


def _build(tmp_path: Path, *names: str, use_cache: bool = False) -> edgewright.BuildResult:
    model = tmp_path / "model.onnx"
    if not model.exists():
        small_models.write_onnx(model)
    return edgewright.build(
        model,
        to=[f"tests.proving_backends:{name}" for name in names],
        precision=("fp32",),
        out=tmp_path / "out",
        use_cache=use_cache,
    )


def _where(tmp_path: Path, result: Result) -> Path:
    assert result.artifact is not None
    return tmp_path / "out" / result.artifact


def test_only_what_its_own_runtime_ran_is_ok(tmp_path: Path) -> None:
    built = _build(tmp_path, "Interpreted", "Converted", "Recipe")
    interpreted, converted, recipe = built.results

    assert str(interpreted.status) == "ok (interpreted)"
    assert interpreted.parity is not None
    assert interpreted.parity.max_abs is not None
    assert interpreted.latency_ms is None, "the time of an interpreter says nothing of the runtime"
    assert interpreted.memory_bytes is None

    assert str(converted.status) == "converted"
    assert "no number of it is proven here" in converted.reason
    assert "it would run on a phone" in converted.reason
    assert converted.parity is None
    assert str(recipe.status) == "unavailable"

    for result in built.results:
        assert _where(tmp_path, result).is_file()
        assert not result.verdict.is_pass or result is interpreted
    assert built.recommended is None
    assert built.exit_code == 3

    with pytest.raises(UnavailableError, match="nothing here runs it; it would run on a phone"):
        run(_where(tmp_path, converted).parent, {})
    with pytest.raises(UnavailableError, match="interpreter"):
        bench([_where(tmp_path, interpreted).parent], launches=3)


def test_interpreted_alone_exits_with_0(tmp_path: Path) -> None:
    assert _build(tmp_path, "Interpreted").exit_code == 0


def test_a_package_keeps_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # made, and then taken from the cache
        built = _build(tmp_path, "Package", use_cache=True)
        (result,) = built.results
        assert str(result.status) == "ok"
        assert result.artifact is not None
        assert result.artifact.endswith("/model.mlpackage/Data/model.onnx")
        path = _where(tmp_path, result)
        by_folder = read_artifact(path.parents[2])
        by_package = read_artifact(path.parents[1])
        assert by_folder.files == by_package.files == (path,)


@pytest.mark.toolchain("torch", "onnxscript")
def test_what_one_reader_refuses_goes_another_way(tmp_path: Path) -> None:
    better, nothing = _build(tmp_path, "ReadsTorchBetter", "ReadsNothing").results
    assert str(better.status) == "ok", better.reason
    assert any("reached over onnx -> pt2" in note for note in better.notes)
    assert any("directly failed: the reader of ONNX has no operator Conv" in note for note in better.notes)
    assert str(nothing.status) == "failed"
    assert nothing.reason == "the reader of onnx has no operator Conv", "the first error stays"
