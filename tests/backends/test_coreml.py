"""The Core ML backend: what it writes, that the written file computes the source, and what it refuses."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.backends import programs
from tests.backends.coreml_programs import vendor

from edgewright.backends.coreml import CoremlBackend, InterpretedSession
from edgewright.backends.coreml_file import MODEL_PATH, read_package
from edgewright.backends.coreml_interpreter import Interpreter
from edgewright.backends.reference import ReferenceBackend
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, IntegrityError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import TensorSpec
from edgewright.sources import inspect_artifact
from edgewright.testing import check_backend

pytest.importorskip(
    "coremltools", reason="needs coremltools; install it with: pip install 'edgewright[coreml]'"
)
torch = pytest.importorskip("torch")
pytestmark = [
    # coremltools leaves its temporary folders to the garbage collector, which warns whenever it runs.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def imported_quietly() -> None:
    vendor()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return programs.cnn_pt2(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def made(source: Program, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return convert(source, Precision.FP16, tmp_path_factory.mktemp("made"))


def convert(program: Program, precision: Precision, folder: Path) -> Artifact:
    return CoremlBackend().convert(program, Target(runtime="coreml", precision=precision), None, folder)


def export(
    module: Any, examples: tuple[Any, ...], folder: Path, dtypes: tuple[str, str] = ("float32",) * 2
) -> Program:
    exported = torch.export.export(module.eval(), examples)
    torch.export.save(exported, folder / "made.pt2")
    with torch.no_grad():
        results = module(*examples)
    results = results if isinstance(results, tuple) else (results,)
    return Program(
        path=folder / "made.pt2",
        format="pt2",
        inputs=tuple(
            TensorSpec(name=f"in_{i}", shape=tuple(e.shape), dtype=dtypes[0]) for i, e in enumerate(examples)
        ),
        outputs=tuple(
            TensorSpec(name=f"out_{i}", shape=tuple(r.shape), dtype=dtypes[1]) for i, r in enumerate(results)
        ),
        sha256="0" * 64,
        origin="made",
        origin_format="torch",
    )


def outputs_of(
    program: Program, artifact: Artifact, given: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first output of the source in PyTorch, and of the artifact."""
    plain = Target(runtime="reference")
    truth = ReferenceBackend().open(
        ReferenceBackend().convert(program, plain, None, artifact.path.parent), plain
    )
    session = CoremlBackend().open(artifact, artifact.target)
    want = truth.run({spec.name: value for spec, value in zip(program.inputs, given, strict=True)})
    have = session.run({spec.name: value for spec, value in zip(artifact.inputs, given, strict=True)})
    return next(iter(want.values())), next(iter(have.values()))


def test_artifact_is_a_whole_package_that_was_interpreted(made: Artifact, source: Program) -> None:
    assert made.proof is Proof.INTERPRETED
    assert made.names == (
        "model.mlpackage/Manifest.json",
        "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
    )
    assert [spec.name for spec in (*made.inputs, *made.outputs)] == ["image", "logits"]
    assert made.inputs[0].shape == (1, 1, 8, 8)
    assert any("batch made static: 1" in note for note in made.notes)
    assert any("interpreter" in note for note in made.notes)
    assert isinstance(CoremlBackend().open(made, made.target), InterpretedSession)


def test_vendor_tools_read_what_was_written(made: Artifact) -> None:
    """coremltools' own reader accepts the package: manifest, program and weights."""
    import coremltools as ct

    loaded = ct.models.MLModel(str(made.path.parent), skip_model_load=True)
    assert loaded.get_spec().WhichOneof("Type") == "mlProgram"
    assert "conversion_date" not in str(loaded.get_spec().description.metadata)


def test_one_program_gives_one_digest(made: Artifact, source: Program, tmp_path: Path) -> None:
    assert convert(source, Precision.FP16, tmp_path).sha256 == made.sha256


def test_own_reader_reads_what_protobuf_reads(made: Artifact) -> None:
    import coremltools as ct

    content = (made.path.parent / MODEL_PATH).read_bytes()
    theirs = ct.proto.Model_pb2.Model.FromString(content).mlProgram.functions["main"]
    ours = read_package(made.path.parent).model.main
    block = theirs.block_specializations[theirs.opset]
    assert ours.opset == theirs.opset
    assert [operation.kind for operation in ours.block.operations] == [op.type for op in block.operations]
    for mine, other in zip(ours.block.operations, block.operations, strict=True):
        assert [named.name for named in mine.outputs] == [named.name for named in other.outputs]
        assert {k: len(v) for k, v in mine.inputs.items()} == {
            k: len(v.arguments) for k, v in other.inputs.items()
        }
        assert set(mine.attributes) == set(other.attributes)


