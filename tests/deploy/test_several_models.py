"""Several models in one bundle: DTLN, whose second model takes what the first one gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.command_line import cli

from edgewright.core.errors import UnavailableError
from edgewright.deploy.bundle import BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.deploy.cpp import PLATFORM as CPP
from edgewright.prediction import specify
from edgewright.processing.c_host import host_compiler

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
NAMES = ("model_1.onnx", "model_2.onnx")


@pytest.fixture(scope="module")
def models(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both models and the processing that names them, as the command writes it."""
    folder = tmp_path_factory.mktemp("dtln")
    for name in NAMES:
        shutil.copy(assets / "models/dtln" / name, folder)
    process = cli("processing", *(folder / name for name in NAMES), "--processing", "dtln", "--out", folder)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return folder


def test_the_folder_is_read_with_both_models(models: Path) -> None:
    checked = specify(models)
    assert [row.file for row in checked.specification.models] == list(NAMES)
    assert list(checked.signatures) == ["model_1", "model_2"]


@pytest.mark.slow
def test_both_are_in_a_linux_bundle_and_run_one_after_the_other(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        host_compiler()
    except UnavailableError as err:
        pytest.skip(str(err))
    monkeypatch.setattr(CPP, "prove", lambda content, folder: ())
    bundle = make_bundle(BundleRequest(source=models, platform="linux", name="Denoiser"), tmp_path / "out")
    data = bundle.folder / "src/denoiser/data/model"
    assert sorted(str(path.relative_to(data)) for path in data.rglob("*.onnx")) == [
        f"{Path(name).stem}/{name}" for name in NAMES
    ]
    proofs = bundle.record["proofs"]
    assert isinstance(proofs, list) and any("2 golden cases passed" in proof for proof in proofs)
    checked = check_bundle(bundle.folder)
    assert checked.exit_code == 0, checked.to_json()
