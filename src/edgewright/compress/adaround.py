"""Adaptive rounding: each weight goes to the integer above or below, whichever keeps the layer's output best.

Source: Nagel et al. (2020), "Up or Down? Adaptive Rounding for Post-Training Quantization": equations 21 to 25, with
asymmetric reconstruction behind the activation (section 4.2).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.compress.replay import correct_layers, outputs_of
from edgewright.core.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

    from edgewright.compress.passes import Batch
    from edgewright.compress.quantized_modules import FakeQuantize

# Stretch of the sigmoid and the regularizer's exponent from start to end, as in the paper.
_GAMMA, _ZETA = -0.1, 1.1
_BETA_START, _BETA_END = 20.0, 2.0
_REGULARIZER_WEIGHT = 1.0  # in the unit of the loss below
_WARM_UP = 0.2  # share of the steps before the regularizer pushes to 0 or 1
_TRAVEL = 4.0  # how far Adam can move a variable in all its steps: from a fraction of 1/2 to 0.98 it is 4
_LOOKS = 4  # times that the integers so far are tried: before all variables are at 0 or 1 they may be better
_MAX_ITERATIONS = 100_000


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """What adaptive rounding did to one layer.

    Attributes:
        error_before, error_after: mean square error of its output on the calibration data, before the activation, as
            a share of the mean square of the float output.
        changed: share of the weights that went to another integer than the nearest.
    """

    error_before: float
    error_after: float
    changed: float


def round_weights(
    reference: GraphModule,
    quantized: GraphModule,
    calibration: Sequence[Batch],
    *,
    iterations: int = 400,
    batch: int = 32,
    skip: Collection[str] = (),
    seed: int = 0,
) -> dict[str, Rounded]:
    """Choose the integers of `quantized`'s weights, layer by layer, and write them as floats on their integer.

    Scales stay as they are, so the export quantizes to exactly these integers. A layer keeps the nearest integers
    where the chosen ones give no smaller error on the calibration data. Weights of exactly 0 stay 0.

    Args:
        reference: the float module with the same layers, batch normalisation folded.
        quantized: as `compress.module.layered` gives a quantized program.
        calibration: real inputs.
        iterations: steps of Adam for each layer.
        batch: samples of a step.
        skip: layers that stay as they are.
    Raises:
        UsageError: `iterations` or `batch` is out of range.
        ConversionError: the modules have no quantized layer in common.
    """
    import torch

    if not 1 <= iterations <= _MAX_ITERATIONS:
        raise UsageError(f"iterations is {iterations}; expected 1..{_MAX_ITERATIONS}.")
    if batch < 1:
        raise UsageError(f"batch is {batch}; expected at least 1.")
    made: dict[str, Rounded] = {}
    activations = _activations(quantized)
    generator = torch.Generator().manual_seed(seed)

    def visit(
        name: str, layer: torch.nn.Module, inputs: list[torch.Tensor], expected: list[torch.Tensor]
    ) -> None:
        if name not in skip:
            made[name] = _round_layer(
                layer, torch.cat(inputs), torch.cat(expected), activations[name], iterations, batch, generator
            )

    correct_layers(reference, quantized, calibration, visit)
    return made


def _activations(module: GraphModule) -> dict[str, bool]:
    """Return layer -> whether only a relu reads it."""
    found = {}
    for node in module.graph.nodes:
        if node.op == "call_module":
            users = list(node.users)
            found[str(node.target)] = len(users) == 1 and str(users[0].target).startswith("aten.relu")
    return found


def _round_layer(
    layer: torch.nn.Module,
    inputs: torch.Tensor,
    expected: torch.Tensor,
    has_relu: bool,
    iterations: int,
    batch: int,
    generator: torch.Generator,
) -> Rounded:
    import torch

    quantizer: FakeQuantize = layer.weight_quantizer  # type: ignore[assignment]
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    scale = _scale_of(quantizer, weight)
    steps = weight.detach() / scale
    below = steps.floor()
    is_free = (weight.detach() != 0).to(weight.dtype)  # what pruning set to 0 stays 0
    nearest = quantizer.to_float(quantizer.to_integers(weight.detach()))
    power = expected.double().square().mean().clamp(min=1e-30)

    def shown(values: torch.Tensor) -> torch.Tensor:
        return torch.relu(values) if has_relu else values

    def error(candidate: torch.Tensor) -> float:
        total = 0.0
        for start in range(0, len(inputs), batch):
            got = outputs_of(layer, inputs[start : start + batch], candidate)
            want = expected[start : start + batch]
            total += float((shown(got) - shown(want)).double().square().sum())
        return total / expected.numel() / float(power)

    before = error(nearest)
    best, best_error = nearest, before
    # h(v) = clip(sigmoid(v) (zeta - gamma) + gamma, 0, 1) starts as the fraction that the weight has itself.
    fraction = (steps - below).clamp(1e-4, 1 - 1e-4)
    start = torch.logit(((fraction - _GAMMA) / (_ZETA - _GAMMA)).clamp(1e-6, 1 - 1e-6))
    with torch.enable_grad():
        rounding = start.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([rounding], lr=_TRAVEL / iterations)
        # In units of the error of nearest rounding, to which each weight adds its share: the balance with the
        # regularizer is then the same for every layer and width.
        unit = weight.numel() / max(before * float(power), 1e-30)
        for step in range(iterations):
            chosen = torch.randint(len(inputs), (min(batch, len(inputs)),), generator=generator)
            height = _height(rounding) * is_free
            soft = (below + height).clamp(quantizer.low, quantizer.high) * scale
            got = outputs_of(layer, inputs[chosen], soft)
            loss = unit * (shown(got) - shown(expected[chosen])).square().mean()
            loss = loss + _regularizer(height, step, iterations)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if (step + 1) * _LOOKS // iterations > step * _LOOKS // iterations:
                is_up = _height(rounding.detach()) * is_free >= 0.5
                candidate = (below + is_up).clamp(quantizer.low, quantizer.high) * scale
                with torch.no_grad():
                    after = error(candidate)
                if after < best_error:
                    best, best_error = candidate, after
    changed = float(((best - nearest).abs() > scale / 2).double().mean())
    weight.data.copy_(best)
    return Rounded(error_before=before, error_after=best_error, changed=changed)


def _scale_of(quantizer: FakeQuantize, weight: torch.Tensor) -> torch.Tensor:
    """Return the step of each weight, shaped to multiply it."""
    import torch

    scale = torch.as_tensor(quantizer.scale, dtype=torch.float32)
    if quantizer.axis is None:
        return scale
    return scale.reshape([-1 if axis == quantizer.axis else 1 for axis in range(weight.ndim)])


def _height(rounding: torch.Tensor) -> torch.Tensor:
    import torch

    return (torch.sigmoid(rounding) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)


def _regularizer(height: torch.Tensor, step: int, iterations: int) -> torch.Tensor:
    """Return sum(1 - |2 h - 1|^beta), weighted; beta falls by a half cosine from start to end."""
    from math import cos, pi

    progress = (step / iterations - _WARM_UP) / (1 - _WARM_UP)
    if progress < 0:
        return height.new_zeros(())
    beta = _BETA_END + (_BETA_START - _BETA_END) * (1 + cos(pi * progress)) / 2
    return _REGULARIZER_WEIGHT * (1 - (2 * height - 1).abs().pow(beta)).sum()
