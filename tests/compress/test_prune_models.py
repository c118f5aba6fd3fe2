"""Structured pruning of networks as people write them: what breaks is found before, and named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.backends import programs
from torch import Tensor, nn
from torch.nn import functional

from edgewright.compress.module import to_module, trace
from edgewright.compress.passes import Bench
from edgewright.compress.prune_graph import count_costs
from edgewright.compress.prune_heads import refit
from edgewright.compress.pruning import PASS, PruneOptions, prune
from edgewright.core.errors import ConversionError
from edgewright.sources.torch_export import export_module

pytestmark = pytest.mark.toolchain("torch", "torch_pruning")


class Lenet(nn.Module):
    """LeNet-5 with the size of its feature maps written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(1, 8, 5)
        self.high = nn.Conv2d(8, 16, 5)
        self.hidden = nn.Linear(256, 120)
        self.classify = nn.Linear(120, 10)

    def forward(self, image: Tensor) -> Tensor:
        low = functional.max_pool2d(torch.relu(self.low(image)), 2)
        high = functional.max_pool2d(torch.relu(self.high(low)), 2)
        flat = high.reshape(-1, 256)
        logits: Tensor = self.classify(torch.relu(self.hidden(flat)))
        return logits


class Flipped(nn.Module):
    """An operation that puts channels into another order, which no size tells."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 64, 3, padding=1)
        self.classify = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        flipped = self.first(image).flip(1)
        logits: Tensor = self.classify(torch.relu(self.second(flipped)).mean((2, 3)))
        return logits


class Detector(nn.Module):
    """Two heads whose outputs are turned around and joined, as single-shot detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1))
        self.deep = nn.Conv2d(64, 64, 3, stride=2, padding=1)
        self.heads = nn.ModuleList([nn.Conv2d(64, 8, 1), nn.Conv2d(64, 8, 1)])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        high = torch.relu(self.body(image))
        maps = [high, torch.relu(self.deep(high))]
        boxes = [
            head(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4)
            for head, x in zip(self.heads, maps, strict=True)
        ]
        joined = torch.cat(boxes, 1)
        return joined[:, :, :2], joined[:, :, 2:].softmax(-1)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = 4
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, length, _ = x.shape
        q, k, v = (
            layer(x).view(count, length, self.num_heads, -1).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        made: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, length, -1))
        return made


class TorchAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.mha(x, x, x, need_weights=False)[0]
        return made


class Transformer(nn.Module):
    def __init__(self, attention: type[nn.Module], width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Linear(16, width)
        self.place = nn.Parameter(torch.randn(1, 12, width))
        self.norm = nn.LayerNorm(width)
        self.attention = attention(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.classify = nn.Linear(width, 10)

    def forward(self, series: Tensor) -> Tensor:
        x = self.embed(series) + self.place
        x = x + self.attention(self.norm(x))
        x = x + self.down(functional.gelu(self.up(x)))
        logits: Tensor = self.classify(x.mean(1))
        return logits


IMAGE = (torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)),)
COLOUR = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),)
SERIES = (torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(2)),)
HEADS = {"attention.[qkv]": 4}


