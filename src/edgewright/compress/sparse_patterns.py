"""Which weights to keep: by magnitude in a layer, over all layers, or N of every M."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.core.errors import UsageError

if TYPE_CHECKING:
    import torch

MAX_GROUP = 4096
_PATTERN = re.compile(r"(\d{1,4}):(\d{1,4})")


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """At most `kept` of every `group` consecutive inputs of an output are not zero."""

    kept: int
    group: int

    @staticmethod
    def parse(text: str) -> Pattern | None:
        """Return the pattern "N:M", or None for "unstructured".

        Raises:
            UsageError: neither, or not 1 <= N < M.
        """
        if text == "unstructured":
            return None
        match = _PATTERN.fullmatch(text)
        if match is None or not 1 <= int(match[1]) < int(match[2]) <= MAX_GROUP:
            raise UsageError(
                f"pattern {text!r} is unknown. Use unstructured, or N:M such as 2:4 (keep 2 of 4), "
                f"1 <= N < M <= {MAX_GROUP}."
            )
        return Pattern(kept=int(match[1]), group=int(match[2]))

    def fits(self, layer: torch.nn.Module) -> bool:
        """Return whether an output of `layer` has at least one whole group of inputs."""
        weight = layer.weight
        return int(weight.shape[_input_axis(layer)]) >= self.group  # type: ignore[index]


def share_mask(weight: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Return the bool mask, shaped like `weight`, of all but the share `sparsity` of smallest magnitudes."""
    return _without_lowest(weight.abs().flatten(), round(sparsity * weight.numel())).view(weight.shape)


def global_masks(
    weights: Mapping[str, torch.Tensor], sparsity: float, *, is_lamp: bool
) -> dict[str, torch.Tensor]:
    """Return the masks of all but the share `sparsity` with the lowest scores over all `weights` together.

    The score is the magnitude; with `is_lamp` it is w^2 / sum of all v^2 in the layer with |v| >= |w|, which is 1
    for the largest weight of every layer, so that each keeps one.

    Source: Lee, Park, Mo, Ahn, Shin 2021, "Layer-adaptive sparsity for the magnitude-based pruning".
    """
    import torch

    scores = [lamp_scores(weight) if is_lamp else weight.abs().double() for weight in weights.values()]
    total = sum(score.numel() for score in scores)
    kept = _without_lowest(torch.cat([score.flatten() for score in scores]), round(sparsity * total))
    parts = torch.split(kept, [score.numel() for score in scores])
    return {name: part.view(weights[name].shape) for name, part in zip(weights, parts, strict=True)}


def lamp_scores(weight: torch.Tensor) -> torch.Tensor:
    """Return the LAMP score of each weight, float64, shaped like `weight`; 0 for zeros."""
    import torch

    squares = weight.double().square().flatten()
    ordered, places = squares.sort(stable=True)
    rest = ordered.flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(squares)
    scores[places] = torch.where(ordered > 0, ordered / rest, torch.zeros_like(ordered))
    return scores.view(weight.shape)


def pattern_mask(weight: torch.Tensor, layer: torch.nn.Module, pattern: Pattern, part: float) -> torch.Tensor:
    """Return the mask of the largest weights of each group of consecutive inputs.

    The inputs left over behind the last whole group are a smaller group, which keeps as many.

    Args:
        part: 0..1, how many of the zeros of the pattern are made already: 1 is the whole pattern.
    """
    import torch

    kept = pattern.group - round((pattern.group - pattern.kept) * part)
    rows = weight.abs().movedim(_input_axis(layer), -1)
    padding = -rows.shape[-1] % pattern.group
    padded = torch.nn.functional.pad(rows, (0, padding), value=-1.0)
    groups = padded.reshape(*padded.shape[:-1], -1, pattern.group)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :kept], True)
    mask = mask.flatten(-2)[..., : rows.shape[-1]]
    return mask.movedim(-1, _input_axis(layer)).contiguous()


def _input_axis(layer: torch.nn.Module) -> int:
    from torch import nn

    return 0 if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) else 1


def _without_lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return the bool mask, [n], of all but the `count` lowest `scores`; the earlier of two equals goes first."""
    import torch

    mask = torch.ones(len(scores), dtype=torch.bool)
    mask[scores.argsort(stable=True)[:count]] = False
    return mask
