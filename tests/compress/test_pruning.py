"""Structured pruning: the target is reached, what is removed is gone, and the rest computes what it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgewright.compress.module import to_module, trace
from edgewright.compress.passes import Bench
from edgewright.compress.prune_graph import count_costs
from edgewright.compress.pruning import PASS, PruneOptions, prune
from edgewright.core.errors import (
    ConversionError,
    DataError,
    TrainingError,
    UnknownNameError,
    UsageError,
)
from edgewright.sources import load_module
from edgewright.sources.torch_export import export_module

pytestmark = pytest.mark.toolchain("torch", "torch_pruning")


class Separable(nn.Module):
    """Convolutions with batch normalisation, a depthwise one, a residual sum, a concatenation, a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.point = nn.Sequential(nn.Conv2d(32, 64, 1), nn.BatchNorm2d(64), nn.PReLU(64))
        self.same = nn.Conv2d(64, 64, 3, padding=1)
        self.side = nn.Conv2d(32, 24, 1)
        self.join = nn.Conv2d(88, 48, 1)
        self.grouped = nn.Conv2d(48, 32, 3, stride=2, padding=1, groups=4)
        self.hidden = nn.Linear(32 * 4 * 4, 40)
        self.classify = nn.Linear(40, 10)

    def forward(self, image: Tensor) -> Tensor:
        low = self.depthwise(self.stem(image))
        high = self.point(low)
        high = torch.relu(high + self.same(high))
        both = self.grouped(self.join(torch.cat([high, self.side(low)], 1)))
        logits: Tensor = self.classify(torch.relu(self.hidden(both.flatten(1))))
        return logits


@pytest.fixture(scope="module")
def separable() -> Separable:
    torch.manual_seed(1)
    module = Separable().train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(16, 3, 8, 8) + 0.5)
    return module.eval()


IMAGES = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)


def remaining(before: nn.Module, after: nn.Module) -> tuple[float, float]:
    old, new = count_costs(before, IMAGES), count_costs(after.eval(), IMAGES)
    return new.macs / old.macs, new.parameters / old.parameters


def require_sound(module: nn.Module, inputs: tuple[Tensor, ...], tmp_path: Path, outputs: int = 10) -> None:
    """Check the shapes for three batches, and that the module exports with a dynamic batch."""
    for size in (1, 2, 3):
        batch = tuple(torch.cat([tensor[:1]] * size) for tensor in inputs)
        assert module(*batch).shape == (size, outputs)
    program = export_module(module, inputs, workdir=tmp_path, origin="pruned")
    assert program.notes == () and program.inputs[0].shape[0] is None


