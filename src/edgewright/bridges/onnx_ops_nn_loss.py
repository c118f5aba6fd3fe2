"""Losses, as models that were exported with them hold them."""

from __future__ import annotations

import torch

from edgewright.bridges.onnx_ops import OnnxNode, handles

Tensor = torch.Tensor


def _loss(node: OnnxNode, log_share: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the negative log likelihood of `log_share` [N, C, ...] for the classes `target` [N, ...].

    loss = -weight[target] * log_share[target], 0 where target is `ignore_index`; the mean is weighted.
    """
    classes = torch.arange(log_share.shape[1]).reshape(1, -1, *[1] * (log_share.dim() - 2))
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
        return each
    if reduction == "sum":
        return torch.sum(each)
    if reduction != "mean":
        raise node.refusal(f"reduction {reduction!r} is unknown")
    return torch.sum(each) / torch.sum(share)


@handles("NegativeLogLikelihoodLoss")
def _negative_log_likelihood(
    node: OnnxNode, value: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    return _loss(node, value, target, weight)


@handles("SoftmaxCrossEntropyLoss")
def _softmax_cross_entropy(
    node: OnnxNode, scores: Tensor, labels: Tensor, weight: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    log_share = torch.log_softmax(scores, dim=1)
    loss = _loss(node, log_share, labels, weight)
    return (loss, log_share) if node.n_outputs > 1 else loss