@pytest.mark.parametrize(
    ("precision", "least_db"), [(Precision.W8, 40), (Precision.W4, 20), (Precision.PRUNED, 5)]
)
def test_compressed_weights_are_small_and_near(
    source: Program, precision: Precision, least_db: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    artifact = convert(source, precision, tmp_path)
    want, have = outputs_of(source, artifact, [rng.normal(size=(1, 1, 8, 8)).astype(np.float32)])
    assert 10 * np.log10(np.square(want).sum() / np.square(have - want).sum()) > least_db
    described = inspect_artifact(artifact.path.parent)
    assert described.precision == precision
    assert any(note.startswith("compressed weights") for note in described.notes)
    assert any(note.startswith("compressed tensors: 2 by") for note in artifact.notes), artifact.notes


def test_a_file_without_compressed_weights_says_so(tmp_path: Path) -> None:
    artifact = convert(programs.mlp_pt2(tmp_path), Precision.W4, tmp_path / "out")
    assert any("enough weights" in note for note in artifact.notes)


def test_inspection_counts_what_the_source_has(made: Artifact, source: Program) -> None:
    from edgewright.sources.inspection import inspect_program

    theirs, ours = inspect_program(source), inspect_artifact(made.path.parent)
    assert ours.macs == theirs.macs
    assert ours.precision == "fp16"
    assert ours.size_bytes == made.size_bytes and ours.sha256 == made.sha256


@pytest.mark.parametrize(("bits", "least_bytes"), [(1, 9_600), (2, 19_200), (4, 38_400)])
def test_clustered_weights_become_exact_palettes(bits: int, least_bytes: int, tmp_path: Path) -> None:
    from edgewright.compress.clustering import cluster

    linear = cluster(torch.nn.Sequential(torch.nn.Linear(300, 256, bias=False)), bits=bits)[0]  # type: ignore[index]
    program = export(linear, (torch.zeros(1, 300),), tmp_path)
    artifact = convert(program, Precision.W4, tmp_path)
    package = read_package(artifact.path.parent)
    (weights,) = [
        value for value in Interpreter(package)._kept.values() if getattr(value, "size", 0) == 76_800
    ]
    assert isinstance(weights, np.ndarray)
    assert np.array_equal(weights, linear.weight.detach().numpy().astype(np.float16))
    size_bytes = sum(path.stat().st_size for path in artifact.files)
    assert least_bytes < size_bytes < least_bytes + 4_096, "76,800 indices, the palette and the graph"


def test_pruning_reaches_large_tensors(tmp_path: Path) -> None:
    """coremltools' own search for a threshold leaves float16 tensors above 65,504 elements whole."""
    program = export(torch.nn.Linear(300, 256, bias=False), (torch.zeros(1, 300),), tmp_path)
    package = read_package(convert(program, Precision.PRUNED, tmp_path).path.parent)
    weights = [value for value in Interpreter(package)._kept.values() if getattr(value, "size", 0) == 76_800]
    assert weights
    for weight in weights:
        assert isinstance(weight, np.ndarray)
        assert 0.5 <= float((weight == 0).mean()) < 0.51


@pytest.mark.slow
def test_backend_conforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        CoremlBackend, "consumes", ("pt2",)
    )  # TorchScript below: the suite's reference is for .pt2
    sources = [programs.cnn_pt2(tmp_path / "cnn"), programs.mlp_pt2(tmp_path / "mlp")]
    calibrations = {str(s.path): programs.calibration_for(s, s.path.parent) for s in sources}
    report = check_backend(
        CoremlBackend(), programs=sources, calibrations=calibrations, workdir=tmp_path / "work"
    )
    assert len(report.converted) == len(sources) * len(Precision)


