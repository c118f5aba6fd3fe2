"""Distillation: a student is trained to answer as its teachers do, in any training loop."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgewright.compress.checkpoints import Checkpoints, ResumableFit
from edgewright.compress.masks import weight_of, zeros_kept
from edgewright.compress.modes import evaluating
from edgewright.compress.module import to_module, to_program, weighted_layers
from edgewright.compress.passes import Bench, Compressed, Fit
from edgewright.core.errors import ConversionError, UsageError
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

    from edgewright.compress.passes import Batch, Train

Match = Literal["classes", "values"]
_STAGE = "distill"
_MAX_EPOCHS = 100_000
_MOST_SHARED = 256  # of clusters of 8 bits
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """What the student learns from its teacher.

    The gradient that the student gets is that of
    (1 - alpha) * the loop's own loss + alpha * output loss + hint_weight * hints + attention_weight * attention.
    The loop's loss is taken to be a mean over the batch; one that is a sum, or is scaled, counts by that factor more.

    Attributes:
        epochs: of training.
        temperature: of the softmax over the classes, above 0; higher tells more about the wrong classes.
        alpha: share of the teacher's answers in the loss, 0..1; the rest are the labels.
        match: "classes": soft targets, T^2 times the KL divergence of the class probabilities at temperature T
            (Hinton et al., 2015); outputs that are probabilities already are taken back to logits. "values": the mean
            squared difference of all outputs, for models that do not tell classes.
        hints: hidden layers whose outputs are matched (FitNets, Romero et al., 2015), each
            "student_layer=teacher_layer", or one name for both. Where the channels differ, a 1x1 convolution or a
            linear layer trains along, and is not part of the result.
        attention: hidden layers of images whose attention maps are matched (Zagoruyko and Komodakis, 2017).
        hint_weight: of the mean squared differences of hints.
        attention_weight: of the mean squared differences of attention maps.
    """

    epochs: int = 10
    temperature: float = 4.0
    alpha: float = 0.9
    match: Match = "classes"
    hints: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()
    hint_weight: float = 1.0
    attention_weight: float = 1000.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: one is out of its range.
        """
        if self.match not in ("classes", "values"):
            raise UsageError(f"match is {self.match!r}; 'classes' or 'values' is expected.")
        ranges = (
            ("epochs", self.epochs, 0, _MAX_EPOCHS),
            ("temperature", self.temperature, 0.01, 1000),
            ("alpha", self.alpha, 0, 1),
            ("hint_weight", self.hint_weight, 0, 1e9),
            ("attention_weight", self.attention_weight, 0, 1e9),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; {low:g}..{high:g} is expected.")


def distill(
    student: torch.nn.Module,
    teacher: torch.nn.Module | Sequence[torch.nn.Module],
    *,
    train: Train,
    epochs: int,
    temperature: float = 4.0,
    alpha: float = 0.9,
    match: Match = "classes",
    hints: Sequence[str] = (),
    attention: Sequence[str] = (),
    hint_weight: float = 1.0,
    attention_weight: float = 1000.0,
    example_inputs: Sequence[torch.Tensor] = (),
    checkpoints: Path | None = None,
    seed: int = 0,
) -> torch.nn.Module:
    """Return a copy of `student`, trained by `train(module, epochs)` to answer as `teacher`; see `DistillOptions`.

    Any loop will do: it trains a module that answers as the student does, on which the teacher's gradient joins when
    the loop's own loss is sent back. Neither `student` nor `teacher` is changed. Zeros of a sparse student stay zero.

    Args:
        teacher: takes the same inputs; of several, the mean of their probabilities is the target (or of their outputs,
            with match "values"), and hidden layers are those of the first.
        example_inputs: the tensors of one call, batch axis first; needed for hints and attention.
        checkpoints: a folder; a run that was killed goes on there.
    Raises:
        UsageError: an option is out of range, there is no teacher, or hidden layers are named without examples.
        UnknownNameError: a hidden layer is not there, with the nearest names.
        ConversionError: outputs or hidden layers of the two cannot be compared, with both shapes.
        TrainingError: training failed.
    """
    options = DistillOptions(
        epochs=epochs,
        temperature=temperature,
        alpha=alpha,
        match=match,
        hints=tuple(hints),
        attention=tuple(attention),
        hint_weight=hint_weight,
        attention_weight=attention_weight,
    )
    teachers = list(teacher) if isinstance(teacher, Sequence) else [teacher]
    if not teachers:
        raise UsageError("there is no teacher to learn from. Give at least one.")
    if (hints or attention) and not example_inputs:
        raise UsageError(
            "hints and attention need example_inputs, the tensors of one call, to find their shapes."
        )
    fit = ResumableFit(train, Checkpoints(checkpoints) if checkpoints else None, seed=seed)
    learned = copy.deepcopy(student)
    _distill(learned, teachers, options, example_inputs, fit, seed)
    return learned


class DistillPass:
    """The pass "distill" of recipes: the program is the student."""

    name = "distill"
    summary = "Train the model to answer as a teacher does."
    precisions = ("fp32", "w8a8", "w4a8")
    Options = DistillOptions

    def run(self, program: Program, options: DistillOptions, bench: Bench) -> Compressed:
        """Return `program` taught by `bench.teacher`, or by the uncompressed model where there is no teacher.

        Raises:
            ConversionError: teacher and student do not take the same inputs, or as of `distill`.
        """
        source = bench.teacher or bench.original
        student, teacher = to_module(program), _as_taught(to_module(source), source, program)
        before = agreement(student, teacher, bench.calibration)
        shared = _layers_of_shared_values(student)
        _distill(student, [teacher], options, bench.calibration[0], bench.fit, bench.seed)
        after = agreement(student, teacher, bench.calibration)
        step = f"distill(from {Path(source.origin).name}, T={options.temperature:g}, alpha={options.alpha:g})"
        made = to_program(student, program, bench.calibration[0], folder=bench.folder, step=step)
        facts: dict[str, float | int | str] = {
            "teacher": Path(source.origin).name if bench.teacher else "the uncompressed model",
            "epochs": options.epochs,
            "temperature": options.temperature,
            "alpha": options.alpha,
        }
        if before is not None and after is not None:
            facts |= {"same class as teacher before": before, "same class as teacher": after}
        notes: tuple[str, ...] = ()
        if shared:
            notes = (
                f"The weights of {', '.join(shared)} shared a few values before; training gave each its own. Put "
                "cluster after distill.",
            )
        return Compressed(program=made, facts=facts, tables={}, notes=notes)


PASS = DISTILL = DistillPass()


def agreement(student: torch.nn.Module, teacher: torch.nn.Module, batches: Sequence[Batch]) -> float | None:
    """Return the share of samples, 0..1, that both give the same class; None where they give no classes.

    Args:
        batches: the inputs of calls, batch axis first.
    """
    import torch

    from edgewright.compress.distilled_modules import tensors_of

    same = count = 0
    with torch.no_grad(), evaluating(student, teacher):
        for batch in batches:
            own, other = tensors_of(student(*batch))[0], tensors_of(teacher(*batch))[0]
            if own.ndim != 2 or own.shape != other.shape:
                return None
            same += int((own.argmax(1) == other.argmax(1)).sum())
            count += len(own)
    return same / count


def _distill(
    student: torch.nn.Module,
    teachers: Sequence[torch.nn.Module],
    options: DistillOptions,
    examples: Sequence[torch.Tensor],
    fit: Fit,
    seed: int,
) -> None:
    """Train `student` in place."""
    import torch

    from edgewright.compress.distilled_modules import Distillation, Distilled, HiddenPair

    pairs = [
        HiddenPair(student=own, teacher=other, weight=weight, is_attention=is_attention)
        for names, weight, is_attention in (
            (options.hints, options.hint_weight, False),
            (options.attention, options.attention_weight, True),
        )
        for own, other in map(_layer_pair, names)
    ]
    plan = Distillation(
        temperature=options.temperature, alpha=options.alpha, match=options.match, pairs=tuple(pairs)
    )
    with torch.random.fork_rng(devices=[]), evaluating(*teachers), zeros_kept(student):
        torch.manual_seed(seed)  # the adapters start from the same values when a killed run goes on
        wrapped = Distilled(student, teachers, plan, examples)
        fit(_STAGE, wrapped, options.epochs)
    student.eval()


def _layers_of_shared_values(module: torch.nn.Module) -> list[str]:
    """Return the layers whose weights look clustered: at most 256 values, each 8 times or more on average."""
    import torch

    found = []
    for name, layer in weighted_layers(module).items():
        weight = weight_of(layer)
        values = len(torch.unique(weight))
        if values <= _MOST_SHARED and weight.count_nonzero() >= 8 * values:
            found.append(name)
    return found


def _layer_pair(text: str) -> tuple[str, str]:
    """Return the names (student, teacher) of "student_layer=teacher_layer", or of one name for both."""
    own, equals, other = text.partition("=")
    if not own or (equals and not other):
        raise UsageError(f"{text!r} names no pair of layers; 'student_layer=teacher_layer' is expected.")
    return own.strip(), other.strip() or own.strip()


def _as_taught(teacher: torch.nn.Module, source: Program, student: Program) -> torch.nn.Module:
    """Return `teacher`, of `source`, as a module that takes the inputs of `student`.

    Images are turned to the teacher's layout; a teacher of a fixed batch of 1 gets one sample at a time.

    Raises:
        ConversionError: number, shapes or dtypes of the inputs differ otherwise.
    """
    from edgewright.compress.distilled_modules import Adapted

    own, other = student.inputs, source.inputs
    orders = [_order(a, b) for a, b in zip(own, other, strict=False)]
    if len(own) != len(other) or any(order is None for order in orders):
        raise ConversionError(
            f"the student takes {', '.join(map(str, own))}, but the teacher {', '.join(map(str, other))}. Give a "
            "teacher of the same inputs (images may be channels first or last)."
        )
    is_single = any(spec.shape[:1] == (1,) for spec in other) and all(spec.shape for spec in other)
    if not is_single and not any(orders):
        return teacher
    return Adapted(teacher, [order or None for order in orders], one_at_a_time=is_single)


def _order(own: TensorSpec, other: TensorSpec) -> tuple[int, ...] | None:
    """Return the permutation from `own` to `other`: empty where they are alike, None where they cannot be."""
    if own.dtype != other.dtype or len(own.shape) != len(other.shape):
        return None
    orders: list[tuple[int, ...]] = [()]
    if len(own.shape) == 4 and own.layout == "nhwc" != other.layout:
        orders = [_TO_NCHW, ()]
    elif len(own.shape) == 4 and other.layout == "nhwc" != own.layout:
        orders = [_TO_NHWC, ()]
    elif len(own.shape) == 4:
        orders = [(), _TO_NHWC, _TO_NCHW]
    for order in orders:
        turned = [own.shape[axis] for axis in order] if order else own.shape
        if all(a == b or None in (a, b) for a, b in zip(turned[1:], other.shape[1:], strict=True)):
            return order
    return None
