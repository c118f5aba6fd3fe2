"""PyTorch sources: factories, weights, live modules, `.pt2`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import ConversionError, UnknownNameError, UsageError
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec
from edgewright.sources import inspect, load, load_module

pytestmark = pytest.mark.toolchain("torch")
FACTORY = "tests.sources.models_under_test:"


def _run(program: Program, *inputs: np.ndarray) -> list[np.ndarray]:
    import torch

    module = torch.export.load(program.path).module()
    outputs = module(*(torch.from_numpy(array) for array in inputs))
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return [output.detach().numpy() for output in outputs]


def test_a_factory_keeps_a_dynamic_batch(tmp_path: Path) -> None:
    program = load(f"{FACTORY}tiny", workdir=tmp_path, input_shapes=["1x3x8x8"])
    assert program.inputs == (
        TensorSpec(name="image", shape=(None, 3, 8, 8), dtype="float32", layout="nchw"),
    )
    assert program.outputs == (TensorSpec(name="output", shape=(None, 2), dtype="float32"),)
    assert (program.format, program.origin_format, program.precision) == ("pt2", "torch", "fp32")
    assert [_run(program, np.zeros((n, 3, 8, 8), np.float32))[0].shape for n in (1, 2, 5)] == [
        (1, 2),
        (2, 2),
        (5, 2),
    ]
    again = load(f"{FACTORY}tiny", workdir=tmp_path / "again", input_shapes=["4x3x8x8"])
    assert again.sha256 == program.sha256


def test_a_batch_that_cannot_be_dynamic_is_made_static_with_a_note(tmp_path: Path, read_factory) -> None:
    program = read_factory(f"{FACTORY}batch_of_two", ["2x3"])
    assert program.inputs[0].shape == (2, 3)
    assert any(note.startswith("batch made static (2): ") for note in program.notes)


def test_two_inputs_by_name_and_their_layout(tmp_path: Path, read_factory) -> None:
    import torch
    from tests.sources import models_under_test

    shapes = ["ids=1x4:int64", "image=1x3x5x6"]
    program = read_factory(f"{FACTORY}two_inputs", shapes)
    assert [str(spec) for spec in program.inputs] == ["image: float32[?, 3, 5, 6]", "ids: int64[?, 4]"]
    assert [spec.name for spec in program.outputs] == ["output_0", "output_1"]
    moved = read_factory(f"{FACTORY}two_inputs", shapes, layout="nhwc", folder="nhwc")
    assert [str(spec) for spec in moved.inputs] == ["image: float32[?, 5, 6, 3]", "ids: int64[?, 4]"]
    assert [spec.layout for spec in (*moved.inputs, *moved.outputs)] == ["nhwc", None, "nhwc", None]
    image = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32)
    ids = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    with torch.no_grad():
        want = models_under_test.two_inputs().eval()(torch.from_numpy(image), torch.from_numpy(ids))
    got = _run(program, image, ids)
    got_moved = _run(moved, np.ascontiguousarray(image.transpose(0, 2, 3, 1)), ids)
    for index in (0, 1):
        np.testing.assert_allclose(got[index], want[index].numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got_moved[0].transpose(0, 3, 1, 2), want[0].numpy(), rtol=1e-5, atol=1e-6)


def test_a_pt2_file_can_be_moved_to_nhwc(tiny_pt2: Path, tmp_path: Path) -> None:
    plain = load(str(tiny_pt2), workdir=tmp_path)
    moved = load(str(tiny_pt2), workdir=tmp_path / "nhwc", layout="nhwc")
    assert (plain.inputs[0].name, plain.inputs[0].layout) == ("image", "nchw")
    assert (moved.inputs[0].shape, moved.inputs[0].layout) == ((None, 8, 8, 3), "nhwc")
    image = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        _run(moved, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))[0],
        _run(plain, image)[0],
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_real_resnet20_weights_fit_the_factory(assets: Path, tmp_path: Path) -> None:
    weights = assets / "models/cifar-resnet/resnet20-12fca82f.th"
    program = load(f"{FACTORY}resnet20", workdir=tmp_path, weights=weights, input_shapes=["1x3x32x32"])
    assert any("'state_dict'" in note for note in program.notes)
    assert any('"module."' in note for note in program.notes)
    found = inspect(program)
    # He et al. 2015, table 6: 0.27 M parameters; 41 M multiply-adds.
    assert found.parameters == 269_722
    assert found.macs == 40_551_040
    assert found.operators["conv2d"] == 19
    assert sum(layer.parameters for layer in found.layers) == found.parameters


def test_safetensors_weights(tmp_path: Path, read_factory) -> None:
    import torch
    from safetensors.torch import save_file
    from tests.sources import models_under_test

    module = models_under_test.tiny()
    with torch.no_grad():
        module.head.bias += 3.0
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    shapes = ["1x3x8x8"]
    program = read_factory(f"{FACTORY}tiny", shapes, weights=tmp_path / "w.safetensors")
    plain = read_factory(f"{FACTORY}tiny", shapes, folder="plain")
    image = np.ones((1, 3, 8, 8), np.float32)
    np.testing.assert_allclose(_run(program, image)[0] - _run(plain, image)[0], 3.0, rtol=1e-5)
    assert program.sha256 != plain.sha256


def test_weights_that_do_not_fit_are_named(tmp_path: Path, read_factory) -> None:
    import torch
    from tests.sources import models_under_test

    state = models_under_test.tiny().state_dict()
    state["convv.weight"] = state.pop("conv.weight")
    state["head.weight"] = torch.zeros(3, 4)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UsageError) as caught:
        read_factory(f"{FACTORY}tiny", ["1x3x8x8"], weights=tmp_path / "w.pth")
    text = str(caught.value)
    assert "missing 1: 'conv.weight' (the file has 'convv.weight')" in text
    assert "unexpected 1: 'convv.weight'" in text
    assert "'head.weight' is [3, 4], not [2, 4]" in text


@pytest.mark.parametrize(
    ("spec", "shapes", "error", "reason"),
    [
        (f"{FACTORY}tiny", ["3,8,8"], UsageError, "not understood"),
        (f"{FACTORY}tiny", ["1x0x8x8"], UsageError, "0 elements"),
        (f"{FACTORY}tiny", ["1x5x8x8"], UsageError, "refuses inputs of float32"),
        (f"{FACTORY}tiny", ["picture=1x3x8x8"], UnknownNameError, "unknown input 'picture'"),
        (f"{FACTORY}tinny", ["1x3x8x8"], UnknownNameError, "Did you mean 'tiny'"),
        (f"{FACTORY}not_a_module", ["1"], UsageError, "returned int"),
        (f"{FACTORY}broken", ["1"], ConversionError, "no such dataset"),
        ("tests.no_such_module:f", ["1"], UsageError, "cannot import"),
    ],
)
def test_wrong_factories_and_shapes(
    spec: str, shapes: list[str], error: type[Exception], reason: str, read_factory
) -> None:
    with pytest.raises(error, match=reason):
        read_factory(spec, shapes)


def test_a_factory_needs_the_shape_of_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the shape"):
        load(f"{FACTORY}tiny", workdir=tmp_path)


def test_a_live_module_keeps_its_mode_and_gradients(tmp_path: Path) -> None:
    import torch
    from tests.sources import models_under_test

    module = models_under_test.tiny().train()
    module.norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    program = load_module(module, (torch.randn(4, 3, 8, 8),), workdir=tmp_path)
    assert module.training
    assert not module.norm.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert program.inputs[0].shape == (None, 3, 8, 8)


def test_a_random_module_is_refused(tmp_path: Path) -> None:
    import torch

    class Noisy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    with pytest.raises(ConversionError, match="does not agree with the module"):
        load_module(Noisy(), torch.zeros(2, 3), workdir=tmp_path)


def test_reading_is_done_without_vendor_packages_in_the_parent(tiny_onnx: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgewright.sources import load; "
        f"load({str(tiny_onnx)!r}, workdir=Path({str(tmp_path)!r})); "
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'ai_edge_litert') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.toolchain("torchao")
def test_a_quantized_pt2_is_read(tmp_path: Path) -> None:
    """PT2E programs call operators that plain torch does not know."""
    code = (
        "import warnings; warnings.simplefilter('ignore'); import sys, torch\n"
        "from tests.sources import models_under_test\n"
        "from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e\n"
        "from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86\n"
        "quantizer = x86.X86InductorQuantizer()\n"
        "quantizer.set_global(x86.get_default_x86_inductor_quantization_config())\n"
        "inputs = (torch.ones(2, 3, 8, 8),)\n"
        "module = torch.export.export(models_under_test.tiny().eval(), inputs).module()\n"
        "prepared = prepare_pt2e(module, quantizer)\n"
        "prepared(*inputs)\n"
        "quantized = convert_pt2e(prepared, fold_quantize=False)\n"
        "torch.export.save(torch.export.export(quantized, inputs), sys.argv[1])\n"
    )
    path = tmp_path / "quantized.pt2"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)
    program = load(str(path), workdir=tmp_path)
    assert program.precision == "w8a8"
    assert inspect(program).macs == 2 * (64 * 4 * 27 + 36 * 4 * 9 + 8)
