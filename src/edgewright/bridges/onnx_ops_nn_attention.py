"""Attention and rotary embeddings."""

from __future__ import annotations

import math

import numpy as np
import torch

from edgewright.bridges.onnx_ops import OnnxNode, handles
from edgewright.bridges.onnx_ops_nn_window import padded
from edgewright.bridges.onnx_values import tensor_of

Tensor = torch.Tensor
_LOWEST = float("-inf")


def _heads(node: OnnxNode, value: Tensor, name: str) -> Tensor:
    """Return [N, heads, S, size] of that, or of [N, S, heads * size]."""
    if value.dim() == 4:
        return value
    count = node.integer(name, 0)
    if value.dim() != 3 or count < 1 or value.shape[2] % count:
        raise node.refusal(f"{name} is {count} for a tensor of shape {list(value.shape)}")
    batch, length, width = value.shape
    return value.reshape(batch, length, count, width // count).transpose(1, 2)


@handles("Attention")
def _attention(
    node: OnnxNode,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return softmax(scale * Q K^T + bias) V, the keys and values with their past, and what mode asks for."""
    is_flat = query.dim() == 3
    query = _heads(node, query, "q_num_heads")
    key, value = _heads(node, key, "kv_num_heads"), _heads(node, value, "kv_num_heads")
    if (past_key is None) != (past_value is None):
        raise node.refusal("past_key and past_value must be given together")
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        key, value = torch.cat((past_key, key), dim=2), torch.cat((past_value, value), dim=2)
    present = key, value
    if query.shape[1] % key.shape[1]:
        raise node.refusal(f"{query.shape[1]} heads of queries do not share {key.shape[1]} heads of keys")
    scale = node.number("scale", 1 / math.sqrt(query.shape[3]))
    # Heads that share a key are its rows: nothing is repeated.
    grouped = (query * scale).reshape(query.shape[0], key.shape[1], -1, query.shape[3])
    scores = torch.matmul(grouped, key.transpose(2, 3)).reshape(*query.shape[:3], key.shape[2])
    stages = [scores]
    cap = node.number("softcap", 0.0)
    if cap > 0:
        scores = torch.tanh(scores / cap) * cap
    stages.append(scores)
    bias, is_blind = _bias(node, scores, mask, lengths, past)
    if bias is not None:
        scores = scores + bias
    stages.append(scores)
    share = torch.softmax(scores, dim=-1)
    if is_blind is not None:  # a query that may see no key gives zeros
        share = torch.where(is_blind, torch.zeros_like(share), share)
    stages.append(share)
    shared = share.reshape(share.shape[0], value.shape[1], -1, share.shape[3])
    result = torch.matmul(shared, value).reshape(*share.shape[:3], value.shape[3])
    if is_flat:
        result = result.transpose(1, 2).reshape(result.shape[0], result.shape[2], -1)
    mode = node.integer("qk_matmul_output_mode", 0)
    if not 0 <= mode < len(stages):
        raise node.refusal(f"qk_matmul_output_mode {mode} is unknown")
    return (result, *present, stages[mode])[: max(node.n_outputs, 1)]


def _bias(
    node: OnnxNode, scores: Tensor, mask: Tensor | None, lengths: Tensor | None, past: int
) -> tuple[Tensor | None, Tensor | None]:
    """Return what is added to the scores [N, heads, Q, K], and which queries [..., Q, 1] may see no key.

    0 or a float mask is added, minus infinity where a key is hidden. None means nothing, or nobody.
    """
    queries, keys = scores.shape[2:]
    # How much further than its key a query lies.
    steps = np.arange(queries, dtype=np.int64)[:, None] + past - np.arange(keys, dtype=np.int64)[None, :]
    allowed: list[Tensor] = []
    added: Tensor | None = None
    if mask is not None and mask.dtype is torch.bool:
        missing = keys - mask.shape[-1]
        if missing > 0:
            tail = torch.zeros([*mask.shape[:-1], missing], dtype=torch.bool)
            mask = torch.cat((mask, tail), dim=-1)
        allowed.append(mask)
    elif mask is not None:
        added = padded(mask, [0], [keys - mask.shape[-1]], _LOWEST)
    low, high = _reach(node)
    if lengths is not None:
        ends = lengths.to(torch.int64).reshape(-1, 1, 1, 1)
        allowed.append(tensor_of(np.arange(keys, dtype=np.int64)) < ends)
    if lengths is not None and past == 0:
        distance = tensor_of(steps) + (ends - queries)
        if low is not None:
            allowed.append(distance >= low)
        if high is not None:
            allowed.append(distance <= high)
    elif low is not None or high is not None:
        floor, ceiling = steps.min() if low is None else low, steps.max() if high is None else high
        table = np.asarray(np.logical_and(steps >= floor, steps <= ceiling))
        if not allowed and added is None:  # all is known now
            blind = np.asarray(np.logical_not(table.any(axis=1, keepdims=True)))
            hidden = np.where(table, np.float32(0), np.float32(_LOWEST))
            return tensor_of(hidden).to(scores.dtype), tensor_of(blind) if blind.any() else None
        allowed.append(tensor_of(table))
    for condition in allowed:
        part = torch.where(
            condition,
            torch.zeros((), dtype=scores.dtype),
            torch.full((), _LOWEST, dtype=scores.dtype),
        )
        added = part if added is None else added + part
    if added is None:
        return None, None
    return added, torch.amax(added, dim=-1, keepdim=True) == _LOWEST


def _reach(node: OnnxNode) -> tuple[int | None, int | None]:
    """Return by how much a query may at least and at most lie further than a key that it sees; None for any."""
    left, right = node.integer("left_window_size", -1), node.integer("right_window_size", -1)
    lows = [0] if node.integer("is_causal", 0) else []
    if right >= 0:
        lows.append(-right)
    return max(lows, default=None), left if left >= 0 else None


@handles("RotaryEmbedding")
def _rotary(
    node: OnnxNode, value: Tensor, cosines: Tensor, sines: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Turn pairs of features by the angles of their positions; value [N, heads, S, size] or [N, S, heads * size]."""
    shape = value.shape
    value = _heads(node, value, "num_heads")
    size = value.shape[3]
    turned = node.integer("rotary_embedding_dim", 0) or size
    if turned % 2 or not 0 < turned <= size:
        raise node.refusal(f"rotary_embedding_dim is {turned} for heads of {size}")
    tables: list[Tensor] = []
    for table in (cosines, sines):
        if positions is not None:
            picked = table.index_select(0, positions.reshape(-1).to(torch.int64))
            table = picked.reshape(*positions.shape, table.shape[-1])
        tables.append(table.unsqueeze(1))
    first, second = tables
    inner, rest = value.narrow(3, 0, turned), value.narrow(3, turned, size - turned)
    if node.integer("interleaved", 0):
        pairs = inner.reshape(*inner.shape[:3], turned // 2, 2)
        x, y = pairs.select(4, 0), pairs.select(4, 1)
    else:
        x, y = inner.narrow(3, 0, turned // 2), inner.narrow(3, turned // 2, turned // 2)
    real, imaginary = first * x - second * y, second * x + first * y
    if node.integer("interleaved", 0):
        result = torch.stack((real, imaginary), dim=-1).reshape(inner.shape)
    else:
        result = torch.cat((real, imaginary), dim=3)
    if turned < size:
        result = torch.cat((result, rest), dim=3)
    return result if len(shape) == 4 else result.transpose(1, 2).reshape(shape)
