"""The search of `repair`: which corrections, and which precision of which layer, bring the loss inside the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends.vendor import load_exported, quiet
from edgewright.compress.adaround import round_weights
from edgewright.compress.bias_correction import correct_biases
from edgewright.compress.equalizing import equalize_traced
from edgewright.compress.int8_quantizer import LayerScheme, layer_names
from edgewright.compress.masks import weight_of
from edgewright.compress.module import fold_batch_norm, layered, weighted_layers
from edgewright.compress.quantize import quantize_exported
from edgewright.compress.sensitivity import (
    LayerSensitivity,
    Scores,
    compare,
    run_batches,
    sensitivity,
)
from edgewright.core.errors import ConversionError
from edgewright.sources.torch_export import export_module

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from edgewright.compress.passes import Batch
    from edgewright.core.tensors import TensorSpec

EQUALIZE, BIAS, ROUND, PRECISION = "equalize", "bias", "round", "precision"
METHODS = (EQUALIZE, BIAS, ROUND, PRECISION)
_SAME_SCALE = 1e-6  # relative


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One combination that was tried.

    Attributes:
        methods: the corrections in it, of METHODS.
        layers: layer -> precision of those that are not w8a8.
        scores: against the float model, on samples that nothing was fitted to where there were enough batches.
    """

    methods: tuple[str, ...]
    layers: Mapping[str, LayerScheme]
    scores: Scores

    @property
    def title(self) -> str:
        """What was done, as the report says it."""
        return " + ".join(self.methods) or "plain w8a8"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A quantized module, as `compress.module.layered` gives one, and how well it does."""

    module: GraphModule
    stage: Stage


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the search may do; see `repair.RepairOptions`."""

    methods: tuple[str, ...]
    drop_points: float
    iterations: int
    fallback: LayerScheme
    weight_bytes: int | None
    replace_relu6: bool
    seed: int


@dataclass(frozen=True, kw_only=True)
class _Base:
    """A float module, the program that it exports to, and the weights that were rounded for it so far."""

    module: GraphModule
    exported: ExportedProgram
    inputs: tuple[TensorSpec, ...]
    rounded: dict[tuple[str, LayerScheme], torch.Tensor] = field(default_factory=dict)


