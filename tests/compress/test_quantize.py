"""PT2E: it makes int8 what it says, keeps the numbers, is reproducible, and refuses what it cannot do."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends.reference import ReferenceBackend
from edgewright.backends.vendor import load_exported
from edgewright.compress.quantize import quantize, quantize_pt2e
from edgewright.core.contracts import Calibration
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, TensorSpec
from edgewright.sources.torch_digest import digest_exported

pytestmark = pytest.mark.toolchain("torch", "torchao")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantize")


@pytest.fixture(scope="module")
def cnn(folder: Path) -> Program:
    return programs.cnn_pt2(folder)


@pytest.fixture(scope="module")
def calibration(cnn: Program, folder: Path) -> Calibration:
    return programs.calibration_for(cnn, folder)


@pytest.fixture(scope="module")
def quantized(cnn: Program, calibration: Calibration, folder: Path) -> Program:
    return quantize_pt2e(cnn, precision=Precision.W8A8, calibration=calibration, workdir=folder / "w8a8")


def run(program: Program, arrays: dict[str, Array]) -> dict[str, Array]:
    backend, target = ReferenceBackend(), Target(runtime="reference")
    session = backend.open(backend.convert(program, target, None, program.path.parent), target)
    return dict(session.run(arrays))


def test_every_layer_with_weights_is_quantized_per_channel(quantized: Program) -> None:
    counts = Counter(str(node.target) for node in load_exported(quantized).graph.nodes)
    assert counts["quantized_decomposed.quantize_per_channel.default"] == 4
    assert counts["quantized_decomposed.dequantize_per_channel.default"] == 4
    assert counts["aten.batch_norm.default"] == 0
    # Input, stem, depthwise, their sum, max-pooling, pointwise, mean, flatten and the logits.
    assert counts["quantized_decomposed.quantize_per_tensor.default"] == 9


def test_history_names_the_step(quantized: Program, cnn: Program) -> None:
    assert quantized.history == (*cnn.history, "quantize(pt2e, w8a8, 64 samples)")
    assert quantized.precision == "w8a8"
    assert quantized.inputs == cnn.inputs
    assert quantized.sha256 != cnn.sha256


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_numbers_stay_and_the_batch_stays_dynamic(
    quantized: Program, cnn: Program, rng: np.random.Generator, batch: int
) -> None:
    image = rng.normal(0.3, 1.0, (batch, 1, 8, 8)).astype(np.float32)
    want, got = run(cnn, {"image": image})["logits"], run(quantized, {"image": image})["logits"]
    error = np.square(got - want).mean() / np.square(want).mean()
    assert -10 * np.log10(error) > 20


def test_constant_batch_of_two_inputs_and_outputs(folder: Path, rng: np.random.Generator) -> None:
    program = programs.mlp_pt2(folder / "mlp", is_dynamic=False)
    samples = programs.calibration_for(program, folder / "mlp")
    made = quantize_pt2e(program, precision=Precision.W8A8, calibration=samples, workdir=folder / "mlp-w8a8")
    given = {
        "left": rng.normal(0.3, 1.0, (1, 6)).astype(np.float32),
        "right": rng.normal(0.3, 1.0, (1, 3)).astype(np.float32),
    }
    want, got = run(program, given), run(made, given)
    for name in ("joined", "total"):
        assert got[name].shape == want[name].shape
        assert np.abs(got[name] - want[name]).max() < 0.05 * max(1.0, np.abs(want[name]).max())


def test_same_program_and_calibration_give_the_same_digest(
    quantized: Program, cnn: Program, calibration: Calibration, folder: Path
) -> None:
    again = quantize_pt2e(cnn, precision=Precision.W8A8, calibration=calibration, workdir=folder / "again")
    assert again.sha256 == quantized.sha256
    other = programs.calibration_for(cnn, folder / "other", seed=99)
    differs = quantize_pt2e(cnn, precision=Precision.W8A8, calibration=other, workdir=folder / "differs")
    assert differs.sha256 != quantized.sha256


def test_another_process_can_load_it(quantized: Program) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from edgewright.backends.vendor import load_exported_file\n"
        "from edgewright.sources.torch_digest import digest_exported\n"
        "print(digest_exported(load_exported_file(Path(sys.argv[1]))))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(quantized.path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == quantized.sha256 == digest_exported(load_exported(quantized))


def test_worker_operation_speaks_json(cnn: Program, calibration: Calibration, folder: Path) -> None:
    reply = quantize(
        {
            "program": cnn.to_json(),
            "precision": "w8a8",
            "calibration": calibration.to_json(),
            "workdir": str(folder / "operation"),
        }
    )
    record = reply["program"]
    assert isinstance(record, dict)
    assert Program.from_json(record).precision == "w8a8"


def test_refuses_other_precisions_formats_and_quantized_programs(
    cnn: Program, quantized: Program, calibration: Calibration, folder: Path
) -> None:
    for program, precision in (
        (cnn, Precision.W8),
        (replace(cnn, format="onnx"), Precision.W8A8),
        (quantized, Precision.W8A8),
    ):
        with pytest.raises(FormatMismatchError, match="native"):
            quantize_pt2e(program, precision=precision, calibration=calibration, workdir=folder / "refused")
    assert not (folder / "refused").exists()


def test_calibration_must_be_there_and_fit(cnn: Program, folder: Path) -> None:
    with pytest.raises(ConversionError, match="no calibration"):
        quantize_pt2e(cnn, precision=Precision.W8A8, calibration=None, workdir=folder / "bare")
    np.savez(folder / "wrong.npz", image=np.zeros((4, 3, 8, 8), np.float32))
    wrong = Calibration(path=folder / "wrong.npz", count=4, sha256="0" * 64, description="three channels")
    with pytest.raises(DataError, match="shape"):
        quantize_pt2e(cnn, precision=Precision.W8A8, calibration=wrong, workdir=folder / "bare")


def test_program_without_weights_is_refused(folder: Path) -> None:
    import torch

    class Bare(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(x)

    path = folder / "bare.pt2"
    torch.export.save(torch.export.export(Bare(), (torch.ones(1, 4),)), path)
    spec = TensorSpec(name="x", shape=(1, 4), dtype="float32")
    program = programs._file_program(path, "pt2", (spec,), (replace(spec, name="y"),))
    calibration = programs.calibration_for(program, folder / "bare-calibration")
    with pytest.raises(ConversionError, match="no convolution or linear layer"):
        quantize_pt2e(program, precision=Precision.W8A8, calibration=calibration, workdir=folder / "bare")