def remaining_macs(before: nn.Module, after: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    return count_costs(after.eval(), inputs).macs / count_costs(before.eval(), inputs).macs


def require_sound(module: nn.Module, inputs: tuple[Tensor, ...], tmp_path: Path) -> None:
    for size in (1, 2, 3):
        batch = tuple(torch.cat([tensor[:1]] * size) for tensor in inputs)
        assert module(*batch).shape == (size, 10)
    export_module(module, inputs, workdir=tmp_path, origin="pruned")


def test_fixed_reshape_is_refused_by_name() -> None:
    with pytest.raises(
        ConversionError,
        match=r"layer high: reshape makes \[8, 256\] of the output of 'high' \[8, 16, 4, 4\] in "
        r"test_prune_models\.py:\d+: flat = high\.reshape\(-1, 256\).*(\n.*)*x\.flatten\(1\).*ignore=\['high'\]",
    ):
        prune(Lenet(), IMAGE, macs=0.5)


@pytest.mark.parametrize("way", ["ignore", "keep_fixed"])
def test_fixed_reshape_may_be_left_whole(way: str, tmp_path: Path) -> None:
    module = Lenet()
    ignore = ("high",) if way == "ignore" else ()
    pruned = prune(module, IMAGE, macs=0.5, ignore=ignore, keep_fixed=way == "keep_fixed")
    assert remaining_macs(module, pruned, IMAGE) == pytest.approx(0.5, rel=0.05)
    assert pruned.get_submodule("high").out_channels == 16
    require_sound(pruned, IMAGE, tmp_path)


def test_program_of_the_fixed_reshape_is_no_obstacle(tmp_path: Path) -> None:
    module = trace(Lenet(), IMAGE)  # its view of [n, 16, 4, 4] as [n, 256] has become a flatten
    pruned = prune(module, IMAGE, macs=0.5, global_ranking=False)
    assert pruned.get_submodule("high").out_channels < 16  # type: ignore[operator]
    require_sound(pruned, IMAGE, tmp_path)


def test_silently_wrong_order_of_channels_is_found() -> None:
    """A flipped layer can be made narrower without an error, and then pairs the wrong channels."""
    torch.manual_seed(0)
    module = Flipped()
    pruned = prune(module, COLOUR, macs=0.7, round_to=1)
    assert pruned.get_submodule("first").out_channels == 32
    assert remaining_macs(module, pruned, COLOUR) == pytest.approx(0.7, rel=0.05)
    with pytest.raises(ConversionError, match=r"no layer.*first: without these channels"):
        prune(module, COLOUR, macs=0.5, ignore=("second",))


def test_heads_of_detectors_stay(tmp_path: Path) -> None:
    module = trace(Detector(), COLOUR)
    pruned = prune(module, COLOUR, macs=0.5)
    assert remaining_macs(module, pruned, COLOUR) == pytest.approx(0.5, rel=0.05)
    assert [tuple(t.shape) for t in pruned(*COLOUR)] == [tuple(t.shape) for t in module(*COLOUR)]
    assert all(pruned.get_submodule(f"heads.{n}").out_channels == 8 for n in (0, 1))
    export_module(pruned, COLOUR, workdir=tmp_path, origin="pruned")


def test_shared_weights_stay_whole() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 10)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.third(torch.relu(self.second(torch.relu(self.first(x)))))
            return made

    with pytest.raises(
        ConversionError, match=r"no layer of this model can lose channels.*first shares its weight"
    ):
        prune(Tied(), (torch.randn(2, 32),), macs=0.5)


