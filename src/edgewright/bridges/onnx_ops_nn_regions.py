"""Pools over regions that the model computes."""

from __future__ import annotations

import torch

from edgewright.bridges.onnx_ops import OnnxNode, handles

Tensor = torch.Tensor


def _output_sizes(node: OnnxNode) -> tuple[int, int]:
    sizes = node.integer("output_height", 1), node.integer("output_width", 1)
    if min(sizes) < 1:
        raise node.refusal(f"its output is {sizes}, but must be at least 1 x 1")
    return sizes


@handles("RoiAlign")
def _roi_align(node: OnnxNode, value: Tensor, regions: Tensor, batches: Tensor) -> Tensor:
    """Return [R, C, oh, ow]: bilinear samples of value [N, C, H, W] in regions [R, 4], averaged or their maximum.

    The bilinear weights of a sample are hat functions of its row and of its column, so that the average of a bin is
    a matrix product from each side.
    """
    sizes = _output_sizes(node)
    ratio = node.integer("sampling_ratio", 0)
    mode = node.text("mode", "avg")
    if ratio < 1:
        raise node.refusal(f"sampling_ratio is {ratio}: the number of samples would depend on values")
    if mode not in ("avg", "max"):
        raise node.refusal(f"mode {mode!r} is unknown")
    default = "half_pixel" if node.opset >= 16 else "output_half_pixel"
    is_half = node.text("coordinate_transformation_mode", default) == "half_pixel"
    node.checked_size([regions.shape[0], *value.shape[1:], ratio])
    places = regions * node.number("spatial_scale", 1.0) - (0.5 if is_half else 0.0)
    images = value.index_select(0, batches.reshape(-1).to(torch.int64))
    hats: list[Tensor] = []
    for axis, (length, bins) in enumerate(zip(value.shape[2:], sizes, strict=True)):
        start, end = places[:, 1 - axis], places[:, 3 - axis]
        extent = end - start if is_half else (end - start).clamp(min=1.0)
        steps = (torch.arange(bins * ratio, dtype=value.dtype) + 0.5) / ratio
        at = start.unsqueeze(1) + (extent / bins).unsqueeze(1) * steps.unsqueeze(0)
        hats.append(_hats(at, length))
    if mode == "avg":
        rows, columns = (
            torch.mean(hat.reshape(hat.shape[0], bins, ratio, hat.shape[2]), dim=2)
            for hat, bins in zip(hats, sizes, strict=True)
        )
        return torch.matmul(torch.matmul(rows.unsqueeze(1), images), columns.transpose(1, 2).unsqueeze(1))
    return _largest_share(images, hats, sizes, ratio)


def _hats(at: Tensor, length: int) -> Tensor:
    """Return [R, samples, length]: the linear weight of each place for each sample; 0 beyond one place outside."""
    is_near = torch.logical_and(at >= -1.0, at <= length)
    grid = torch.arange(length, dtype=at.dtype).reshape(1, 1, -1)
    share = (1 - torch.abs(at.clamp(0, length - 1).unsqueeze(2) - grid)).clamp(min=0)
    return torch.where(is_near.unsqueeze(2), share, torch.zeros_like(share))


def _largest_share(images: Tensor, hats: list[Tensor], sizes: tuple[int, int], ratio: int) -> Tensor:
    """Return the maximum over the samples of a bin of the largest weighted corner: ONNX does not sum the four.

    A corner off the sample weighs 0, as do at least two of the four where the sample lies on a line of the grid;
    0 counts in the maximum then, and for samples outside.
    """
    rows, columns = hats
    samples: list[Tensor] = []
    for index in range(columns.shape[1]):
        weighted = images * columns[:, index].reshape(columns.shape[0], 1, 1, -1)  # [R, C, H, W]
        # Only the two columns around the sample count, of which one may weigh nothing.
        is_corner = columns[:, index].reshape(columns.shape[0], 1, 1, -1) > 0
        lows = torch.full_like(weighted, float("-inf"))
        inner = torch.where(is_corner, weighted, lows)
        only = torch.sum(is_corner.to(images.dtype), dim=3, keepdim=False) < 2
        samples.append(_by_rows(inner, rows, only))
    stacked = torch.stack(samples, dim=3)
    count = images.shape[:2]
    split = stacked.reshape(*count, sizes[0], ratio, sizes[1], ratio)
    return torch.amax(split, dim=(3, 5))


def _by_rows(inner: Tensor, rows: Tensor, has_one_column: Tensor) -> Tensor:
    """Return [R, C, samples]: the largest weighted corner for each row of samples."""
    best = torch.amax(inner, dim=3)  # [R, C, H]: of the columns that weigh something
    zero = torch.zeros_like(best)
    best = torch.where(torch.isinf(best), zero, best)
    best = torch.where(has_one_column, torch.maximum(best, zero), best)
    results: list[Tensor] = []
    for index in range(rows.shape[1]):
        weight = rows[:, index].reshape(rows.shape[0], 1, -1)
        is_corner = weight > 0
        seen = torch.where(is_corner, best * weight, torch.full_like(best, float("-inf")))
        largest = torch.amax(seen, dim=2)
        few = torch.sum(is_corner.to(best.dtype), dim=2) < 2
        bounded = torch.maximum(largest, torch.zeros_like(largest))
        results.append(torch.where(few, bounded, largest))
    return torch.stack(results, dim=2)


@handles("MaxRoiPool")
def _max_roi_pool(node: OnnxNode, value: Tensor, regions: Tensor) -> Tensor:
    """Return [R, C, ph, pw]: the maxima of value [N, C, H, W] in the bins of regions [R, 5], 0 in empty bins.

    Source: region pooling of Fast R-CNN: corners are rounded, bin i goes from floor(i * size) to ceil((i + 1) * size).
    """
    shape = node.integers("pooled_shape")
    if len(shape) != 2 or min(shape) < 1:
        raise node.refusal(f"pooled_shape is {shape}, but must be two positive integers")
    node.checked_size([regions.shape[0], shape[0] * shape[1], *value.shape[1:]])
    images = value.index_select(0, regions[:, 0].to(torch.int64))
    corners = torch.floor(regions[:, 1:] * node.number("spatial_scale", 1.0) + 0.5)
    lowest = float("-inf")
    result = images
    for axis, (length, bins) in reversed(list(enumerate(zip(value.shape[2:], shape, strict=True)))):
        start, end = corners[:, 1 - axis], corners[:, 3 - axis]
        extent = (end - start + 1).clamp(min=1.0) / bins
        grid = torch.arange(length, dtype=value.dtype).reshape(1, -1)
        strips: list[Tensor] = []
        for index in range(bins):
            first = (torch.floor(extent * index) + start).clamp(0, length).unsqueeze(1)
            last = (torch.ceil(extent * (index + 1)) + start).clamp(0, length).unsqueeze(1)
            is_inside = torch.logical_and(grid >= first, grid < last)
            place = [is_inside.shape[0], 1, *[1] * (result.dim() - 2)]
            place[axis + 2] = length
            kept = torch.where(is_inside.reshape(place), result, torch.full_like(result, lowest))
            strips.append(torch.amax(kept, dim=axis + 2))
        result = torch.stack(strips, dim=axis + 2)
    return torch.where(torch.isinf(result), torch.zeros_like(result), result)


@handles("NonMaxSuppression")
def _non_max_suppression(node: OnnxNode, *inputs: Tensor) -> Tensor:
    raise node.refusal(
        "how many boxes it keeps depends on their values, and shapes are static here. Export the model without it, "
        "and select the boxes after the model"
    )