class Search:
    """Tries combinations on one model; every one tried stays in `stages`."""

    def __init__(
        self,
        module: GraphModule,
        calibration: Sequence[Batch],
        labels: Sequence[torch.Tensor] | None,
        plan: Plan,
        folder: Path,
        report: Callable[[str, float | None], None],
    ) -> None:
        """Split the calibration: every second batch is kept for measuring.

        Args:
            module: float, as `compress.module` makes it.
            folder: for intermediate files.
        Raises:
            ConversionError: the model has no class scores.
            DataError: the labels do not fit.
        """
        import torch

        self._plan, self._folder, self._report = plan, folder, report
        self._fit = list(calibration[0::2])
        self.is_held_out = len(calibration) > 1
        self._check = list(calibration[1::2]) or self._fit
        self._labels = None
        if labels is not None:
            self._labels = torch.cat(list(labels[1::2]) or list(labels))
        self.stages: list[Stage] = []
        self.table: tuple[LayerSensitivity, ...] = ()
        self.notes: list[str] = []
        self._reference = fold_batch_norm(module)
        self._expected = run_batches(self._reference, self._check)
        compare(self._expected, self._expected, self._labels)
        self._source = module
        self._bases: dict[bool, _Base] = {}

    def run(self) -> Candidate:
        """Return the first combination inside the budget, or the best one where none is.

        Raises:
            ConversionError: PT2E cannot quantize the model.
        """
        best = self.attempt((), {})
        for method in METHODS:
            if self._is_inside(best) or method not in self._plan.methods:
                continue
            if method == PRECISION:
                best = self._choose_precisions(best)
            elif method != EQUALIZE or self._can_equalize():
                better = self.attempt((*best.stage.methods, method), best.stage.layers)
                best = better if self._is_better(better, best) else best
        if self._plan.weight_bytes is not None and self._is_inside(best):
            best = self._shrink(best, self._plan.weight_bytes)
        return best

    def attempt(self, methods: tuple[str, ...], layers: Mapping[str, LayerScheme]) -> Candidate:
        """Return the model quantized with `methods` and `layers`, and measured.

        Raises:
            UnknownNameError: no such layer.
            ConversionError: it cannot be equalized, or not quantized.
        """
        base = self._base(is_equalized=EQUALIZE in methods)
        quantized = self._quantized(base, layers)
        if BIAS in methods:
            correct_biases(base.module, quantized, self._fit)
        if ROUND in methods:
            self._round(base, quantized, layers)
        scores = compare(self._expected, run_batches(quantized, self._check), self._labels)
        stage = Stage(methods=methods, layers=dict(layers), scores=scores)
        self.stages.append(stage)
        self._report(
            f"{stage.title}{f', {len(layers)} layers otherwise' if layers else ''}: "
            f"{scores.drop_points:.2f} points lost, {scores.sqnr_db:.1f} dB",
            None,
        )
        return Candidate(module=quantized, stage=stage)

    def is_inside(self, stage: Stage) -> bool:
        """Return whether a stage's loss is within the budget."""
        return stage.scores.drop_points <= self._plan.drop_points

    def weight_bytes(self, layers: Mapping[str, LayerScheme]) -> int:
        """Return the bytes of all weights of convolutions and linear layers, two weights of 4 bits in a byte."""
        bits = {
            LayerScheme.FLOAT: 32,
            LayerScheme.W8: 8,
            LayerScheme.W8A8: 8,
            LayerScheme.W4A8: 4,
        }
        total = 0
        for name, layer in weighted_layers(self._reference).items():
            total += (weight_of(layer).numel() * bits[layers.get(name, LayerScheme.W8A8)] + 7) // 8
        return total

    def _is_inside(self, candidate: Candidate) -> bool:
        return self.is_inside(candidate.stage)

    def _is_better(self, one: Candidate, other: Candidate) -> bool:
        """Inside the budget, else with class probabilities nearer to the float ones: the drop itself moves in steps."""
        if self._is_inside(one) != self._is_inside(other):
            return self._is_inside(one)
        return one.stage.scores.kl < other.stage.scores.kl

    def _can_equalize(self) -> bool:
        try:
            self._base(is_equalized=True)
        except ConversionError as err:
            self.notes.append(f"equalize left out: {err}")
            return False
        return True

    def _base(self, *, is_equalized: bool) -> _Base:
        if is_equalized not in self._bases:
            module = self._reference
            if is_equalized:
                module = equalize_traced(
                    self._source, calibration=self._fit, replace_relu6=self._plan.replace_relu6
                )
            program = export_module(
                module, self._fit[0], workdir=self._folder, origin=f"float-{int(is_equalized)}"
            )
            self._bases[is_equalized] = _Base(
                module=module, exported=load_exported(program), inputs=program.inputs
            )
        return self._bases[is_equalized]

    def _quantized(self, base: _Base, layers: Mapping[str, LayerScheme]) -> GraphModule:
        with quiet():
            return layered(
                quantize_exported(base.exported, base.inputs, self._fit, origin="the model", layers=layers)
            )

    def _round(self, base: _Base, quantized: GraphModule, layers: Mapping[str, LayerScheme]) -> None:
        """Round adaptively; what was rounded for the same float weights before is used again."""
        done = []
        for name, layer in weighted_layers(quantized).items():
            kept = base.rounded.get((name, layers.get(name, LayerScheme.W8A8)))
            if kept is not None and hasattr(layer, "weight_quantizer"):
                weight_of(layer).copy_(kept)
                done.append(name)
        weighted = [
            n for n, layer in weighted_layers(quantized).items() if hasattr(layer, "weight_quantizer")
        ]
        if set(weighted) <= set(done):
            return
        made = round_weights(
            base.module,
            quantized,
            self._fit,
            iterations=self._plan.iterations,
            skip=done,
            seed=self._plan.seed,
        )
        for name in made:
            weight = weight_of(quantized.get_submodule(name))
            key = (name, layers.get(name, LayerScheme.W8A8))
            base.rounded[key] = weight.detach().clone()

    def _measure_layers(self, best: Candidate) -> dict[str, LayerSensitivity]:
        """Return the sensitivity of each layer that can have another precision, by its name."""
        if not self.table:
            self._report("measuring each layer alone", None)
            base = self._base(is_equalized=EQUALIZE in best.stage.methods)
            # Not of `best`: its biases and integers make up for the errors of other layers, which are off here.
            quantized = self._quantized(base, {})
            has_4_bits = self._plan.weight_bytes is not None
            found = sensitivity(base.module, quantized, self._fit, has_4_bits=has_4_bits)
            self.table = _renamed(found, layer_names(base.exported.module(check_guards=False)))
        return {entry.layer: entry for entry in self.table}

    def _choose_precisions(self, best: Candidate) -> Candidate:
        """Leave the most sensitive layers out of int8: as few as the budget allows."""
        found = self._measure_layers(best)
        order = sorted(found, key=lambda name: found[name].alone.sqnr_db)

        def left_out(names: Sequence[str]) -> Candidate:
            schemes = {
                name: self._plan.fallback if found[name].weights else LayerScheme.FLOAT for name in names
            }
            # Integers that were rounded on what int8 gave in these layers do not suit what comes now.
            methods = tuple(method for method in best.stage.methods if method != ROUND)
            return self.attempt((*methods, PRECISION), {**best.stage.layers, **schemes})

        weighted = [place for place, name in enumerate(order) if found[name].weights]
        most = max(weighted, default=0)  # one layer with weights stays in int8
        chosen = _fewest(most, lambda count: left_out(order[:count]), self._is_inside)
        if chosen is None:
            return best
        return self._give_back(chosen, order, left_out)

    def _give_back(
        self, chosen: Candidate, order: Sequence[str], left_out: Callable[[Sequence[str]], Candidate]
    ) -> Candidate:
        """Return layers to int8 that need not have been left out, the least sensitive first."""
        names = [name for name in order if name in chosen.stage.layers]
        for name in reversed(names[1:]):
            fewer = left_out([other for other in names if other != name])
            if self._is_inside(fewer):
                chosen, names = fewer, [other for other in names if other != name]
        return chosen

    def _shrink(self, best: Candidate, weight_bytes: int) -> Candidate:
        """Give weights of 4 bits to the layers that lose least for their size, until the size is reached."""
        found = self._measure_layers(best)
        noise = {
            name: 10 ** (-entry.with_4_bits.sqnr_db / 10) / entry.weights
            for name, entry in found.items()
            if entry.with_4_bits is not None and name not in best.stage.layers
        }
        order = sorted(noise, key=lambda name: noise[name])

        def with_4_bits(count: int) -> dict[str, LayerScheme]:
            return {**best.stage.layers, **dict.fromkeys(order[:count], LayerScheme.W4A8)}

        sizes = [self.weight_bytes(with_4_bits(count)) for count in range(len(order) + 1)]
        wanted = next((count for count, size in enumerate(sizes) if size <= weight_bytes), len(order))
        if sizes[wanted] > weight_bytes:
            self.notes.append(
                f"{weight_bytes} bytes of weights cannot be reached: with 4 bits in all layers they are {sizes[-1]}"
            )
        methods = tuple(dict.fromkeys((*best.stage.methods, PRECISION)))
        if ROUND in self._plan.methods and ROUND not in methods:
            methods = (*methods[:-1], ROUND, PRECISION)
        low, high = 0, wanted  # `low` is inside the budget
        chosen = best
        middle = wanted
        while low < high:
            tried = self.attempt(methods, with_4_bits(middle))
            if self._is_inside(tried):
                low, chosen = middle, tried
            else:
                high = middle - 1
            middle = (low + high + 1) // 2
        if sizes[low] > weight_bytes >= sizes[wanted]:
            self.notes.append(
                f"the budget allows {sizes[low]} bytes of weights, more than the {weight_bytes} asked for"
            )
        return chosen


