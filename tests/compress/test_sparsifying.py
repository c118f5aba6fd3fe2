"""Magnitude pruning: exact zeros where they belong, kept by any loop, in a program that computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.backends import programs
from torch import nn

from edgewright.compress.checkpoints import ResumableFit, silent
from edgewright.compress.masks import zeros_kept
from edgewright.compress.module import find_layer, to_module
from edgewright.compress.passes import Bench
from edgewright.compress.quantize import quantize_pt2e
from edgewright.compress.sparse_patterns import lamp_scores
from edgewright.compress.sparsifying import PASS, SparsifyOptions, cubic, sparsify, sparsity_table
from edgewright.core.errors import ConversionError, TrainingError, UnknownNameError, UsageError
from edgewright.core.target import Precision
from edgewright.sources import load_module

pytestmark = pytest.mark.toolchain("torch")


class Seen:
    """A rough training loop of the user's: its own optimizer, weight decay, momentum; it notes the zeros it saw."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.epochs: list[int] = []

    def __call__(self, module: nn.Module, epochs: int) -> None:
        self.shares.append(overall(module))
        self.epochs.append(epochs)
        module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
        for _ in range(3 * epochs):
            optimizer.zero_grad()
            module(torch.randn(8, *programs.CNN_IMAGE)).square().mean().backward()
            optimizer.step()


def overall(module: nn.Module) -> float:
    rows = sparsity_table(module)
    return sum(int(row["zeros"]) for row in rows) / sum(int(row["weights"]) for row in rows)


def layers_of(module: nn.Module) -> dict[str, float]:
    return {str(row["layer"]): float(row["sparsity"]) for row in sparsity_table(module)}


@pytest.fixture
def cnn() -> nn.Module:
    return programs.cnn_module()


@pytest.mark.parametrize("scope", ["global", "lamp", "layer"])
def test_share_is_exact_and_the_largest_weights_stay(cnn: nn.Module, scope: str) -> None:
    sparse = sparsify(cnn, sparsity=0.5, scope=scope)  # type: ignore[arg-type]
    assert overall(sparse) == pytest.approx(0.5, abs=0.002)
    if scope == "layer":
        assert all(share == pytest.approx(0.5, abs=0.01) for share in layers_of(sparse).values())
    for name, layer in sparse.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            before = cnn.get_submodule(name).weight
            assert isinstance(before, torch.Tensor)
            kept = layer.weight != 0
            assert torch.equal(layer.weight[kept], before[kept])
            if kept.any():
                assert before[kept].abs().min() >= before[~kept].abs().max()
    assert overall(cnn) == 0.0, "the given module is untouched"


def test_global_takes_the_smallest_of_all_layers() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    with torch.no_grad():
        first.weight.copy_(torch.arange(1.0, 17.0).view(4, 4))
        second.weight.copy_(torch.arange(1.0, 17.0).view(4, 4) * 10)
    module = nn.Sequential(first, second)
    # Of 1..16 and 10, 20, ... 160 the 16 smallest are 1..15 and one of the two 10s.
    assert layers_of(sparsify(module, sparsity=0.5, scope="global")) == {"0": 15 / 16, "1": 1 / 16}