@pytest.mark.parametrize("prepare", [lambda module: module, lambda module: trace(module, IMAGES)])
@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_macs_reach_the_target(
    separable: Separable, share: float, prepare: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    module = prepare(separable)
    pruned = prune(module, IMAGES, macs=share)
    assert remaining(module, pruned)[0] == pytest.approx(share, rel=0.03)
    assert module(*IMAGES).shape == (2, 10) and remaining(module, module) == (1, 1)  # it is untouched
    require_sound(pruned, IMAGES, tmp_path)


@pytest.mark.parametrize("is_global", [True, False])
def test_parameters_reach_the_target(separable: Separable, is_global: bool, tmp_path: Path) -> None:
    pruned = prune(separable, IMAGES, parameters=0.4, global_ranking=is_global)
    assert remaining(separable, pruned)[1] == pytest.approx(0.4, rel=0.03)
    assert sum(p.numel() for p in pruned.parameters()) < 0.42 * sum(p.numel() for p in separable.parameters())
    require_sound(pruned, IMAGES, tmp_path)


def test_layers_keep_multiples(separable: Separable) -> None:
    widths = {n: len(w) for n, w in prune(separable, IMAGES, macs=0.5).state_dict().items() if w.ndim == 4}
    assert all(width % 8 == 0 for width in widths.values()), widths
    assert widths["stem.0.weight"] == widths["depthwise.weight"]
    assert widths["same.weight"] == widths["point.0.weight"] < 64


def test_channels_that_nobody_reads_are_removed_without_a_trace(separable: Separable) -> None:
    """A quarter of all channels is made zero; l2 must find them, and the outputs must stay."""
    module = prepared = trace(separable, IMAGES)
    with torch.no_grad():
        for name, inputs in (("classify", range(10)), ("point.0", range(8, 16))):
            layer = module.get_submodule(name)
            layer.weight[:, list(inputs)] = 0  # type: ignore[operator, index]
        module.get_submodule("hidden").weight[:10] = 0  # type: ignore[operator, index]
        module.get_submodule("stem.0").weight[8:16] = 0  # type: ignore[operator, index]
        module.get_submodule("side").weight[:, 8:16] = 0  # type: ignore[operator, index]
        module.get_submodule("stem.1").weight[8:16] = 0  # type: ignore[operator, index]
    pruned = prune(
        prepared,
        IMAGES,
        macs=0.975,
        round_to=1,
        ignore=("point.0", "same", "side", "join", "grouped"),
        keep_at_least=0.75,
    )
    state = pruned.state_dict()
    assert state["stem.0.weight"].shape[0] == 24 and state["hidden.weight"].shape[0] == 30
    torch.testing.assert_close(pruned(*IMAGES), module(*IMAGES), rtol=1e-5, atol=1e-5)


def test_steps_train_in_between(separable: Separable, tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    def train(module: nn.Module, epochs: int) -> None:
        assert module.training is False  # as it was given
        seen.append((epochs, remaining(separable, module)[0]))
        with torch.no_grad():
            module.classify.bias.add_(1)  # type: ignore[union-attr, operator]

    pruned = prune(
        separable, IMAGES, macs=0.4, steps=3, train=train, epochs=2, final_epochs=1, checkpoints=tmp_path
    )
    assert [epochs for epochs, _ in seen] == [2, 2, 3]
    assert [share for _, share in seen] == pytest.approx([0.8, 0.6, 0.4], rel=0.04)
    torch.testing.assert_close(pruned.classify.bias, separable.classify.bias + 3)  # type: ignore[union-attr]
    again = prune(
        separable, IMAGES, macs=0.4, steps=3, train=train, epochs=2, final_epochs=1, checkpoints=tmp_path
    )
    assert len(seen) == 3  # all three were there already
    assert torch.equal(again(*IMAGES), pruned(*IMAGES))


def test_training_is_asked_for(separable: Separable) -> None:
    with pytest.raises(TrainingError, match="prune-1"):
        prune(separable, IMAGES, macs=0.5, epochs=1)


def test_pass_writes_a_program(separable: Separable, tmp_path: Path) -> None:
    program = load_module(separable, IMAGES, workdir=tmp_path, layout=None)

    def refuse(stage: str, module: nn.Module, epochs: int) -> None:
        assert epochs == 0

    bench = Bench(
        folder=tmp_path / "step",
        calibration=[IMAGES],
        labels=None,
        fit=refuse,
        teacher=None,
        original=program,
        report=lambda line, share: None,
    )
    made = PASS.run(program, PruneOptions(macs=0.5), bench)
    assert made.facts["macs remaining"] == pytest.approx(0.5, rel=0.03)
    assert made.program.path == tmp_path / "step" / "model.pt2"
    assert made.program.history[-1] == "prune(macs 0.5, l2)"
    assert remaining(separable, to_module(made.program))[0] == made.facts["macs remaining"]
    rows = {row["layer"]: row for row in made.tables["Channels per layer"]}
    assert rows["classify"]["outputs"] == 10 and int(rows["stem.0"]["outputs"]) < 32


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "no target"),
        ({"macs": 0.5, "parameters": 0.5}, "macs, parameters; give exactly one"),
        ({"macs": 1.5}, r"outside 0\.\.1"),
        ({"latency": 0.0}, r"outside 0\.\.1"),
        ({"parameters": -0.1}, r"outside 0\.\.1"),
        ({"macs": float("nan")}, r"outside 0\.\.1"),
        ({"macs": 0.5, "steps": 0}, "steps is 0"),
        ({"macs": 0.5, "round_to": 0}, "round_to is 0"),
        ({"macs": 0.5, "keep_at_least": 1.0}, "keep_at_least is 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        PruneOptions(**options)  # type: ignore[arg-type]


def test_unknown_names_are_refused(separable: Separable) -> None:
    with pytest.raises(UnknownNameError, match="'taylor'"):
        PruneOptions(macs=0.5, importance="tailor")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"unknown layer 'steem\.0'.*Did you mean 'stem\.0'"):
        prune(separable, IMAGES, macs=0.5, ignore=("steem.0",))
    with pytest.raises(UsageError, match="3 heads are given for layer 'hidden', Linear with 40 outputs"):
        prune(separable, IMAGES, macs=0.5, heads={"hidden": 3})


def test_ignored_layers_keep_their_outputs(separable: Separable) -> None:
    pruned = prune(separable, IMAGES, macs=0.9, ignore=("same", "hid*"))
    state = pruned.state_dict()
    assert state["same.weight"].shape[0] == state["point.0.weight"].shape[0] == 64
    assert state["hidden.weight"].shape[0] == 40 and state["stem.0.weight"].shape[0] < 32


def test_what_cannot_be_reached_says_how_far_it_goes(separable: Separable) -> None:
    with pytest.raises(
        ConversionError, match=r"macs=0\.1 cannot be reached: \d+\.\d% remain .*same is ignored"
    ):
        prune(separable, IMAGES, macs=0.1, ignore=("same", "join", "grouped"))


def test_taylor_needs_labels(separable: Separable) -> None:
    with pytest.raises(DataError, match="taylor"):
        prune(separable, IMAGES, macs=0.5, importance="taylor")
