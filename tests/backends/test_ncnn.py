"""ncnn: what pnnx makes, what it refuses, and the numbers against torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends import ncnn_file
from edgewright.backends.ncnn import NcnnBackend
from edgewright.core.artifact import Artifact
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, IntegrityError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, TensorSpec
from edgewright.testing import check_backend

if TYPE_CHECKING:
    from torch import nn

pytestmark = pytest.mark.toolchain("torch", "onnx", "onnxruntime", "ncnn", "pnnx")

BACKEND = NcnnBackend()


def target(precision: str = "fp32", threads: int = 1) -> Target:
    return Target(runtime="ncnn", precision=Precision(precision), threads=threads)


def scripted(module: nn.Module, folder: Path, *examples: Array, outputs: int = 1) -> Program:
    """Return `module` traced on `examples` as a TorchScript program, names x0... and y0...."""
    import torch

    tensors = tuple(torch.from_numpy(array) for array in examples)
    path = folder / "model.pt"
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.jit.trace(module.eval(), tensors).save(str(path))
        got = module(*tensors)
    results = got if isinstance(got, tuple) else (got,)
    assert len(results) == outputs
    return Program(
        path=path,
        format="torchscript",
        inputs=tuple(_spec(f"x{n}", array) for n, array in enumerate(examples)),
        outputs=tuple(_spec(f"y{n}", result.numpy()) for n, result in enumerate(results)),
        sha256=sha256_of(path),
        origin=str(path),
        origin_format="torchscript",
    )


def _spec(name: str, array: Array) -> TensorSpec:
    return TensorSpec(name=name, shape=array.shape, dtype=str(array.dtype))


def run(artifact: Artifact, *arrays: Array) -> list[Array]:
    session = BACKEND.open(artifact, artifact.target)
    results = session.run({spec.name: array for spec, array in zip(artifact.inputs, arrays, strict=True)})
    session.close()
    return [np.asarray(results[spec.name]) for spec in artifact.outputs]


def test_conformance(tmp_path: Path) -> None:
    backend = NcnnBackend()
    backend.consumes = ("pt2", "onnx")  # TorchScript has tests of its own below
    given = [programs.cnn_pt2(tmp_path / "a"), programs.mlp_onnx(tmp_path / "b", is_dynamic=False)]
    report = check_backend(backend, programs=given, calibrations={}, workdir=tmp_path / "work")
    assert {pair.precision for pair in report.converted} == {Precision.FP32, Precision.FP16}
    assert min(pair.snr_db for pair in report.converted if pair.precision is Precision.FP32) > 110
    refused = {pair.precision: pair.refusal for pair in report.pairs if pair.refusal}
    assert "ncnn2int8" in refused[Precision.W8A8]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_torchscript_agrees_with_torch(tmp_path: Path, precision: str, rng: np.random.Generator) -> None:
    import torch

    image = rng.normal(size=(1, *programs.CNN_IMAGE)).astype(np.float32)
    module = programs.cnn_module()
    program = scripted(module, tmp_path / "source", image)
    artifact = BACKEND.convert(program, target(precision), None, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.bin", "model.param"]
    with torch.no_grad():
        expected = module(torch.from_numpy(image)).numpy()
    (got,) = run(artifact, image)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < (1e-5 if precision == "fp32" else 2e-2)


def test_fp16_halves_the_weights(tmp_path: Path) -> None:
    program = programs.mlp_onnx(tmp_path)
    sizes = {
        precision: BACKEND.convert(program, target(precision), None, tmp_path / precision)
        .files[1]
        .stat()
        .st_size
        for precision in ("fp32", "fp16")
    }
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


def test_a_transformer_block_and_axes_without_a_batch_agree(tmp_path: Path, rng: np.random.Generator) -> None:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
            self.norm = nn.LayerNorm(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x + self.attend(x, x, x, need_weights=False)[0])

    class Axes(nn.Module):
        def forward(
            self, x: torch.Tensor, state: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return x.permute(0, 2, 3, 1).reshape(1, -1, 4), x + state.sum(), 2 * state

    torch.manual_seed(3)
    cases: list[tuple[nn.Module, list[tuple[int, ...]], int]] = [
        (Block(), [(1, 5, 16)], 1),
        (Axes(), [(1, 4, 6, 8), (2, 1, 8)], 3),
    ]
    for number, (module, shapes, outputs) in enumerate(cases):
        arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        program = scripted(module, tmp_path / f"source{number}", *arrays, outputs=outputs)
        artifact = BACKEND.convert(program, target(), None, tmp_path / f"out{number}")
        with torch.no_grad():
            expected = module(*(torch.from_numpy(array) for array in arrays))
        wanted = expected if isinstance(expected, tuple) else (expected,)
        for got, want in zip(run(artifact, *arrays), wanted, strict=True):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


def test_a_dynamic_program_of_torch_goes_through_a_trace_of_batch_1(tmp_path: Path) -> None:
    artifact = BACKEND.convert(programs.cnn_pt2(tmp_path / "source"), target(), None, tmp_path / "out")
    assert "converted through torchscript" in artifact.notes
    assert any("batch made static" in note for note in artifact.notes)
    assert artifact.inputs[0].shape == (1, *programs.CNN_IMAGE)


def test_a_recurrent_layer_of_torch_goes_through_onnx(tmp_path: Path, rng: np.random.Generator) -> None:
    import torch
    from torch import nn

    from edgewright.sources.load import load_module

    class Listener(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.listen = nn.LSTM(8, 16, batch_first=True)
            self.answer = nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.answer(self.listen(x)[0][:, -1])

    torch.manual_seed(5)
    module = Listener().eval()
    heard = rng.normal(size=(1, 5, 8)).astype(np.float32)
    program = load_module(module, torch.from_numpy(heard), workdir=tmp_path)
    artifact = BACKEND.convert(program, target(), None, tmp_path / "out")
    assert "converted through onnx" in artifact.notes
    with torch.no_grad():
        expected = module(torch.from_numpy(heard)).numpy()
    np.testing.assert_allclose(run(artifact, heard)[0], expected, rtol=1e-4, atol=1e-5)


def test_rows_of_an_embedding_are_looked_up_by_int64(tmp_path: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(4)
    module = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 3))
    words = np.array([[1, 49, 0, 7]], dtype=np.int64)
    program = scripted(module, tmp_path / "source", words)
    artifact = BACKEND.convert(program, target(), None, tmp_path / "out")
    (got,) = run(artifact, words)
    with torch.no_grad():
        np.testing.assert_allclose(got, module(torch.from_numpy(words)).numpy(), rtol=1e-5, atol=1e-6)


def test_outputs_are_copies_and_inputs_may_be_freed(tmp_path: Path, rng: np.random.Generator) -> None:
    artifact = BACKEND.convert(programs.cnn_onnx(tmp_path / "source"), target(), None, tmp_path / "out")
    session = BACKEND.open(artifact, target())
    images = rng.normal(size=(20, 1, *programs.CNN_IMAGE)).astype(np.float32)
    kept = [session.run({"image": image.copy()})["logits"] for image in images]
    again = [session.run({"image": image.copy()})["logits"] for image in images]
    np.testing.assert_array_equal(np.stack(kept), np.stack(again))
    assert len({array.tobytes() for array in kept}) == 20


def test_threads_do_not_change_the_numbers_beyond_rounding(tmp_path: Path, rng: np.random.Generator) -> None:
    artifact = BACKEND.convert(programs.cnn_onnx(tmp_path / "source"), target(), None, tmp_path / "out")
    image = rng.normal(size=(1, *programs.CNN_IMAGE)).astype(np.float32)
    one = BACKEND.open(artifact, target()).run({"image": image})["logits"]
    two = BACKEND.open(artifact, target(threads=2)).run({"image": image})["logits"]
    np.testing.assert_allclose(np.asarray(one), np.asarray(two), rtol=1e-5, atol=1e-6)


def test_every_operator_that_ncnn_lacks_is_named(tmp_path: Path) -> None:
    import torch
    from torch import nn

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x) + torch.cumsum(x, 1) + torch.erfinv(x)

    program = scripted(Odd(), tmp_path, np.full((1, 4), 0.5, dtype=np.float32))
    with pytest.raises(ConversionError, match=r"aten::erfinv, aten::special_bessel_j0"):
        BACKEND.convert(program, target(), None, tmp_path / "out")
    assert not any((tmp_path / "out").glob("*.param"))


def test_a_tensor_of_rank_5_is_refused_though_pnnx_goes_on(tmp_path: Path) -> None:
    import torch
    from torch import nn

    class Shuffle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(1, 2, 4, 4, 8).permute(0, 1, 4, 2, 3).reshape(1, 64, 4)

    program = scripted(Shuffle(), tmp_path, np.zeros((1, 8, 4, 8), dtype=np.float32))
    with pytest.raises(ConversionError, match=r"Tensor\.reshape.*5-rank"):
        BACKEND.convert(program, target(), None, tmp_path / "out")


def test_a_batch_of_two_is_refused(tmp_path: Path) -> None:
    from torch import nn

    program = scripted(nn.Conv2d(3, 4, 3), tmp_path, np.zeros((2, 3, 8, 8), dtype=np.float32))
    with pytest.raises(ConversionError, match="must be 1"):
        BACKEND.convert(program, target(), None, tmp_path / "out")


def test_a_broken_source_is_refused(tmp_path: Path) -> None:
    program = programs.mlp_onnx(tmp_path)
    program.path.write_bytes(program.path.read_bytes()[:200])
    with pytest.raises(ConversionError, match="cannot be read as ONNX"):
        BACKEND.convert(program, target(), None, tmp_path / "out")
    with pytest.raises(ConversionError, match="pnnx"):
        BACKEND.convert(replace(program, format="torchscript"), target(), None, tmp_path / "out")


def test_refusals_need_no_conversion(tmp_path: Path) -> None:
    program = programs.mlp_onnx(tmp_path)
    assert "tools" in str(BACKEND.refuses(program, target("w8")))
    wide = replace(program, inputs=(TensorSpec(name="x", shape=(1, 2, 2, 2, 2, 2), dtype="float32"),))
    assert "rank 1 to 4" in str(BACKEND.refuses(wide, target()))
    flags = replace(program, inputs=(TensorSpec(name="x", shape=(1, 2), dtype="bool"),))
    assert "bool" in str(BACKEND.refuses(flags, target()))
    counts = replace(program, outputs=(TensorSpec(name="y", shape=(1,), dtype="int64"),))
    assert "int64" in str(BACKEND.refuses(counts, target()))
    with pytest.raises(FormatMismatchError):
        BACKEND.convert(replace(program, format="tflite"), target(), None, tmp_path / "out")


def test_a_session_checks_its_file_and_its_inputs(tmp_path: Path) -> None:
    program = programs.mlp_onnx(tmp_path / "source")
    artifact = BACKEND.convert(program, target(), None, tmp_path / "out")
    session = BACKEND.open(artifact, target())
    with pytest.raises(DataError):
        session.run({"left": np.zeros((2, 6), np.float32), "right": np.zeros((2, 3), np.float32)})
    text = artifact.path.read_text()
    artifact.path.write_text(text.replace("0=6 1=1", "0=7 1=1"))
    with pytest.raises(IntegrityError, match="in0"):
        BACKEND.open(artifact, target())
    artifact.path.write_text(text.replace("InnerProduct", "OuterProduct"))
    with pytest.raises(ConversionError, match="OuterProduct"):
        BACKEND.open(artifact, target())
    artifact.path.write_text(text)
    artifact.files[1].write_bytes(b"\0" * 16)
    with pytest.raises(ConversionError, match="cannot load"):
        BACKEND.open(artifact, target())


def test_ultraface_agrees_with_onnx_runtime(assets: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    from edgewright.backends.reference import ReferenceBackend
    from edgewright.sources.load import load

    program = load(str(assets / "models/ultraface-slim/version-slim-320.onnx"), workdir=tmp_path)
    plain = Target(runtime="reference")
    reference = ReferenceBackend()
    source = reference.open(reference.convert(program, plain, None, tmp_path), plain)
    image = rng.normal(size=(1, 3, 240, 320)).astype(np.float32)
    expected = source.run({program.inputs[0].name: image})
    artifact = BACKEND.convert(program, target(), None, tmp_path / "out")
    for spec, got in zip(program.outputs, run(artifact, image), strict=True):
        assert np.abs(got - expected[spec.name]).max() < 1e-5


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("", FormatMismatchError, "begins with"),
        ("7767518\n1 1\n", FormatMismatchError, "begins with"),
        ("7767517\n", IntegrityError, "line 2"),
        ("7767517\n99999999 1\n", IntegrityError, "at most"),
        ("7767517\n2 1\nInput in0 0 1 in0\n", IntegrityError, "promises 2"),
        ("7767517\n1 1\nInput in0 0 99999 in0\n", IntegrityError, "promises 0 inputs and 99999"),
        ("7767517\n1 1\nInput in0 0 1 in0 nonsense\n", IntegrityError, "no id=value"),
        ("7767517\n1 1\nReLU r 1 1 a b\n", IntegrityError, "before it is written"),
        ("7767517\n1 1\nInput\n", IntegrityError, "line 3"),
    ],
)
def test_a_damaged_param_is_refused(tmp_path: Path, text: str, kind: type[Exception], why: str) -> None:
    path = tmp_path / "model.param"
    path.write_text(text)
    with pytest.raises(kind, match=why):
        ncnn_file.read_param(path)
