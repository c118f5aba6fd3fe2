"""How much each layer loses when it alone is quantized: what a precision for each layer is chosen by."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.compress.int8_quantizer import COMPUTED
from edgewright.core.errors import ConversionError, DataError

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

    from edgewright.compress.passes import Batch
    from edgewright.compress.sensitivity_modules import Switch

_MAX_SQNR_DB = 200.0  # shown where nothing at all was lost
_ACTIVATIONS = ("aten.relu", "aten.hardtanh")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How a quantized module's outputs compare with the float ones on the same samples.

    Attributes:
        sqnr_db: 10 log10(signal power / error power) over the first output with class scores.
        kl: mean Kullback-Leibler divergence of the class probabilities from the float ones, in nats.
        agreement: share of samples with the same largest class score, 0..1.
        accuracy: share with the labelled class on top, 0..1; None without labels.
        float_accuracy: the same of the float module.
        samples: how many.
    """

    sqnr_db: float
    kl: float
    agreement: float
    accuracy: float | None
    float_accuracy: float | None
    samples: int

    @property
    def drop_points(self) -> float:
        """The loss in percentage points: of accuracy with labels, else the share of answers that changed."""
        if self.accuracy is None or self.float_accuracy is None:
            return 100 * (1 - self.agreement)
        return 100 * (self.float_accuracy - self.accuracy)


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """What the output loses when this layer alone is quantized: its input, its weights and its output.

    Attributes:
        layer: its name, as `int8_quantizer.layer_names` gives it; of a sum or mean, the name of its node.
        weights: how many it has; 0 for a sum or mean.
        alone: int8 in this layer alone.
        with_4_bits: the same with weights of -7..7; None where they were not asked for, or it has none.
    """

    layer: str
    weights: int
    alone: Scores
    with_4_bits: Scores | None = None


def class_scores(outputs: object) -> torch.Tensor:
    """Return the output that holds class scores, the classes along axis 1.

    Raises:
        ConversionError: none does.
    """
    import torch

    from edgewright.sources.torch_export import flat_tensors

    for tensor in flat_tensors(outputs):
        if tensor.ndim >= 2 and tensor.shape[1] >= 2 and tensor.dtype == torch.float32:
            return tensor
    raise ConversionError(
        "the loss is measured on class scores, but the model has no float32 output [n, classes, ...] with two classes "
        "or more. Give a model that classifies."
    )


def run_batches(module: torch.nn.Module, batches: Sequence[Batch]) -> torch.Tensor:
    """Return the class scores of all batches: float32 [n, classes, ...]."""
    import torch

    with torch.no_grad():
        return torch.cat([class_scores(module(*batch)) for batch in batches])


def compare(expected: torch.Tensor, got: torch.Tensor, labels: torch.Tensor | None = None) -> Scores:
    """Return how `got` compares with `expected`: class scores [n, classes, ...] of the same samples.

    Args:
        labels: int64 [n, ...], or None.
    Raises:
        DataError: the labels do not fit.
    """
    import torch

    noise, signal = (got - expected).double().square().sum(), expected.double().square().sum()
    ratio = float(signal / noise.clamp(min=1e-300))
    sqnr_db = min(10 * math.log10(max(ratio, 1e-20)), _MAX_SQNR_DB)
    is_probability = _are_probabilities(expected)
    log_expected, log_got = (_log_probabilities(scores, is_probability) for scores in (expected, got))
    kl = float((log_expected.exp() * (log_expected - log_got)).sum(1).mean())
    best, chosen = expected.argmax(1), got.argmax(1)
    accuracy = float_accuracy = None
    if labels is not None:
        if labels.shape != best.shape:
            raise DataError(
                f"the labels are {list(labels.shape)}, but the model's answers {list(best.shape)}. Give one class "
                "number for each answer."
            )
        accuracy = float((chosen == labels).double().mean())
        float_accuracy = float((best == labels).double().mean())
    return Scores(
        sqnr_db=sqnr_db,
        kl=max(kl, 0.0) if math.isfinite(kl) else math.inf,
        agreement=float((best == chosen).double().mean()) if bool(torch.isfinite(got).all()) else 0.0,
        accuracy=accuracy,
        float_accuracy=float_accuracy,
        samples=len(expected),
    )


def _are_probabilities(scores: torch.Tensor) -> bool:
    """Return whether the model ends in a softmax: shares that sum to 1."""
    return bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-3).all())