def _renamed(found: Sequence[LayerSensitivity], known: Mapping[str, bool]) -> tuple[LayerSensitivity, ...]:
    """Return the entries under the names of the float program, which has weights where `known` says so.

    Sums and means are called as their nodes, which an export may number anew; their order is the same.
    """
    weighted = [entry for entry in found if known.get(entry.layer)]
    others = [entry for entry in found if not entry.weights]
    names = [name for name, is_weighted in known.items() if not is_weighted]
    if len(names) != len(others):
        return tuple(weighted)
    return (
        *weighted,
        *(replace(entry, layer=name) for entry, name in zip(others, names, strict=True)),
    )


def _fewest(
    most: int, attempt: Callable[[int], Candidate], is_inside: Callable[[Candidate], bool]
) -> Candidate | None:
    """Return the attempt with the smallest count in 1..most that is inside, taking it that more are never worse."""
    low, high, count = 0, most, 1
    found = None
    while low < high:
        tried = attempt(min(count, high))
        if is_inside(tried):
            found, high = tried, min(count, high)
            break
        low, count = min(count, high), count * 2
    while found is not None and high - low > 1:
        middle = (low + high) // 2
        tried = attempt(middle)
        if is_inside(tried):
            found, high = tried, middle
        else:
            low = middle
    return found
