"""Magnitude pruning: the smallest weights become exact zeros, one by one or N of every M."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgewright.compress.checkpoints import Checkpoints, ResumableFit, silent
from edgewright.compress.masks import masked, weight_of, zero_share, zeros_kept
from edgewright.compress.module import outside_layers, select_layers, to_module, to_program, weighted_layers
from edgewright.compress.passes import Bench, Compressed, Fit
from edgewright.compress.sparse_patterns import Pattern, global_masks, pattern_mask, share_mask
from edgewright.core.errors import ConversionError, UsageError
from edgewright.core.program import Program

if TYPE_CHECKING:
    import torch

    from edgewright.compress.passes import Train

Scope = Literal["global", "layer", "lamp"]
MAX_STEPS = 10_000

# Measured on x86-64 with a separable CNN (4 blocks, 56x56 images): dense, 90 % zeros in every layer and 2:4 took
# the same time on each of the four runtimes, within 4 %. The rest is what their documentation says.
NOTES = (
    "Zeros make the download smaller (.ewz, or any archive), not the file: every runtime stores them in full.",
    "Zeros do not make LiteRT, ONNX Runtime, OpenVINO or ExecuTorch faster: measured, with 90 % zeros and with 2:4.",
    "litert: XNNPACK has sparse kernels for 1x1 convolutions, but only for weights in the sparse format of .tflite, "
    "which the converter does not write.",
    "openvino: CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE packs the zeros of int8 matrix products on CPUs with AMX; it is "
    "off, and saves memory traffic, not arithmetic.",
    "tensorrt: 2:4 needs its own flag for sparse weights, which is not set.",
    "To be faster everywhere, remove whole channels (prune).",
)


@dataclass(frozen=True, kw_only=True)
class SparsifyOptions:
    """What to set to zero, and how fast.

    Attributes:
        sparsity: share of zeros over all chosen layers together, 0 <= s < 1; None with an N:M pattern, or where
            `layer_sparsity` names every layer.
        pattern: "unstructured", or "N:M": at most N of M consecutive inputs of each output are kept (2:4, 1:4).
        scope: how layers share an overall sparsity: "lamp" ranks weights by LAMP score, so that no layer runs dry,
            "global" by plain magnitude, "layer" gives every layer the same share.
        layers: names or globs of the layers to choose.
        skip: names or globs of those to leave alone.
        layer_sparsity: name or glob -> share of zeros of those layers, whatever the scope.
        steps: how many times weights are removed; the share grows by the cubic schedule.
        epochs: fine-tuning after each step.
        final_epochs: more fine-tuning after the last step.
    """

    sparsity: float | None = None
    pattern: str = "unstructured"
    scope: Scope = "lamp"
    layers: tuple[str, ...] = ("*",)
    skip: tuple[str, ...] = ()
    layer_sparsity: Mapping[str, float] = field(default_factory=dict)
    steps: int = 1
    epochs: int = 0
    final_epochs: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without the model.

        Raises:
            UsageError: a share outside 0..1, an unknown pattern or scope, or a count out of range.
        """
        pattern = Pattern.parse(self.pattern)
        if self.scope not in ("global", "layer", "lamp"):
            raise UsageError(f"scope {self.scope!r} is unknown. Use global, layer or lamp.")
        shares = dict(self.layer_sparsity)
        if self.sparsity is not None:
            shares["sparsity"] = self.sparsity
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise UsageError(
                    f"the sparsity {share} ({name}) is outside 0..1. Give the share of zeros, at least 0 and "
                    "below 1: 0.9 keeps a tenth of the weights."
                )
        if pattern is not None and shares:
            raise UsageError(
                f"pattern {self.pattern} says itself that {1 - pattern.kept / pattern.group:.0%} of the weights "
                "become zero. Leave sparsity and layer_sparsity out."
            )
        if pattern is None and not shares:
            raise UsageError("how many zeros? Give sparsity (0.9), layer_sparsity, or a pattern such as 2:4.")
        if not 1 <= self.steps <= MAX_STEPS or self.epochs < 0 or self.final_epochs < 0:
            raise UsageError(
                f"got {self.steps} steps, {self.epochs} epochs and {self.final_epochs} final epochs; expected 1 to "
                f"{MAX_STEPS} steps, and 0 or more epochs."
            )


