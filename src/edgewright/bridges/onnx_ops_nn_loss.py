"""Losses, as models that were exported with them hold them."""

from __future__ import annotations

import math

import numpy as np
import torch

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_values import tensor_of

Tensor = torch.Tensor


def _loss(node: OnnxNode, log_share: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the negative log likelihood of `log_share` [N, C, ...] for the classes `target` [N, ...].

    loss = -weight[target] * log_share[target], 0 where target is `ignore_index`; the mean is weighted.
    """
    shape = target.shape
    # One axis for all positions: runtimes multiply and sum tensors of few axes only.
    log_share, target = _flat(log_share), target.reshape(shape[0], -1)
    classes = tensor_of(np.arange(log_share.shape[1], dtype=np.int64)).reshape(1, -1, 1)
    hits = target.to(torch.int64).unsqueeze(1) == classes
    if node.has("ignore_index"):
        hits = torch.logical_and(hits, classes != node.integer("ignore_index", 0))
    share = hits.to(log_share.dtype)
    if weight is not None:
        share = share * weight.reshape(classes.shape)
    picked = torch.where(hits, log_share, torch.zeros_like(log_share))
    each = -torch.sum(picked * share, dim=1)
    reduction = node.text("reduction", "mean")
    if reduction == "none":
        return each.reshape(shape)
    if reduction == "sum":
        return torch.sum(each)
    if reduction != "mean":
        raise node.refusal(f"reduction {reduction!r} is unknown")
    return torch.sum(each) / torch.sum(share)


def _flat(value: Tensor) -> Tensor:
    """Return [N, C, D] of the value [N, C, d1, d2, ...]; D is 1 where there are no such axes."""
    return value.reshape(*value.shape[:2], math.prod(value.shape[2:]))


@handles("NegativeLogLikelihoodLoss")
def _negative_log_likelihood(
    node: OnnxNode, value: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    return _loss(node, value, target, weight)


@handles("SoftmaxCrossEntropyLoss")
def _softmax_cross_entropy(
    node: OnnxNode, scores: Tensor, labels: Tensor, weight: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    log_share = torch.log_softmax(_flat(scores), dim=1).reshape(scores.shape)
    loss = _loss(node, log_share, labels, weight)
    return (loss, log_share) if node.n_outputs > 1 else loss