def _log_probabilities(scores: torch.Tensor, is_probability: bool) -> torch.Tensor:
    """Return the logarithms of the class probabilities, a rounded 0 taken as half a step of int8."""
    if not is_probability:
        return scores.double().log_softmax(1)
    return scores.double().clamp(min=0.5 / 256).log()


def sensitivity(
    reference: GraphModule,
    quantized: GraphModule,
    batches: Sequence[Batch],
    *,
    labels: torch.Tensor | None = None,
    has_4_bits: bool = False,
) -> tuple[LayerSensitivity, ...]:
    """Return the sensitivity of every quantized layer, in order of execution.

    Args:
        reference: the float module.
        quantized: of the same model, as `compress.module.layered` gives a quantized program.
        batches: real inputs.
        labels: int64 [n] over all batches.
        has_4_bits: also measure weights of 4 bits.
    Raises:
        ConversionError: the model has no class scores.
    """
    import torch

    switched = copy.deepcopy(quantized)
    switches = _put_switches(switched)
    own = _own_switches(switched, switches)
    expected = run_batches(reference, batches)

    def measured(names: Sequence[str]) -> Scores:
        for name, switch in switches.items():
            switch.is_on = name in names
        return compare(expected, run_batches(switched, batches), labels)

    found = []
    for layer, names in own.items():
        alone = measured(names)
        weight_switch = switches.get(f"{layer}.weight_quantizer")
        with_4_bits = None
        if weight_switch is not None and has_4_bits:
            weight_switch.has_4_bits = True
            with_4_bits = measured(names)
            weight_switch.has_4_bits = False
        weight = None if weight_switch is None else switched.get_submodule(layer).weight
        count = weight.numel() if isinstance(weight, torch.Tensor) else 0
        found.append(LayerSensitivity(layer=layer, weights=count, alone=alone, with_4_bits=with_4_bits))
    return tuple(found)


def sensitivity_rows(found: Sequence[LayerSensitivity]) -> list[dict[str, float | int | str]]:
    """Return the table of a report, the most sensitive layer first."""
    rows = []
    for entry in sorted(found, key=lambda entry: entry.alone.sqnr_db):
        row: dict[str, float | int | str] = {
            "layer": entry.layer,
            "weights": entry.weights,
            "SQNR dB": round(entry.alone.sqnr_db, 2),
            "KL nats": float(f"{entry.alone.kl:.3g}"),
            "top-1 agreement %": round(100 * entry.alone.agreement, 2),
        }
        if entry.alone.accuracy is not None:
            row["drop points"] = round(entry.alone.drop_points, 2)
        if entry.with_4_bits is not None:
            row["SQNR dB with w4"] = round(entry.with_4_bits.sqnr_db, 2)
        rows.append(row)
    return rows


def _put_switches(module: GraphModule) -> dict[str, Switch]:
    """Put each quantizer of `module` behind a switch; return path -> switch."""
    from edgewright.compress.quantized_modules import FakeQuantize
    from edgewright.compress.sensitivity_modules import Switch

    switches = {}
    for name, layer in list(module.named_modules()):
        if isinstance(layer, FakeQuantize):
            holder, _, last = name.rpartition(".")
            switches[name] = Switch(layer)
            setattr(module.get_submodule(holder), last, switches[name])
    return switches


def _own_switches(module: GraphModule, switches: Mapping[str, Switch]) -> dict[str, tuple[str, ...]]:
    """Return layer -> the switches of its inputs, weights and output, in order of execution."""
    own: dict[str, tuple[str, ...]] = {}
    for node in module.graph.nodes:
        weight = f"{node.target}.weight_quantizer"
        is_weighted = node.op == "call_module" and weight in switches
        inputs = [str(source.target) for source in node.all_input_nodes if str(source.target) in switches]
        if not is_weighted and not (inputs and str(node.target) in COMPUTED):
            continue
        name = str(node.target) if is_weighted else str(node.name)
        outputs = _output_switches(node, switches)
        own[name] = tuple(dict.fromkeys([*inputs, *([weight] if is_weighted else []), *outputs]))
    return own


def _output_switches(node: Node, switches: Mapping[str, Switch]) -> list[str]:
    users = list(node.users)
    if len(users) == 1 and str(users[0].target).startswith(_ACTIVATIONS):
        users = list(users[0].users)
    return [str(user.target) for user in users if str(user.target) in switches]