def test_torchscript_source(tmp_path: Path, rng: np.random.Generator) -> None:
    module = programs.cnn_module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.zeros(1, 1, 8, 8)).save(str(tmp_path / "cnn.pt"))
    program = replace(
        programs.cnn_pt2(tmp_path, is_dynamic=False), path=tmp_path / "cnn.pt", format="torchscript"
    )
    artifact = convert(program, Precision.FP32, tmp_path / "out")
    image = rng.normal(size=(1, 1, 8, 8)).astype(np.float32)
    (have,) = CoremlBackend().open(artifact, artifact.target).run({"image": image}).values()
    with torch.no_grad():
        np.testing.assert_allclose(have, module(torch.from_numpy(image)).numpy(), atol=1e-5)


def test_defaults_and_keywords_of_operators_survive(tmp_path: Path, rng: np.random.Generator) -> None:
    """coremltools' reader of exported programs loses gelu's formula: 2e-4 off here, and no error."""
    module = torch.nn.Sequential(torch.nn.GELU(approximate="tanh"), torch.nn.MaxPool2d(2))
    program = export(module, (torch.zeros(1, 3, 8, 8),), tmp_path)
    artifact = convert(program, Precision.FP32, tmp_path / "out")
    want, have = outputs_of(program, artifact, [rng.normal(size=(1, 3, 8, 8)).astype(np.float32) * 2])
    np.testing.assert_allclose(have, want, atol=2e-6)


def test_integers_pass_in_the_sources_own_type(tmp_path: Path) -> None:
    class Pick(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(10, 4)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.table(tokens).argmax(-1)

    torch.manual_seed(0)
    program = export(Pick(), (torch.zeros(1, 3, dtype=torch.int64),), tmp_path, ("int64", "int64"))
    artifact = convert(program, Precision.FP32, tmp_path / "out")
    assert artifact.inputs[0].dtype == "int64"
    want, have = outputs_of(program, artifact, [np.array([[1, 9, 4]])])
    np.testing.assert_array_equal(have, want)
    assert have.dtype == np.int64
    session = CoremlBackend().open(artifact, artifact.target)
    with pytest.raises(DataError, match="int32"):
        session.run({artifact.inputs[0].name: np.array([[1, 2, 2**40]])})


def test_unsupported_operators_are_named_by_the_converter(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.i0(x) + torch.lgamma(x)

    program = export(Odd(), (torch.ones(1, 4),), tmp_path)
    with pytest.raises(ConversionError, match=r"aten::i0.*aten::lgamma|i0.*lgamma"):
        convert(program, Precision.FP32, tmp_path / "out")


def test_operators_beyond_the_interpreter_make_a_converted_artifact(tmp_path: Path) -> None:
    """Nothing is called interpreted that was not: a random number cannot be compared with the source's."""

    class Noisy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand(1, 4)

    program = export(Noisy(), (torch.ones(1, 4),), tmp_path)
    artifact = convert(program, Precision.FP32, tmp_path / "out")
    assert artifact.proof is Proof.CONVERTED
    assert any("random_uniform" in note for note in artifact.notes)
    with pytest.raises(ConversionError, match=r"random_uniform \(1\)"):
        CoremlBackend().open(artifact, artifact.target)


@pytest.mark.parametrize(
    ("change", "target", "reason"),
    [
        ({"format": "onnx"}, {}, "reads pt2, torchscript"),
        ({"precision": "w8a8"}, {}, "already w8a8"),
        ({"inputs": (TensorSpec(name="x", shape=(1,), dtype="uint8"),)}, {}, "uint8"),
        ({}, {"precision": Precision.W8A8, "quantizer": Quantizer.NATIVE}, "macOS"),
        ({"format": "torchscript"}, {"precision": Precision.W8A8}, "exported programs"),
        ({}, {"accelerator": ("npu",)}, "npu"),
        ({}, {"quantizer": Quantizer.ACCURACY}, "accuracy"),
    ],
)
def test_refusals_say_why(
    source: Program, change: dict[str, Any], target: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    program, wanted = replace(source, **change), Target(runtime="coreml", **target)
    told = CoremlBackend().refuses(program, wanted)
    assert told is not None and reason in told
    with pytest.raises(FormatMismatchError, match=reason):
        CoremlBackend().convert(program, wanted, None, tmp_path)


def test_another_package_than_recorded_is_refused(made: Artifact) -> None:
    spec = replace(made.inputs[0], shape=(1, 3, 8, 8))
    with pytest.raises(IntegrityError, match="is expected"):
        CoremlBackend().open(replace(made, inputs=(spec,)), made.target)
