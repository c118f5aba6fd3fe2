"""Clustering: the weights of a layer share at most 2^bits values."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.compress.checkpoints import Checkpoints, ResumableFit, silent
from edgewright.compress.kmeans import Init, fit_codebook, nearest
from edgewright.compress.masks import is_sparse, weight_of, zeros_kept
from edgewright.compress.module import outside_layers, select_layers, to_module, to_program, weighted_layers
from edgewright.compress.passes import Bench, Compressed, Fit
from edgewright.core.errors import ConversionError, UsageError
from edgewright.core.program import Program

if TYPE_CHECKING:
    import torch

    from edgewright.compress.passes import Train
    from edgewright.compress.weight_modules import Codebook, IntegerGrid

MAX_BITS = 8

NOTES = (
    "Shared values make the download smaller (.ewz, or any archive), not the file itself: a runtime stores every "
    "weight in full. The exception is Core ML, whose palettes keep 1 to 8 bits per weight on disk.",
)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How many values, and how they are found.

    Attributes:
        bits: 1..8; a layer's weights get at most 2^bits values, the zero of a sparse layer included.
        layer_bits: name or glob -> bits of those layers.
        bias_bits: 1..8, the same for the biases of the chosen layers; None leaves them as they are.
        init: how k-means starts: "kmeans++", or "linear" from the smallest to the largest weight.
        layers: names or globs of the layers to choose.
        skip: names or globs of those to leave alone.
        epochs: fine-tuning of the shared values.
    """

    bits: int = 4
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    bias_bits: int | None = None
    init: Init = "kmeans++"
    layers: tuple[str, ...] = ("*",)
    skip: tuple[str, ...] = ()
    epochs: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without the model.

        Raises:
            UsageError: bits outside 1..8, an unknown start, or less than 0 epochs.
        """
        given: dict[str, int | None] = {"bits": self.bits, "bias_bits": self.bias_bits, **self.layer_bits}
        for name, bits in given.items():
            if bits is not None and not 1 <= bits <= MAX_BITS:
                raise UsageError(f"{bits} bits ({name}) are outside 1..{MAX_BITS}: 4 bits are 16 values.")
        if self.init not in ("kmeans++", "linear"):
            raise UsageError(f"init {self.init!r} is unknown. Use kmeans++ or linear.")
        if self.epochs < 0:
            raise UsageError(f"got {self.epochs} epochs; 0 or more are expected.")


def cluster(
    module: torch.nn.Module,
    *,
    bits: int = 4,
    layer_bits: Mapping[str, int] | None = None,
    bias_bits: int | None = None,
    init: Init = "kmeans++",
    layers: tuple[str, ...] = ("*",),
    skip: tuple[str, ...] = (),
    train: Train | None = None,
    epochs: int = 0,
    seed: int = 0,
    checkpoints: Path | None = None,
) -> torch.nn.Module:
    """Return a copy of `module` whose weights share values; see `ClusterOptions`.

    While `train(module, epochs)` runs, each weight is codebook[index] (`torch.nn.utils.parametrize`) and the
    codebooks train; afterwards the layers are as before. Zeros of a sparse layer stay zeros. The codebook of a
    quantized layer holds integers of its grid.

    Args:
        seed: of the start of k-means.
        checkpoints: a folder; a run that was killed goes on there.
    Raises:
        UsageError, UnknownNameError: an option is out of range, or a pattern matches no layer.
        ConversionError: a weight is parametrized already, or holds NaN or infinity.
        TrainingError: training failed or is needed and `train` is None.
    """
    options = ClusterOptions(
        bits=bits,
        layer_bits=dict(layer_bits or {}),
        bias_bits=bias_bits,
        init=init,
        layers=layers,
        skip=skip,
        epochs=epochs,
    )
    clustered = copy.deepcopy(module)
    fit = ResumableFit(train, Checkpoints(checkpoints) if checkpoints else None, seed=seed)
    _cluster(clustered, options, fit, silent, seed)
    return clustered


class ClusterPass:
    """The pass "cluster" of recipes."""

    name = "cluster"
    summary = "Let weights share a few values per layer."
    precisions = ("fp32", "w8a8", "w4a8")
    Options = ClusterOptions

    def run(self, program: Program, options: ClusterOptions, bench: Bench) -> Compressed:
        """Return `program` with shared values, see `cluster`."""
        module = to_module(program)
        _cluster(module, options, bench.fit, bench.report, bench.seed)
        step = f"cluster({options.bits} bits)"
        made = to_program(module, program, bench.calibration[0], folder=bench.folder, step=step)
        rows = value_table(module)
        weights = sum(int(row["weights"]) for row in rows)
        coded = math.fsum(float(row["entropy bits"]) * int(row["weights"]) for row in rows)
        return Compressed(
            program=made,
            facts={
                "bits": options.bits,
                "weights": weights,
                "entropy bits per weight": coded / max(1, weights),
            },
            tables={"Values per layer": rows},
            notes=(*outside_layers(module), *NOTES),
        )


PASS = ClusterPass()


def value_table(module: torch.nn.Module) -> list[dict[str, float | int | str]]:
    """Return one row per layer with weights: how many different values they have, and the entropy of these.

    The entropy, in bits per weight, is what an ideal coder needs that knows how often each value occurs. The
    values of a quantized layer are its integers.
    """
    rows: list[dict[str, float | int | str]] = []
    for name, layer in weighted_layers(module).items():
        weight, grid = weight_of(layer), _grid_of(layer, name)
        values = weight if grid is None else (weight / grid.scale).round()
        _, counts = np.unique(values.numpy(), return_counts=True)
        shares = counts / counts.sum()
        rows.append(
            {
                "layer": name,
                "weights": weight.numel(),
                "values": len(counts),
                "entropy bits": float(-(shares * np.log2(shares)).sum()),
            }
        )
    return rows


def _cluster(
    module: torch.nn.Module,
    options: ClusterOptions,
    fit: Fit,
    report: Callable[[str, float | None], None],
    seed: int,
) -> None:
    """Cluster `module` in place."""
    from edgewright.compress.weight_modules import hold, release

    bits = dict.fromkeys(select_layers(module, options.layers), options.bits)
    for pattern, own in options.layer_bits.items():
        bits |= dict.fromkeys(select_layers(module, (pattern,)), own)
    for name in select_layers(module, options.skip):
        bits.pop(name, None)
    layers = weighted_layers(module)
    if not bits:
        raise UsageError(
            f"no layer is left: layers {list(options.layers)}, skip {list(options.skip)}. "
            f"The model has {', '.join(layers) or 'no layer with weights'}."
        )
    held: list[tuple[torch.nn.Module, str]] = []
    try:
        for done, (name, count) in enumerate(bits.items()):
            layer = layers[name]
            report(f"k-means of {name}: {2**count} values", done / len(bits))
            hold(layer, "weight", _codebook_of(layer, name, "weight", count, options, seed), title=name)
            held.append((layer, "weight"))
            if options.bias_bits is not None and layer.bias is not None:
                hold(
                    layer,
                    "bias",
                    _codebook_of(layer, name, "bias", options.bias_bits, options, seed),
                    title=name,
                )
                held.append((layer, "bias"))
        with zeros_kept(module):
            fit("cluster", module, options.epochs)
    finally:
        for layer, parameter in held:
            release(layer, parameter)


def _codebook_of(
    layer: torch.nn.Module, title: str, parameter: str, bits: int, options: ClusterOptions, seed: int
) -> Codebook:
    """Return the parametrization of a weight or bias, its codebook fitted to the values that are there."""
    import torch

    from edgewright.compress.weight_modules import Codebook

    values = getattr(layer, parameter).detach()
    if not values.isfinite().all():
        raise ConversionError(
            f"the {parameter} of layer {title!r} holds NaN or infinity, so it has no clusters. "
            "Check the training before this step."
        )
    grid = _grid_of(layer, title) if parameter == "weight" else None
    # On an integer grid what is shared are integers: the weights of two channels differ by their scales.
    numbers = values if grid is None else (values / grid.scale).round()
    has_zero = parameter == "weight" and is_sparse(numbers)
    chosen = numbers[numbers != 0] if has_zero else numbers
    if not chosen.numel():  # a layer of zeros: a value that no weight has, since a parameter cannot be empty
        chosen = numbers.new_zeros(1)
    codebook = fit_codebook(chosen.numpy(), 2**bits - has_zero, init=options.init, seed=seed)
    indices = torch.from_numpy(nearest(numbers.numpy(), codebook))
    if has_zero:
        indices = torch.where(numbers == 0, 0, indices + 1)
    start = torch.from_numpy(codebook).to(values.dtype)
    if grid is not None:
        start = start * grid.unit
    return Codebook(start, indices, has_zero=has_zero, grid=grid)


def _grid_of(layer: torch.nn.Module, title: str) -> IntegerGrid | None:
    """Return the integers of a quantized layer's weight, or None where it is float."""
    import torch

    from edgewright.compress.quantized_modules import FakeQuantize
    from edgewright.compress.weight_modules import IntegerGrid

    quantizer = getattr(layer, "weight_quantizer", None)
    if not isinstance(quantizer, FakeQuantize):
        return None
    if torch.as_tensor(quantizer.zero_point).any():
        raise ConversionError(
            f"the weight of layer {title!r} is quantized with a zero point, where a symmetric one is expected, so "
            "its clusters would not hold zero. Skip this layer."
        )
    scale = torch.as_tensor(quantizer.scale).float()
    if quantizer.axis is not None:
        shape = [1] * weight_of(layer).ndim
        shape[quantizer.axis] = -1
        scale = scale.view(shape)
    return IntegerGrid(scale=scale, unit=float(scale.mean()), low=quantizer.low, high=quantizer.high)
