"""Proof of a folded model: its outputs, and the results behind them, against processing and model apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.compress.folding.records import FoldedOutput, Split
from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.processing.planning import Plan
from edgewright.processing.processor import Execute, Processor, Raw
from edgewright.processing.step import Floats, floats
from edgewright.processing.values import ValueType

Run = Callable[[Sequence[Array]], list[Array]]  # a model: inputs and outputs in the order of its signature

_ANY_SIZE = (360, 480)  # of a generated image whose size is free
_ANY_LENGTH = 16_000
_SCALES = (1.0, 30.0, 300.0)  # of generated outputs: probabilities, logits, pixels
_FEW = 0.02
_FEW_PIXELS = 1e-3  # two classes may have nearly the same score


@dataclass(kw_only=True)
class Proof:
    """What was compared, and how far it is apart.

    Attributes:
        outputs: largest difference of an output, as a share of its largest value.
        results: the same of the results; of classes and boxes that are the same ones, of scores as they are.
        pixels: largest share of a mask's pixels that are of another class.
        things: boxes, best classes and masks that were compared.
        unlike: those of them that are on one side alone, or of another class.
        samples: raw inputs that were compared.
    """

    outputs: float = 0.0
    results: float = 0.0
    pixels: float = 0.0
    things: int = 0
    unlike: int = 0
    samples: int = 0

    def text(self) -> str:
        """Return the figures in words."""
        same = f"{self.things - self.unlike} of {self.things} results the same, " if self.things else ""
        return f"{same}outputs differ by {self.outputs:.2g}, results by {self.results:.2g} over {self.samples} inputs"

    def fault(self, limit: float) -> str:
        """Return why the folded model is not right within `limit`; empty where it is."""
        if not self.outputs <= limit:
            return f"its outputs differ by {self.outputs:.3g} of the largest, at most {limit:g} is right"
        if not self.pixels <= _FEW_PIXELS:
            return f"{self.pixels:.2%} of the pixels of a mask are of another class"
        if self.unlike > self.things * _FEW:
            return f"{self.unlike} of {self.things} results are others"
        return (
            ""
            if self.results <= limit
            else f"its results differ by {self.results:.3g}, at most {limit:g} is right"
        )


def prove(
    old: Plan,
    new: Plan,
    made: Split,
    *,
    apart: Run,
    folded: Run,
    samples: Iterable[Mapping[str, Raw]],
    limit: float,
) -> Proof:
    """Return how the folded model and its plan compare with model and processing apart over raw inputs.

    Args:
        apart: the model under the plan `old`.
        folded: that under the plan `new`, made by the split `made`.
        limit: what may differ; two boxes are the same one within it.
    """
    proof = Proof()
    specs = old.signatures[""].outputs
    for raw in samples:
        kept: dict[str, list[Array]] = {}
        results = [
            Processor(plan).run(raw, _execute(plan, run, kept, name))
            for plan, run, name in ((old, apart, "apart"), (new, folded, "folded"))
        ]
        values = [_without_batch(value, spec) for value, spec in zip(kept["apart"], specs, strict=True)]
        for one, got in zip(made.outputs, kept["folded"], strict=True):
            _compare_output(proof, one, values, got)
        for name, result in old.results.items():
            _compare_result(proof, result, results[0][name], results[1][name], limit)
        proof.samples += 1
    return proof


def prove_behind(made: Split, specs: Sequence[TensorSpec], behind: Run, *, seeds: int) -> Proof:
    """Return how the steps behind the model compare with the reference on generated outputs, many of them equal.

    Pictures that are generated show no objects: of these the outputs of the model would prove little.

    Args:
        specs: of the model's outputs.
        behind: the operators alone, on the model's outputs.
    """
    proof = Proof()
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        given = [_generated_output(spec, generator, _SCALES[seed % len(_SCALES)]) for spec in specs]
        values = [_without_batch(value, spec) for value, spec in zip(given, specs, strict=True)]
        for one, got in zip(made.outputs, behind(given), strict=True):
            _compare_output(proof, one, values, got)
            suppression = one.expression.suppression
            if suppression is not None:
                taken = got[0][got[0][:, 4] >= np.float32(suppression.score)]
                _compare_boxes(proof, one.expression.apply(values), taken, limit=1e-4)
        proof.samples += 1
    return proof


def generated(plan: Plan, seed: int) -> dict[str, Raw]:
    """Return raw inputs: smooth shapes and noise for an image, a chirp for audio, noise for anything else.

    There is none for text, whose words are in a file beside the specification.
    """
    return {row.name: _generated(row.type, seed) for row in plan.specification.inputs}


def _execute(plan: Plan, run: Run, kept: dict[str, list[Array]], name: str) -> Execute:
    signature = plan.signatures[""]

    def execute(model: str, inputs: Arrays) -> Arrays:
        made = run([inputs[spec.name] for spec in signature.inputs])
        kept[name] = made
        return {spec.name: value for spec, value in zip(signature.outputs, made, strict=True)}

    return execute


def _compare_output(proof: Proof, one: FoldedOutput, values: Sequence[Array], got: Array) -> None:
    if one.expression.suppression is not None:
        return  # their number may differ; they are compared as results
    want = one.expression.apply(values)
    got = got.reshape(want.shape) if one.result is None else got[0]
    if want.dtype.kind != "f":
        proof.pixels = max(proof.pixels, float((want != got).mean()))
    else:
        proof.outputs = max(proof.outputs, _relative(floats(want), floats(got)))


def _relative(want: Floats, got: Floats) -> float:
    if want.shape != got.shape:
        return np.inf
    usable = np.isfinite(want)
    if not np.array_equal(want[~usable], got[~usable], equal_nan=True):
        return np.inf
    largest = max(float(np.abs(want[usable]).max(initial=0.0)), 1e-6)
    return float(np.abs(want[usable] - got[usable]).max(initial=0.0)) / largest


def _compare_result(proof: Proof, kind: ValueType, want: Array, got: Array, limit: float) -> None:
    if kind.kind == "boxes":
        _compare_boxes(proof, want, got, limit)
    elif kind.kind == "classes":
        _compare_classes(proof, want, got, limit)
    elif kind.kind == "mask":
        proof.things += 1
        proof.unlike += want.shape != got.shape
        if want.shape == got.shape:
            proof.pixels = max(proof.pixels, float((want != got).mean()))
    elif want.dtype.kind == "f":
        proof.results = max(proof.results, _relative(floats(want), floats(got)))
    else:
        proof.things += 1
        proof.unlike += not np.array_equal(want, got)


def _compare_classes(proof: Proof, want: Array, got: Array, limit: float) -> None:
    """Compare the best class, of which equal scores make no other, and the scores of those that both name."""
    scores = [{int(label): float(score) for label, score in rows} for rows in (want, got)]
    for label in scores[0].keys() & scores[1].keys():
        proof.results = max(proof.results, abs(scores[0][label] - scores[1][label]))
    proof.things += 1
    if len(want) and len(got):
        best = int(want[0, 0])
        proof.unlike += got[0, 1] - scores[1].get(best, -np.inf) > limit
    else:
        proof.unlike += len(want) != len(got)


def _compare_boxes(proof: Proof, want: Array, got: Array, limit: float) -> None:
    """Find for each box its partner of the same class, `limit` of the largest coordinate and of a score away."""
    proof.things += max(len(want), len(got))
    scale = max(float(np.abs(want[:, :4]).max(initial=1.0)), 1.0)
    left = list(range(len(got)))
    for row in want:
        apart = {
            index: max(
                float(np.abs(row[:4] - got[index, :4]).max()) / scale,
                float(abs(row[4] - got[index, 4])),
                float(np.abs(row[6:] - got[index, 6:]).max(initial=0.0)) / scale,
            )
            for index in left
            if row[5] == got[index, 5]
        }
        nearest = min(apart, key=lambda index: apart[index], default=None)
        if nearest is None or not apart[nearest] <= limit:
            proof.unlike += 1
            continue
        left.remove(nearest)
        proof.results = max(proof.results, apart[nearest])
    proof.unlike += max(len(got) - len(want), 0)


def _without_batch(value: Array, spec: TensorSpec) -> Array:
    is_batch = bool(spec.shape) and spec.shape[0] in (1, None)
    return value[0] if is_batch else value


def _generated_output(spec: TensorSpec, generator: np.random.Generator, scale: float) -> Array:
    shape = tuple(1 if size is None else size for size in spec.shape)
    if spec.dtype != "float32":
        return generator.integers(0, 100, size=shape).astype(spec.dtype)
    # Steps of 1/64: many are equal.
    steps = generator.integers(-16, 65, size=shape).astype(np.float32) / np.float32(64)
    return steps * np.float32(scale)


def _generated(have: ValueType, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    if have.kind == "image":
        shape = tuple(
            _ANY_SIZE[min(axis, 1)] if size is None else size for axis, size in enumerate(have.shape)
        )
        down, across = np.mgrid[0 : shape[0], 0 : shape[1]]
        waves = [np.sin(down / (9 + 4 * c + seed)) * np.cos(across / (13 + 3 * c)) for c in range(shape[2])]
        pixels = 127.5 + 100 * np.stack(waves, axis=-1) + generator.integers(-20, 21, size=shape)
        return np.clip(pixels, 0, 255).astype(np.uint8)
    shape = tuple(_ANY_LENGTH if size is None else size for size in have.shape)
    if have.kind == "audio":
        time = np.arange(shape[0]) / shape[0]
        chirp = 0.5 * np.sin(2 * np.pi * (200 + 900 * time * (seed + 1)) * time)
        return (chirp + generator.standard_normal(shape) * 0.01).astype(np.float32)
    if have.dtype == "float32":
        return generator.standard_normal(shape).astype(np.float32)
    return generator.integers(0, 100, size=shape).astype(have.dtype)