def test_lamp_scores_are_of_the_paper() -> None:
    weights = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    expected = torch.tensor([[1 / 14, 4 / 13], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(lamp_scores(weights), expected)


def test_schedule_is_cubic_and_zeros_survive_the_users_loop(cnn: nn.Module) -> None:
    train = Seen()
    sparse = sparsify(cnn, sparsity=0.9, scope="lamp", steps=3, train=train, epochs=1, final_epochs=2)
    expected = [cubic(0.0, 0.9, step / 3) for step in (1, 2, 3)]
    assert expected == [pytest.approx(0.9 * (1 - (2 / 3) ** 3)), pytest.approx(0.9 * (1 - 1 / 27)), 0.9]
    assert train.shares == pytest.approx(expected, abs=0.002)
    assert train.epochs == [1, 1, 3]
    assert overall(sparse) == pytest.approx(0.9, abs=0.002), "training did not revive a weight"
    assert not any("parametrizations" in name for name in sparse.state_dict())
    assert type(sparse.stem) is nn.Conv2d


@pytest.mark.parametrize(("pattern", "kept"), [("2:4", 2), ("1:4", 1), ("3:5", 3)])
def test_pattern_keeps_the_largest_n_of_m(pattern: str, kept: int) -> None:
    module = nn.Sequential(nn.Conv2d(11, 3, 2), nn.Flatten(), nn.Linear(12, 6))
    sparse = sparsify(module, pattern=pattern, steps=2, train=None)
    group = int(pattern[-1])
    for before, after in ((module[0], sparse[0]), (module[2], sparse[2])):  # type: ignore[index]
        assert isinstance(before, (nn.Conv2d, nn.Linear)) and isinstance(after, (nn.Conv2d, nn.Linear))
        for start in range(0, before.weight.shape[1], group):
            own, new = before.weight[:, start : start + group], after.weight[:, start : start + group]
            count = min(kept, own.shape[1])
            assert (new.count_nonzero(dim=1) == count).all()
            top = own.abs().topk(count, dim=1).values.sort(dim=1).values
            assert torch.equal(new.abs().sort(dim=1).values[:, -count:], top)


def test_layers_without_a_group_stay_dense(cnn: nn.Module) -> None:
    shares = layers_of(sparsify(cnn, pattern="2:4"))
    assert shares == {"stem": 0, "depthwise": 0, "pointwise": 0.5, "classify": 0.5}
    with pytest.raises(ConversionError, match="fits no chosen layer"):
        sparsify(cnn, pattern="2:4", layers=("stem",))


def test_layers_can_have_their_own_share(cnn: nn.Module) -> None:
    shares = layers_of(sparsify(cnn, layer_sparsity={"point*": 0.5, "stem": 0.25}, skip=("classify",)))
    assert shares == {"stem": 0.25, "depthwise": 0, "pointwise": 0.5, "classify": 0}
    shares = layers_of(sparsify(cnn, sparsity=0.5, scope="layer", layer_sparsity={"classify": 0.75}))
    assert shares == {"stem": 0.5, "depthwise": 0.5, "pointwise": 0.5, "classify": 0.75}


def test_zeros_of_an_earlier_pass_stay(cnn: nn.Module) -> None:
    first = sparsify(cnn, sparsity=0.6)
    assert overall(sparsify(first, sparsity=0.3)) == overall(first)
    second = sparsify(first, sparsity=0.8, steps=2, train=Seen(), epochs=1)
    zero = {name: weight == 0 for name, weight in first.state_dict().items() if name.endswith("weight")}
    assert all((second.state_dict()[name][mask] == 0).all() for name, mask in zero.items())


def test_layers_that_are_not_chosen_keep_their_zeros_too(cnn: nn.Module) -> None:
    first = sparsify(cnn, layer_sparsity={"pointwise": 0.5})
    second = sparsify(first, layer_sparsity={"classify": 0.5}, train=Seen(), epochs=2)
    assert layers_of(second)["pointwise"] == 0.5


def test_other_passes_can_keep_zeros(cnn: nn.Module) -> None:
    sparse = sparsify(cnn, sparsity=0.7)
    before = overall(sparse)
    with zeros_kept(sparse):
        Seen()(sparse, 2)
    assert overall(sparse) == before
    Seen()(sparse, 2)
    assert overall(sparse) < before / 2, "without it, they are gone"


def test_a_killed_run_goes_on(cnn: nn.Module, tmp_path: Path) -> None:
    def options(train: Seen) -> nn.Module:
        torch.manual_seed(5)
        return sparsify(cnn, sparsity=0.9, steps=3, train=train, epochs=1, checkpoints=tmp_path)

    class Killed(Seen):
        def __call__(self, module: nn.Module, epochs: int) -> None:
            if len(self.epochs) == 2:
                raise KeyboardInterrupt
            super().__call__(module, epochs)

    Killed.__name__ = Killed.__qualname__ = "Seen"
    with pytest.raises(KeyboardInterrupt):
        options(Killed())
    resumed = Seen()
    options(resumed)
    assert resumed.epochs == [1], "two of three steps were there"


def test_pass_writes_a_sparse_program(cnn: nn.Module, tmp_path: Path) -> None:
    images = torch.randn(2, *programs.CNN_IMAGE)
    program = load_module(cnn, (images,), workdir=tmp_path / "source", layout=None)
    bench = Bench(
        folder=tmp_path / "step",
        calibration=[(images,)],
        labels=None,
        fit=ResumableFit(Seen(), None),
        teacher=None,
        original=program,
        report=silent,
    )
    made = PASS.run(program, SparsifyOptions(sparsity=0.75, scope="lamp", epochs=1), bench)
    assert made.facts["sparsity"] == pytest.approx(0.75, abs=0.002)
    assert made.program.history[-1] == "sparsify(0.75, lamp)"
    module = to_module(made.program)
    assert overall(module) == made.facts["sparsity"]
    assert [row["layer"] for row in made.tables["Sparsity per layer"]] == list(layers_of(cnn))
    assert made.notes


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sparsity": 1.2}, r"1.2 \(sparsity\) is outside 0..1"),
        ({"sparsity": -0.1}, "outside 0..1"),
        ({"sparsity": float("nan")}, "outside 0..1"),
        ({"layer_sparsity": {"stem": 1.0}}, r"1.0 \(stem\)"),
        ({}, "how many zeros"),
        ({"pattern": "4:2"}, "'4:2' is unknown"),
        ({"pattern": "two"}, "unknown"),
        ({"pattern": "2:4", "sparsity": 0.9}, "says itself that 50%"),
        ({"sparsity": 0.5, "scope": "model"}, "scope 'model' is unknown"),
        ({"sparsity": 0.5, "steps": 0}, "0 steps"),
        ({"sparsity": 0.5, "layers": ("stem",), "skip": ("stem",)}, "no layer is left"),
    ],
)
def test_bad_options(cnn: nn.Module, options: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        sparsify(cnn, **options)  # type: ignore[arg-type]


def test_unknown_layers_are_named_with_the_nearest(cnn: nn.Module) -> None:
    for options in ({"layers": ("pointwize",)}, {"layer_sparsity": {"pointwize": 0.5}}):
        with pytest.raises(UnknownNameError, match="Did you mean 'pointwise'"):
            sparsify(cnn, sparsity=0.5, **options)


def test_a_layer_that_would_run_dry_is_named() -> None:
    first = nn.Linear(4, 4)
    with torch.no_grad():
        first.weight.mul_(1e-3)
    module = nn.Sequential(first, nn.Linear(4, 4))
    with pytest.raises(ConversionError, match="layer '0' would lose all its 16 weights"):
        sparsify(module, sparsity=0.6, scope="global")
    assert layers_of(sparsify(module, sparsity=0.6))["0"] < 1


def test_computed_weights_are_refused() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    with pytest.raises(ConversionError, match="computed by a parametrization"):
        sparsify(nn.Sequential(module), sparsity=0.5)


def test_training_without_a_function_or_with_nan_fails(cnn: nn.Module) -> None:
    def broken(module: nn.Module, epochs: int) -> None:
        with torch.no_grad():
            next(module.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError, match="needs training"):
        sparsify(cnn, sparsity=0.5, epochs=1)
    with pytest.raises(TrainingError, match="NaN"):
        sparsify(cnn, sparsity=0.5, train=broken, epochs=1)


@pytest.mark.toolchain("torchao")
def test_quantized_weights_become_integer_zeros(cnn: nn.Module, tmp_path: Path) -> None:
    program = load_module(cnn, (torch.randn(4, *programs.CNN_IMAGE),), workdir=tmp_path / "s", layout=None)
    quantized = quantize_pt2e(
        program,
        precision=Precision.W8A8,
        calibration=programs.calibration_for(program, tmp_path),
        workdir=tmp_path,
    )
    bench = Bench(
        folder=tmp_path / "step",
        calibration=[(torch.randn(4, *programs.CNN_IMAGE),)],
        labels=None,
        fit=ResumableFit(Seen(), None),
        teacher=None,
        original=program,
        report=silent,
    )
    made = PASS.run(quantized, SparsifyOptions(sparsity=0.6, epochs=1), bench)
    for row in made.tables["Sparsity per layer"]:
        layer = find_layer(to_module(made.program), str(row["layer"]))
        integers = layer.weight_quantizer.to_integers(layer.weight)  # type: ignore[operator, union-attr]
        assert int((integers == 0).sum()) >= int(row["zeros"]) > 0
    assert made.program.precision == "w8a8"
