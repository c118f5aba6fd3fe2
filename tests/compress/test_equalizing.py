"""Equalization: it makes channels alike, keeps the numbers, and stops where the function would change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from edgewright.compress.equalizing import equalize, equalize_traced, find_pairs
from edgewright.compress.module import fold_batch_norm, trace
from edgewright.core.errors import ConversionError

if TYPE_CHECKING:
    import torch
    from torch import nn

pytestmark = pytest.mark.toolchain("torch", "torchao")


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    import torch

    with torch.no_grad():
        yield


@pytest.fixture
def images() -> torch.Tensor:
    import torch

    return torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(5)) + 0.4


def separable(*, activation: type[nn.Module] | None = None) -> nn.Sequential:
    """Return pointwise, depthwise and pointwise layers with a head, batch norm trained, channels badly scaled."""
    import torch
    from torch import nn

    torch.manual_seed(3)
    act = nn.ReLU if activation is None else activation
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, bias=False),
        nn.BatchNorm2d(12),
        act(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False),
        nn.BatchNorm2d(12),
        act(),
        nn.Conv2d(12, 20, 1),
        act(),
        nn.MaxPool2d(2),
        nn.Flatten(1),
        nn.Linear(20 * 25, 30),
        act(),
        nn.Linear(30, 7),
    ).train()
    for _ in range(4):
        net(torch.randn(16, 3, 12, 12) + 0.4)
    net.eval()
    norm, behind = net[1], net[3]
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(behind, nn.Conv2d)
    with torch.no_grad():
        factor = torch.logspace(-3, 3, 12, base=2)
        norm.weight.mul_(factor)
        norm.bias.mul_(factor)
        behind.weight.div_(factor.reshape(-1, 1, 1, 1))
    return net


def spread(sizes: torch.Tensor) -> float:
    """Return the ratio of the largest to the smallest."""
    return float(sizes.max() / sizes.min())


def activation_sizes(module: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    """Return the largest input of each channel of `layer`."""
    found = []
    handle = module.get_submodule(layer).register_forward_pre_hook(lambda _, given: found.append(given[0]))
    module(images)
    handle.remove()
    return found[0].detach().abs().amax(dim=(0, 2, 3))


@pytest.mark.parametrize("has_calibration", [False, True])
def test_keeps_the_function_and_evens_the_channels(images: torch.Tensor, has_calibration: bool) -> None:
    import torch

    net = separable()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = equalize(net, (images,), calibration=[(images,)] if has_calibration else [])
    want, got = net(images), made(images)
    assert float((got - want).abs().max()) <= 1e-5 * float(want.abs().max())
    was, now = spread(activation_sizes(net, "3", images)), spread(activation_sizes(made, "3", images))
    assert was > 30
    assert now < (1.01 if has_calibration else was / 4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_chains_are_found_through_pooling_and_flatten(images: torch.Tensor) -> None:
    pairs = find_pairs(fold_batch_norm(trace(separable(), (images,))))
    assert [(pair.first, pair.second) for pair in pairs] == [
        ("0", "3"),
        ("3", "6"),
        ("6", "10"),
        ("10", "12"),
    ]


def test_residual_sums_and_concatenations_end_a_pair(images: torch.Tensor) -> None:
    import torch
    from torch import nn

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.left, self.right, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.stem(x))
            x = x + torch.relu(self.body(x))
            joined = torch.cat([x, torch.relu(self.left(x))], dim=1)
            return self.last(torch.relu(self.right(joined)))

    torch.manual_seed(0)
    pairs = find_pairs(trace(Branches().eval(), (images,)))
    assert [(pair.first, pair.second) for pair in pairs] == [("right", "last")]


def test_relu6_and_hard_swish_are_no_pairs_unless_relu6_is_replaced(images: torch.Tensor) -> None:
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1)).eval()
    with pytest.raises(ConversionError, match="no two layers"):
        equalize(net, (images,))
    made = equalize(net, (images,), replace_relu6=True)
    unclipped = nn.Sequential(net[0], nn.ReLU(), net[2])
    assert torch.allclose(made(images), unclipped(images), atol=1e-5)
    with pytest.raises(ConversionError, match="no two layers"):
        equalize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardswish(), nn.Conv2d(4, 4, 1)).eval(), (images,))


def test_zeros_around_the_image_are_no_obstacle_but_other_padding_is(images: torch.Tensor) -> None:
    import torch
    from torch import nn

    def net(pad: nn.Module) -> nn.Module:
        torch.manual_seed(4)
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), pad, nn.Conv2d(4, 5, 3)).eval()

    padded = net(nn.ZeroPad2d((0, 1, 0, 1)))
    made = equalize(padded, (images,), calibration=[(images,)])
    assert torch.allclose(made(images), padded(images), rtol=1e-5, atol=1e-5)
    for pad in (nn.ConstantPad2d(1, 0.5), nn.ConstantPad3d((0, 0, 0, 0, 0, 0), 0.0)):
        assert find_pairs(trace(net(pad), (images,))) == ()


def test_layer_called_twice_is_left_alone(images: torch.Tensor) -> None:
    import torch
    from torch import nn

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.again, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.again(torch.relu(self.again(x)))))

    assert find_pairs(trace(Twice().eval(), (images,))) == ()


def test_high_biases_are_absorbed_where_nothing_is_padded(images: torch.Tensor) -> None:
    import torch
    from torch import nn

    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1)).eval()
    assert isinstance(net[0], nn.Conv2d)
    net[0].bias.fill_(50.0)  # type: ignore[union-attr]
    made = equalize(net, (images,), calibration=[(images,)])
    assert torch.allclose(made(images), net(images), rtol=1e-5, atol=1e-5 * float(net(images).abs().max()))
    assert float(activation_sizes(net, "2", images).min()) > 40
    assert float(activation_sizes(made, "2", images).max()) < 20

    padded = nn.Sequential(net[0], nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1)).eval()
    kept = equalize(padded, (images,), calibration=[(images,)])
    assert torch.allclose(kept(images), padded(images), rtol=1e-5, atol=1e-3)
    assert float(activation_sizes(kept, "2", images).max()) > 20


def test_dead_channels_get_no_scale(images: torch.Tensor) -> None:
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1)).eval()
    assert isinstance(net[0], nn.Conv2d)
    net[0].weight[1] = 0
    net[0].bias[1] = -1.0  # type: ignore[index]
    for calibration in ([], [(images,)]):
        made = equalize(net, (images,), calibration=calibration)
        assert all(bool(torch.isfinite(value).all()) for value in made.state_dict().values())
        assert torch.allclose(made(images), net(images), rtol=1e-5, atol=1e-5)


def test_quantized_module_is_refused(images: torch.Tensor) -> None:
    import torch

    from edgewright.compress.quantized_modules import FakeQuantize

    module = trace(separable(), (images,))
    module.get_submodule("6").weight_quantizer = FakeQuantize(
        scale=torch.ones(20),
        zero_point=torch.zeros(20, dtype=torch.int64),
        axis=0,
        low=-127,
        high=127,
        dtype=torch.int8,
    )
    with pytest.raises(ConversionError, match="layer 6 is quantized"):
        equalize_traced(module)