def sparsify(
    module: torch.nn.Module,
    *,
    sparsity: float | None = None,
    pattern: str = "unstructured",
    scope: Scope = "lamp",
    layers: tuple[str, ...] = ("*",),
    skip: tuple[str, ...] = (),
    layer_sparsity: Mapping[str, float] | None = None,
    steps: int = 1,
    train: Train | None = None,
    epochs: int = 0,
    final_epochs: int = 0,
    checkpoints: Path | None = None,
) -> torch.nn.Module:
    """Return a copy of `module` whose smallest weights are exactly zero; see `SparsifyOptions`.

    While `train(module, epochs)` runs, masks hold the zeros (`torch.nn.utils.parametrize`), whatever the loop does;
    afterwards the layers are as before. Zeros of an earlier pass stay zero.

    Args:
        checkpoints: a folder; a run that was killed goes on there.
    Raises:
        UsageError, UnknownNameError: an option is out of range, or a pattern matches no layer.
        ConversionError: a layer would lose all its weights, or is parametrized already.
        TrainingError: training failed or is needed and `train` is None.
    """
    options = SparsifyOptions(
        sparsity=sparsity,
        pattern=pattern,
        scope=scope,
        layers=layers,
        skip=skip,
        layer_sparsity=dict(layer_sparsity or {}),
        steps=steps,
        epochs=epochs,
        final_epochs=final_epochs,
    )
    sparse = copy.deepcopy(module)
    fit = ResumableFit(train, Checkpoints(checkpoints) if checkpoints else None)
    _sparsify(sparse, options, fit, silent)
    return sparse


class SparsifyPass:
    """The pass "sparsify" of recipes."""

    name = "sparsify"
    summary = "Set small weights to zero, one by one or N of M."
    precisions = ("fp32", "w8a8", "w4a8")
    Options = SparsifyOptions

    def run(self, program: Program, options: SparsifyOptions, bench: Bench) -> Compressed:
        """Return `program` with zeros, see `sparsify`."""
        module = to_module(program)
        skipped = _sparsify(module, options, bench.fit, bench.report)
        made = to_program(
            module, program, bench.calibration[0], folder=bench.folder, step=f"sparsify({_describe(options)})"
        )
        rows = sparsity_table(module)
        zeros, weights = sum(int(row["zeros"]) for row in rows), sum(int(row["weights"]) for row in rows)
        notes: tuple[str, ...] = (*outside_layers(module), *NOTES)
        if skipped:
            notes += (
                f"Dense, because they have fewer inputs per output than a group: {', '.join(skipped)}.",
            )
        return Compressed(
            program=made,
            facts={"sparsity": zeros / max(1, weights), "weights": weights, "not zero": weights - zeros},
            tables={"Sparsity per layer": rows},
            notes=notes,
        )


PASS = SparsifyPass()


def sparsity_table(module: torch.nn.Module) -> list[dict[str, float | int | str]]:
    """Return one row per layer with weights: its shape, how many weights, and how many of them are zero."""
    rows: list[dict[str, float | int | str]] = []
    for name, layer in weighted_layers(module).items():
        weight = weight_of(layer)
        share = zero_share(weight)
        zeros = weight.numel() - int(weight.count_nonzero())
        shape = "x".join(map(str, weight.shape))
        rows.append(
            {"layer": name, "shape": shape, "weights": weight.numel(), "zeros": zeros, "sparsity": share}
        )
    return rows


def _describe(options: SparsifyOptions) -> str:
    if options.pattern != "unstructured":
        return options.pattern
    shares = [] if options.sparsity is None else [f"{options.sparsity:g}, {options.scope}"]
    return ", ".join(shares + [f"{name}: {share:g}" for name, share in options.layer_sparsity.items()])


def cubic(start: float, final: float, progress: float) -> float:
    """Return the sparsity at `progress` 0..1 between `start` and `final`.

    s = s_f + (s_i - s_f) (1 - t)^3

    Source: Zhu and Gupta 2017, "To prune, or not to prune", equation 1.
    """
    return final + (start - final) * (1 - progress) ** 3