@pytest.mark.parametrize("is_graph", [False, True])
def test_whole_heads_go(is_graph: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module: nn.Module = Transformer(Attention).eval()
    with torch.no_grad():  # the third head gives nothing
        module.get_submodule("attention.v").weight[32:48] = 0  # type: ignore[operator, index]
        module.get_submodule("attention.v").bias[32:48] = 0  # type: ignore[operator, index]
        module.get_submodule("attention.proj").weight[:, 32:48] = 0  # type: ignore[operator, index]
    if is_graph:
        module = trace(module, SERIES)
    pruned = prune(module, SERIES, macs=0.92, heads=HEADS, ignore=("embed", "up"))
    for name in "qkv":
        assert pruned.get_submodule(f"attention.{name}").out_features == 48
    torch.testing.assert_close(pruned(*SERIES), module(*SERIES), rtol=1e-5, atol=1e-5)
    if not is_graph:
        assert pruned.get_submodule("attention").num_heads == 3
        assert module.get_submodule("attention").num_heads == 4
    require_sound(pruned, SERIES, tmp_path)


@pytest.mark.parametrize("attention", [Attention, TorchAttention])
@pytest.mark.parametrize("is_graph", [False, True])
def test_transformer_without_named_heads_keeps_them(
    attention: type[nn.Module], is_graph: bool, tmp_path: Path
) -> None:
    module: nn.Module = Transformer(attention).eval()
    module = trace(module, SERIES) if is_graph else module
    pruned = prune(module, SERIES, macs=0.6)
    assert remaining_macs(module, pruned, SERIES) == pytest.approx(0.6, rel=0.05)
    assert pruned.get_submodule("up").out_features < 256  # type: ignore[operator]
    require_sound(pruned, SERIES, tmp_path)


@pytest.mark.parametrize(
    ("old", "taken", "given", "expected"),
    [
        ((2, 12, 64), (2, 12, 48), (2, 12, 4, 16), (2, 12, 3, 16)),
        ((2, 12, 4, 16), (2, 12, 3, 16), (2, 12, 64), (2, 12, 48)),
        ((2, 12, 4, 16), (2, 12, 3, 16), (24, 64), (24, 48)),
        ((2, 12, 64), (2, 12, 61), (2, 12, 4, 16), None),
        ((2, 1, 12), (2, 1, 12), (2, 12, 1), (2, 12, 1)),
    ],
)
def test_views_follow_the_heads(
    old: tuple[int, ...], taken: tuple[int, ...], given: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    assert refit(old, taken, given) == expected


def test_notes_say_why_attention_stays(tmp_path: Path) -> None:
    program = export_module(Transformer(Attention), SERIES, workdir=tmp_path, origin="transformer")
    bench = Bench(
        folder=tmp_path / "step",
        calibration=[SERIES],
        labels=None,
        fit=lambda stage, module, epochs: None,
        teacher=None,
        original=program,
        report=lambda line, share: None,
    )
    made = PASS.run(program, PruneOptions(macs=0.6), bench)
    (note,) = made.notes
    assert "attention.q" in note and "whole: attention with a fixed number of heads" in note


@pytest.mark.parametrize("importance", ["taylor", "batchnorm"])
def test_other_importances_find_what_does_nothing(importance: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, groups=2),
        nn.GroupNorm(2, 64),
        nn.Flatten(),
        nn.Linear(64 * 64, 10),
    ).eval()
    gone = [3, 5, 6, 9]
    gone += [channel + 16 for channel in gone]  # of both groups the same
    with torch.no_grad():
        for channel in gone:
            module[1].weight[channel] = 0
            module[1].bias[channel] = 0
    pruned = prune(
        module,
        COLOUR,
        macs=0.77,
        importance=importance,  # type: ignore[arg-type]
        calibration=[COLOUR],
        labels=[torch.tensor([1, 7])],
        ignore=("3",),
        round_to=1,
    )
    assert pruned.get_submodule("0").out_channels == 24
    torch.testing.assert_close(pruned(*COLOUR), module(*COLOUR), rtol=1e-5, atol=1e-5)
    require_sound(pruned, COLOUR, tmp_path)


def test_program_from_onnx_is_pruned(tmp_path: Path) -> None:
    from edgewright.bridges import registry

    source = programs.cnn_onnx(tmp_path)
    program = source
    for bridge in registry.route("onnx", ("pt2",), runtime="pruning"):
        program = bridge.convert(program, tmp_path)
    module = to_module(program)
    shape = [2 if size is None else size for size in program.inputs[0].shape]
    inputs = (torch.randn(*shape),)
    pruned = prune(module, inputs, macs=0.6, round_to=1)
    assert remaining_macs(module, pruned, inputs) == pytest.approx(0.6, rel=0.06)
    assert pruned(*inputs).shape == module(*inputs).shape


def test_parametrized_and_quantized_models_are_refused() -> None:
    module = Lenet()
    nn.utils.parametrizations.weight_norm(module.hidden)
    with pytest.raises(ConversionError, match=r"layer 'hidden' computes its weight.*Prune first"):
        prune(module, IMAGE, macs=0.5)
