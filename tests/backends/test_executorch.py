"""ExecuTorch: conformance, what is delegated, what is refused, and broken files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends.executorch import ExecutorchBackend, ExecutorchVulkanBackend
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.errors import (
    ConversionError,
    EdgewrightError,
    FormatMismatchError,
    IntegrityError,
    WorkerError,
)
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target
from edgewright.sources.inspect_executorch import inspect_executorch
from edgewright.testing import check_backend
from edgewright.workers.pool import Limits, Worker

pytestmark = pytest.mark.toolchain("torch", "torchao", "executorch")

BACKEND = ExecutorchBackend()


def target(precision: str = "fp32", **changes: object) -> Target:
    return replace(Target(runtime="executorch", precision=Precision(precision)), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return programs.mlp_pt2(tmp_path_factory.mktemp("mlp"))


@pytest.fixture(scope="module")
def artifact(mlp: Program, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return BACKEND.convert(mlp, target(), None, tmp_path_factory.mktemp("fp32"))


@pytest.mark.slow
def test_conforms(tmp_path: Path) -> None:
    sources = [programs.cnn_pt2(tmp_path / "cnn"), programs.mlp_pt2(tmp_path / "mlp")]
    calibrations = {str(p.path): programs.calibration_for(p, p.path.parent) for p in sources}
    report = check_backend("executorch", programs=sources, calibrations=calibrations, workdir=tmp_path / "w")
    done = {(pair.program, pair.precision) for pair in report.converted}
    wanted = (Precision.FP32, Precision.FP16, Precision.W8, *INTEGER_PRECISIONS)
    assert done == {(source.path.name, precision) for source in sources for precision in wanted}


# coremltools leaves its temporary folders to the garbage collector, which Python then remarks on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_what_other_devices_run_conforms(tmp_path: Path) -> None:
    pytest.importorskip("coremltools", reason="needs coremltools: pip install 'edgewright[coreml]'")
    source = programs.mlp_pt2(tmp_path / "mlp")
    for name in ("executorch-coreml", "executorch-vulkan"):
        report = check_backend(name, programs=[source], calibrations={}, workdir=tmp_path / name)
        assert {pair.proof for pair in report.converted} == {Proof.CONVERTED}


@pytest.mark.slow
def test_int8_layers_of_a_pt2e_program_are_delegated(tmp_path: Path) -> None:
    from edgewright.compress.quantize import quantize_pt2e

    source = programs.cnn_pt2(tmp_path)
    calibration = programs.calibration_for(source, tmp_path)
    quantized = quantize_pt2e(source, precision=Precision.W8A8, calibration=calibration, workdir=tmp_path)
    made = BACKEND.convert(quantized, target("w8a8"), calibration, tmp_path / "made")
    assert "4 of 4 layers with weights run XNNPACK's int8 kernels" in made.notes
    assert not [note for note in made.notes if "portable" in note]
    native = target("w8a8", quantizer=Quantizer.NATIVE)
    made = BACKEND.convert(source, native, calibration, tmp_path / "native")
    assert "4 of 4 layers with weights run XNNPACK's int8 kernels" in made.notes


def test_fp32_keeps_the_numbers_and_names_what_runs_it(artifact: Artifact) -> None:
    import torch

    assert "XNNPACK runs 6 of 6 operators, in 1 partition" in artifact.notes
    assert "batch made static: 1" in artifact.notes
    draw = np.random.default_rng(3)
    given = {s.name: draw.normal(size=[d or 1 for d in s.shape]).astype(np.float32) for s in artifact.inputs}
    session = BACKEND.open(artifact, replace(artifact.target, threads=2), profile=True)
    results = session.run(given)
    with torch.no_grad():
        want = programs.mlp_module()(*(torch.from_numpy(value) for value in given.values()))
    for got, expected in zip(results.values(), want, strict=True):
        np.testing.assert_allclose(got, expected.numpy(), atol=1e-6)
    costs = session.layers(given)
    # XNNPACK counts whole microseconds: layers of so small a model may take 0.
    assert sum("Fully Connected" in cost.operator for cost in costs) == 3
    session.close()


def test_a_kernel_outside_the_delegate_is_named(tmp_path: Path) -> None:
    import torch

    from edgewright.sources.torch_export import export_module

    class Sorted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(torch.relu(x) + 1.0, dim=1)

    source = export_module(Sorted(), (torch.zeros(1, 4),), workdir=tmp_path, origin="sorted")
    made = BACKEND.convert(source, target(), None, tmp_path / "made")
    assert any("portable kernels" in note and "cumsum" in note for note in made.notes)
    described = inspect_executorch(made.path)
    assert described.operators["aten::cumsum.out"] == 1


def test_refuses_what_it_cannot_do(mlp: Program, tmp_path: Path) -> None:
    for bad in (target("w4"), target(accelerator=("gpu",)), target("w8a8", quantizer=Quantizer.ACCURACY)):
        assert BACKEND.refuses(mlp, bad)
        with pytest.raises(FormatMismatchError):
            BACKEND.convert(mlp, bad, None, tmp_path)
    assert BACKEND.refuses(replace(mlp, format="onnx"), target())


def test_int8_weights_need_a_layer_that_has_them(tmp_path: Path) -> None:
    import torch

    from edgewright.sources.torch_export import export_module

    source = export_module(torch.nn.ReLU(), (torch.zeros(1, 4),), workdir=tmp_path, origin="relu")
    with pytest.raises(ConversionError, match="no linear layer and no convolution"):
        BACKEND.convert(source, target("w8"), None, tmp_path / "made")


def test_vulkan_says_where_it_runs(mlp: Program, tmp_path: Path) -> None:
    made = ExecutorchVulkanBackend().convert(mlp, Target(runtime="executorch-vulkan"), None, tmp_path)
    assert made.proof is Proof.CONVERTED
    assert "Android" in made.notes[0]
    with pytest.raises(ConversionError, match="cannot be run on this machine"):
        ExecutorchVulkanBackend().open(made, made.target)


def test_describes_a_program_without_running_it(artifact: Artifact) -> None:
    described = inspect_executorch(artifact.path)
    assert [spec.shape for spec in described.inputs] == [(1, 6), (1, 3)]
    assert [spec.shape for spec in described.outputs] == [(1, 4), (1, 1)]
    assert described.operators == {"XnnpackBackend": 1}


def open_and_run(arguments: dict[str, object]) -> dict[str, object]:
    """Worker operation: load an artifact and run zeros through it."""
    record = arguments["artifact"]
    assert isinstance(record, dict)
    given = Artifact.from_json(record)
    session = BACKEND.open(given, given.target)
    results = session.run({s.name: np.zeros([d or 1 for d in s.shape], s.dtype) for s in session.inputs})
    return {"outputs": [list(value.shape) for value in results.values()]}


def test_broken_programs_end_in_an_error_of_the_parent(artifact: Artifact, tmp_path: Path) -> None:
    whole = artifact.path.read_bytes()
    draw = np.random.default_rng(7)
    outcomes = []
    with Worker(
        "hostile", limits=Limits(timeout_s=120), env={"PYTHONPATH": str(Path(__file__).parents[2])}
    ) as worker:
        for number in range(8):
            content = bytearray(whole)
            if number % 2:
                del content[int(draw.integers(1, len(content))) :]
            else:
                for position in draw.integers(0, len(content), 12):
                    content[position] = int(draw.integers(0, 256))
            path = tmp_path / f"{number}.pte"
            path.write_bytes(content)
            try:
                inspect_executorch(path)
            except (FormatMismatchError, IntegrityError):
                outcomes.append("refused")
            try:
                worker.call(
                    f"{__name__}:open_and_run", {"artifact": replace(artifact, files=(path,)).to_json()}
                )
                outcomes.append("ran")
            except (EdgewrightError, WorkerError) as err:
                outcomes.append(type(err).__name__)
    assert {"ConversionError", "IntegrityError", "WorkerError"} & set(outcomes), outcomes
