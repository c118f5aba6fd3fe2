"""How much a group of channels matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from edgewright.compress.prune_graph import Group, Member
from edgewright.compress.training import first_output, is_probabilities
from edgewright.core.errors import ConversionError, DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgewright.compress.passes import Batch

Importance = Literal["l2", "taylor", "batchnorm"]
IMPORTANCES = ("l2", "taylor", "batchnorm")


def importance_of(
    module: nn.Module,
    groups: Sequence[Group],
    how: Importance,
    calibration: Sequence[Batch],
    labels: Sequence[Tensor] | None,
) -> dict[str, Tensor]:
    """Return root -> score of each unit, float64 [units]; the smallest matters least, over all groups.

    - "l2": the L2 norm of the weights that make and read a channel, each side and then the group relative to its mean.
    - "taylor": the squared first-order change of the cross-entropy when the channel's value becomes 0, which is
      the sum of w * dL/dw over the weights that read it, mean over batches (Molchanov et al. 2019, equation 8).
    - "batchnorm": |gamma| of the channel's batch normalisation (Liu et al. 2017); groups without one are left out.

    Raises:
        DataError: "taylor" without labels, or labels that do not fit.
        ConversionError: "batchnorm", and no group has one.
    """
    if how == "taylor":
        return _taylor(module, groups, calibration, labels)
    if how == "batchnorm":
        found = {group.root: score for group in groups if (score := _gammas(module, group)) is not None}
        if not found:
            raise ConversionError(
                "importance 'batchnorm' needs layers followed by batch normalisation with a scale, and this model has "
                "none that can be pruned. Use 'l2' or 'taylor'."
            )
        return found
    return {group.root: _norms(module, group) for group in groups}


def _norms(module: nn.Module, group: Group) -> Tensor:
    import torch

    total = torch.zeros(group.channels, dtype=torch.float64)
    count = 0
    for member in group.members:
        rows = _rows(module, member)
        if rows is None:
            continue
        squared = rows.double().square().sum(1)
        mean = float(squared.mean())
        if mean > 0:
            total.index_add_(0, member.root, squared / mean)
            count += 1
    norms = (total / max(count, 1)).sqrt()
    norms /= norms.mean().clamp_min(torch.finfo(torch.float64).tiny)
    return torch.stack([norms[list(unit)].mean() for unit in group.units])


def _gammas(module: nn.Module, group: Group) -> Tensor | None:
    import torch

    total = torch.zeros(group.channels, dtype=torch.float64)
    count = 0
    for member in group.members:
        rows = _rows(module, member) if member.kind == "bn" else None
        if rows is not None:
            total.index_add_(0, member.root, rows.double().abs().sum(1))
            count += 1
    if count == 0:
        return None
    return torch.stack([total[list(unit)].mean() for unit in group.units]) / count


def _taylor(
    module: nn.Module, groups: Sequence[Group], calibration: Sequence[Batch], labels: Sequence[Tensor] | None
) -> dict[str, Tensor]:
    import torch
    from torch.nn import functional

    if not labels or not calibration:
        raise DataError(
            "importance 'taylor' needs calibration samples with class numbers, for the gradient of the loss. "
            "Give both, or use importance 'l2'."
        )
    sums = {group.root: torch.zeros(len(group.units), dtype=torch.float64) for group in groups}
    module.eval()
    for batch, target in zip(calibration, labels, strict=True):
        module.zero_grad(set_to_none=True)
        with torch.enable_grad():
            scores = first_output(module(*batch))
            if scores.ndim != 2 or len(scores) != len(target) or int(target.max()) >= scores.shape[1]:
                raise DataError(
                    f"importance 'taylor': the model gives {list(scores.shape)} for {len(target)} samples with labels "
                    f"up to {int(target.max())}; scores [samples, classes] are expected. Use importance 'l2'."
                )
            if is_probabilities(scores):
                scores = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
                loss = functional.nll_loss(scores, target)
            else:
                loss = functional.cross_entropy(scores, target)
            loss.backward()  # type: ignore[no-untyped-call]
        for group in groups:
            sums[group.root] += _gate_gradients(module, group).square() / len(calibration)
    module.zero_grad(set_to_none=True)
    return sums


def _gate_gradients(module: nn.Module, group: Group) -> Tensor:
    """Return dL/dgate of each unit at gate 1, float64 [units], where gates multiply the channels that are read."""
    import torch

    total = torch.zeros(group.channels, dtype=torch.float64)
    readers = [m for m in group.members if m.side == "in" and m.kind in ("conv", "linear")]
    for member in readers or group.members:
        rows, slopes = _rows(module, member), _rows(module, member, wants_gradient=True)
        if rows is not None and slopes is not None:
            total.index_add_(0, member.root, (rows.double() * slopes.double()).sum(1))
    return torch.stack([total[list(unit)].sum() for unit in group.units])


def _rows(module: nn.Module, member: Member, *, wants_gradient: bool = False) -> Tensor | None:
    """Return the weights of each channel of `member`, or their gradients, [channels, k]; None where it has none."""
    import torch
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    if member.kind not in ("conv", "depthwise", "linear", "bn", "mha"):
        return None
    layer = module.get_submodule(member.name)
    weight = layer.in_proj_weight if isinstance(layer, nn.MultiheadAttention) else layer.weight
    if not isinstance(weight, torch.Tensor):
        return None
    values = weight.grad if wants_gradient else weight.detach()
    if values is None:
        return None
    if isinstance(layer, nn.MultiheadAttention):
        made = values.reshape(3, layer.embed_dim, -1).transpose(0, 1)
        return made.reshape(layer.embed_dim, -1)[member.index]
    if isinstance(layer, _ConvNd) and member.kind == "conv":
        return _filters(values, layer, member.side)[member.index]
    if member.kind == "linear" and member.side == "in":
        return values.t()[member.index]
    return values.reshape(values.shape[0], -1)[member.index]


def _filters(values: Tensor, layer: object, side: str) -> Tensor:
    """Return the weights of each input or output channel of a convolution, [channels, k]."""
    from torch.nn.modules.conv import _ConvNd

    assert isinstance(layer, _ConvNd)
    # The second axis counts within a group: inputs, or outputs where the convolution is transposed.
    first_is_out = not layer.transposed
    if (side == "out") == first_is_out:
        return values.reshape(values.shape[0], -1)
    groups = layer.groups
    grouped = values.reshape(groups, values.shape[0] // groups, values.shape[1], -1)
    return grouped.permute(0, 2, 1, 3).reshape(groups * values.shape[1], -1)
