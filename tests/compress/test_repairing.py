"""Repair: it keeps the budget that plain int8 breaks, in every runtime alike, and refuses what it cannot do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from edgewright.backends import registry
from edgewright.backends.vendor import load_exported
from edgewright.compress.module import to_module
from edgewright.compress.passes import Bench
from edgewright.compress.repairing import PASS, RepairOptions, repair
from edgewright.compress.sensitivity import compare
from edgewright.core.errors import BudgetError, ConversionError, DataError, UnknownNameError, UsageError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.sources.torch_export import export_module

if TYPE_CHECKING:
    import torch
    from torch import nn

pytestmark = pytest.mark.toolchain("torch", "torchao")
CLASSES = 6


def images(count: int, seed: int) -> torch.Tensor:
    """Return images of CLASSES kinds of stripes under noise: float32 [count, 1, 10, 10]."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(CLASSES, (count,), generator=generator)
    columns = torch.arange(10.0)
    stripes = torch.sin(columns[None, :] * (0.4 + 0.45 * kinds[:, None]))[:, None, None, :].repeat(
        1, 1, 10, 1
    )
    return stripes + 0.8 * torch.randn(count, 1, 10, 10, generator=generator)


def build(activation: type[nn.Module], *, scale_behind: str) -> nn.Module:
    """Return a trained separable network with channels of sizes 1/256 to 256 before the layer `scale_behind`."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(7)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, bias=False),
        nn.BatchNorm2d(16),
        activation(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
        nn.BatchNorm2d(16),
        activation(),
        nn.Conv2d(16, 24, 1, bias=False),
        nn.BatchNorm2d(24),
        activation(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(24, CLASSES),
    )
    factor = 2.0 ** (torch.rand(16, generator=generator) * 16 - 8)
    norm, behind = net[int(scale_behind) - 2], net[int(scale_behind)]
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(behind, nn.Conv2d)
    frozen = activation is not nn.ReLU
    if frozen:  # no function is kept by rescaling, so the network learns with the sizes that it is given
        norm.weight.data.copy_(factor)
        norm.weight.requires_grad_(False)
        shape = (-1, 1, 1, 1) if behind.groups > 1 else (1, -1, 1, 1)
        behind.weight.data.div_(factor.reshape(shape))
    train(net)
    if not frozen:
        with torch.no_grad():
            norm.weight.mul_(factor)
            norm.bias.mul_(factor)
            behind.weight.div_(factor.reshape((-1, 1, 1, 1) if behind.groups > 1 else (1, -1, 1, 1)))
    return net.eval()


def train(net: nn.Module) -> None:
    import torch

    given = images(512, seed=1)
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    kinds = torch.randint(CLASSES, (512,), generator=generator)
    for _ in range(40):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(given), kinds).backward()
        optimiser.step()
    net.eval()
    with torch.no_grad():
        assert float((net(given).argmax(1) == kinds).double().mean()) > 0.9


def labels_of(seed: int, count: int) -> torch.Tensor:
    """Return the kinds that `images` with the same seed shows."""
    import torch

    return torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(seed))


def batches(seed: int = 2, count: int = 128) -> list[tuple[torch.Tensor]]:
    return [(part,) for part in images(count, seed).split(32)]


@pytest.fixture(scope="module")
def relu_net() -> nn.Module:
    from torch import nn

    return build(nn.ReLU, scale_behind="6")


@pytest.fixture(scope="module")
def hard_swish_net() -> nn.Module:
    from torch import nn

    return build(nn.Hardswish, scale_behind="6")


def bench(folder: Path, calibration: list[tuple[torch.Tensor]], program: Program) -> Bench:
    def fit(stage: str, module: nn.Module, epochs: int, /) -> None:
        raise AssertionError("repair does not train")

    lines: list[str] = []
    return Bench(
        folder=folder,
        calibration=calibration,
        labels=None,
        fit=fit,
        teacher=None,
        original=program,
        report=lambda line, share: lines.append(line),
    )


def test_brings_the_loss_inside_the_budget_and_says_how(relu_net: nn.Module, tmp_path: Path) -> None:
    calibration = batches()
    program = export_module(relu_net, calibration[0], workdir=tmp_path, origin="net")
    made = PASS.run(program, RepairOptions(drop_points=1.0), bench(tmp_path / "repair", calibration, program))
    assert float(made.facts["drop points of plain w8a8"]) > 2
    assert float(made.facts["drop points"]) <= 1.0
    assert "equalize" in str(made.facts["methods"])
    assert made.facts["layers not w8a8"] == "none"
    assert made.program.precision == "w8a8"
    assert made.program.inputs == program.inputs
    assert made.program.history[-1].startswith("repair(equalize")
    assert [row["methods"] for row in made.tables["repair"]][:2] == ["plain w8a8", "equalize"]
    counts = [str(node.target) for node in load_exported(made.program).graph.nodes]
    assert counts.count("quantized_decomposed.quantize_per_channel.default") == 4


def test_layers_stay_float_where_channels_cannot_be_equalized(
    hard_swish_net: nn.Module, tmp_path: Path
) -> None:
    calibration = batches()
    program = export_module(hard_swish_net, calibration[0], workdir=tmp_path, origin="net")
    options = RepairOptions(drop_points=1.0, methods=("equalize", "bias", "precision"))
    made = PASS.run(program, options, bench(tmp_path / "repair", calibration, program))
    assert any(note.startswith("equalize left out") for note in made.notes)
    assert float(made.facts["drop points of plain w8a8"]) > float(made.facts["drop points"])
    assert float(made.facts["drop points"]) <= 1.0
    floats = [row["layer"] for row in made.tables["sensitivity"] if row["precision"] == "float"]
    assert floats
    assert "6" in floats
    module = to_module(made.program)
    for row in made.tables["sensitivity"]:
        if row["weights"]:
            layer = module.get_submodule(str(row["layer"]))
            assert hasattr(layer, "weight_quantizer") == (row["precision"] == "w8a8")


@pytest.mark.slow
@pytest.mark.toolchain("litert_torch", "onnxruntime", "openvino", "executorch")
@pytest.mark.parametrize(
    ("kind", "fallback", "runtimes"),
    [
        ("relu", "float", ("litert", "onnxruntime", "openvino", "executorch")),
        ("hard_swish", "float", ("litert", "onnxruntime", "openvino", "executorch")),
        ("hard_swish", "w8", ("litert", "onnxruntime", "openvino")),
    ],
)
def test_every_runtime_gives_the_same_numbers(
    kind: str,
    fallback: Literal["float", "w8"],
    runtimes: tuple[str, ...],
    relu_net: nn.Module,
    hard_swish_net: nn.Module,
    tmp_path: Path,
) -> None:
    import torch

    net = relu_net if kind == "relu" else hard_swish_net
    calibration = batches()
    exported = repair(
        net, calibration[0], calibration=calibration, drop_points=1.0, iterations=100, fallback=fallback
    )
    given = images(64, seed=9)
    with torch.no_grad():
        want = exported.module()(given).numpy()
        assert compare(net(given), torch.from_numpy(want)).agreement >= 0.96
    step = float(np.abs(want).max()) * 2 / 255
    program = export_module(exported.module(), (given,), workdir=tmp_path, origin="repaired")
    assert program.precision == "w8a8"
    for name in runtimes:
        backend, target = registry.get(name), Target(runtime=name, precision=Precision.W8A8)
        artifact = backend.convert(program, target, None, tmp_path / name)
        session = backend.open(artifact, target)
        got = np.concatenate(
            [
                session.run({artifact.inputs[0].name: given[i : i + 1].numpy()})[artifact.outputs[0].name]
                for i in range(len(given))
            ]
        )
        assert np.abs(got - want).max() <= 2 * step, name
        assert np.mean(got.argmax(1) == want.argmax(1)) >= 0.98, name


def test_labels_measure_the_loss_of_accuracy(relu_net: nn.Module, tmp_path: Path) -> None:
    calibration = batches()
    labels = list(labels_of(2, 128).split(32))
    program = export_module(relu_net, calibration[0], workdir=tmp_path, origin="net")
    given = replace(bench(tmp_path / "repair", calibration, program), labels=labels)
    made = PASS.run(program, RepairOptions(drop_points=1.0, methods=("equalize",)), given)
    assert float(made.facts["accuracy %"]) > 90
    with pytest.raises(DataError, match="labels"):
        repair(relu_net, calibration[0], calibration=calibration, labels=labels[:-1])


@pytest.mark.slow
def test_four_bits_go_where_they_cost_least(relu_net: nn.Module, tmp_path: Path) -> None:
    calibration = batches()
    program = export_module(relu_net, calibration[0], workdir=tmp_path, origin="net")
    options = RepairOptions(drop_points=5.0, weight_bytes=600, iterations=100)
    made = PASS.run(program, options, bench(tmp_path / "repair", calibration, program))
    assert int(made.facts["weight bytes"]) <= 600
    assert "w4a8" in str(made.facts["layers not w8a8"])
    assert any(".ewz" in note for note in made.notes)
    layers = to_module(made.program).named_modules()
    small = {
        name for name, layer in layers if getattr(getattr(layer, "weight_quantizer", None), "high", 0) == 7
    }
    assert small
    assert all(f"{name} (w4a8)" in str(made.facts["layers not w8a8"]) for name in small)


def test_budget_that_cannot_be_met_is_an_error(hard_swish_net: nn.Module) -> None:
    with pytest.raises(BudgetError, match="precision"):
        repair(hard_swish_net, batches()[0], calibration=batches(), drop_points=0.1, methods=("bias",))


def test_refuses_what_it_cannot_do(relu_net: nn.Module, tmp_path: Path) -> None:
    from torch import nn

    calibration = batches()
    with pytest.raises(UnknownNameError, match="equalize"):
        RepairOptions(methods=("equalise",))
    with pytest.raises(UsageError, match=r"w8a16 cannot be made: .*XNNPACK"):
        RepairOptions(fallback="w8a16")
    with pytest.raises(UnknownNameError, match="float"):
        RepairOptions(fallback="flaot")
    for wrong in ({"drop_points": -1.0}, {"drop_points": 101.0}, {"iterations": 0}, {"weight_bytes": -1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            RepairOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="calibration"):
        repair(relu_net, calibration[0], calibration=[])
    regression = nn.Sequential(nn.Conv2d(1, 1, 10), nn.Flatten(1)).eval()
    with pytest.raises(ConversionError, match="class scores"):
        repair(regression, calibration[0], calibration=calibration)
    program = export_module(relu_net, calibration[0], workdir=tmp_path, origin="net")
    with pytest.raises(UsageError, match="w8a8"):
        PASS.run(replace(program, precision="w8a8"), RepairOptions(), bench(tmp_path, calibration, program))