def _sparsify(
    module: torch.nn.Module,
    options: SparsifyOptions,
    fit: Fit,
    report: Callable[[str, float | None], None],
) -> list[str]:
    """Sparsify `module` in place; return the layers that the pattern does not fit."""
    layers, own = _choose(module, options)
    pattern = Pattern.parse(options.pattern)
    unfit = [name for name, layer in layers.items() if pattern is not None and not pattern.fits(layer)]
    layers = {name: layer for name, layer in layers.items() if name not in unfit}
    if not layers:
        raise ConversionError(
            f"pattern {options.pattern} fits no chosen layer: none has as many inputs per output as a group. "
            "Choose other layers or another pattern."
        )
    start = {name: zero_share(weight_of(layer)) for name, layer in layers.items()}
    with masked(layers) as masks, zeros_kept(module):
        for step in range(1, options.steps + 1):
            progress = step / options.steps
            for name, kept in _masks_at(progress, layers, start, own, options).items():
                if not kept.any() and weight_of(layers[name]).any():
                    raise ConversionError(
                        f"layer {name!r} would lose all its {kept.numel()} weights in step {step}, so nothing would "
                        'pass it. Use scope "lamp" or "layer", less sparsity, or skip this layer.'
                    )
                masks[name].mask &= kept
            zeros = sum(int((~mask.mask).sum()) for mask in masks.values())
            total = sum(mask.mask.numel() for mask in masks.values())
            report(f"step {step} of {options.steps}: {zeros / total:.1%} zeros", progress)
            is_last = step == options.steps
            fit(f"sparsify-{step}", module, options.epochs + is_last * options.final_epochs)
    return unfit


def _masks_at(
    progress: float,
    layers: Mapping[str, torch.nn.Module],
    start: Mapping[str, float],
    own: Mapping[str, float],
    options: SparsifyOptions,
) -> dict[str, torch.Tensor]:
    """Return what each layer keeps at `progress` 0..1.

    Args:
        start: the shares of zeros before the first step.
        own: the final shares of the layers that have their own.
    """
    weights = {name: weight_of(layer) for name, layer in layers.items()}
    pattern = Pattern.parse(options.pattern)
    if pattern is not None:
        part = cubic(0.0, 1.0, progress)
        return {name: pattern_mask(weight, layers[name], pattern, part) for name, weight in weights.items()}
    kept = {
        name: share_mask(weights[name], max(start[name], cubic(start[name], share, progress)))
        for name, share in own.items()
        if name in weights
    }
    rest = {name: weight for name, weight in weights.items() if name not in own}
    if rest:
        assert options.sparsity is not None
        total = sum(weight.numel() for weight in rest.values())
        before = math.fsum(start[name] * weight.numel() for name, weight in rest.items()) / total
        share = max(before, cubic(before, options.sparsity, progress))
        kept |= global_masks(rest, share, is_lamp=options.scope == "lamp")
    return kept


def _choose(
    module: torch.nn.Module, options: SparsifyOptions
) -> tuple[dict[str, torch.nn.Module], dict[str, float]]:
    """Return the chosen layers, and the sparsities of those that do not share one with others.

    Raises:
        UnknownNameError: a pattern matches no layer.
        UsageError: nothing is left to choose.
    """
    layers = select_layers(module, options.layers)
    own: dict[str, float] = {}
    if options.scope == "layer" and options.sparsity is not None:
        own = dict.fromkeys(layers, options.sparsity)
    for pattern, share in options.layer_sparsity.items():
        own |= dict.fromkeys(select_layers(module, (pattern,)), share)
    if options.sparsity is None and options.layer_sparsity:
        layers = {name: layer for name, layer in layers.items() if name in own}
    for name in select_layers(module, options.skip):
        layers.pop(name, None)
    if not layers:
        raise UsageError(
            f"no layer is left: layers {list(options.layers)}, skip {list(options.skip)}. "
            f"The model has {', '.join(weighted_layers(module)) or 'no layer with weights'}."
        )
    return layers, own
