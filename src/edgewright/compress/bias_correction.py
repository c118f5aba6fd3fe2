"""Empirical bias correction: what rounding shifts a layer's output on average is taken out of its bias.

Source: Nagel et al. (2019), "Data-free quantization through weight equalization and bias correction", section 4.2
and appendix D (empirical correction, layer after layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgewright.compress.replay import channel_axis, correct_layers, mean_of_channels, outputs_of

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

    from edgewright.compress.passes import Batch


def correct_biases(
    reference: GraphModule, quantized: GraphModule, calibration: Sequence[Batch]
) -> dict[str, float]:
    """Change the biases of `quantized` so that each layer's channels have the mean of the float module's.

    For layer l in order of execution: b_l += E[y_l] - E[y'_l], where y is the output of the float module, y' that of
    the quantized one with the layers before l corrected, both before the activation. A layer without a bias gets one.

    Args:
        reference: the float module with the same layers, batch normalisation folded.
        quantized: as `compress.module.layered` gives a quantized program; its weights stay as they are.
        calibration: real inputs.
    Returns:
        Layer -> root mean square of the shifts, as a share of the root mean square of its float outputs.
    Raises:
        ConversionError: the modules have no quantized layer in common.
    """
    shares: dict[str, float] = {}

    def visit(
        name: str, layer: torch.nn.Module, inputs: list[torch.Tensor], expected: list[torch.Tensor]
    ) -> None:
        import torch

        axis = channel_axis(layer)
        weight = layer.weight_quantizer(layer.weight)  # type: ignore[operator]
        outputs = [outputs_of(layer, values, weight) for values in inputs]
        shift = mean_of_channels(expected, axis) - mean_of_channels(outputs, axis)
        power = torch.cat([values.flatten() for values in expected]).double().square().mean().sqrt()
        shares[name] = float(shift.square().mean().sqrt() / power.clamp(min=1e-30))
        bias = layer.bias
        if isinstance(bias, torch.Tensor):
            bias.copy_((bias.double() + shift).to(bias.dtype))
        else:
            layer.bias = torch.nn.Parameter(shift.float())

    correct_layers(reference, quantized, calibration, visit)
    return shares
