"""What presets of classifiers share: one raw input through steps to the only tensor, and scores to classes."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.core.errors import FormatMismatchError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.presets import Subject, from_tensor, to_tensor
from edgewright.processing.scores import TopK
from edgewright.processing.specification import Flow, RawInput, ResultFlow, Specification, Task
from edgewright.processing.step import Step

_MOST_CLASSES = 5  # that are shown


def classifier_ends(subject: Subject, preset: str) -> tuple[TensorSpec, TensorSpec, int]:
    """Return the only input, the only output [batch, classes], and the number of classes.

    Raises:
        FormatMismatchError: the model has others.
    """
    inputs, outputs = subject.signature.inputs, subject.signature.outputs
    classes = outputs[0].shape[-1] if len(outputs) == 1 and len(outputs[0].shape) == 2 else None
    if len(inputs) != 1 or classes is None:
        raise FormatMismatchError(
            f"preset {preset!r} is for a model with one input and one output [batch, classes], but it has "
            f"{', '.join(map(str, (*inputs, *outputs)))}. Write a processing.toml."
        )
    return inputs[0], outputs[0], classes


def classifier(
    subject: Subject,
    raw: RawInput,
    steps: Sequence[Step],
    *,
    task: Task,
    result: str,
    scores: Sequence[Step] = (),
    labels: tuple[str, ...] = (),
) -> Specification:
    """Return the specification of a classifier whose ends `classifier_ends` found.

    Args:
        steps: from `raw` to the float32 tensor; integers are made of it where the model takes those.
        result: its name: the best five classes.
        scores: steps from the float32 output to probabilities, where it holds none.
    """
    taken, given, classes = classifier_ends(subject, result)
    best = (*from_tensor(subject, given), *scores, TopK(k=min(_MOST_CLASSES, classes)))
    return Specification(
        task=task,
        inputs=(raw,),
        tensors=(Flow(name=taken.name, sources=(raw.name,), steps=(*steps, *to_tensor(subject, taken))),),
        results=(ResultFlow(name=result, sources=(given.name,), steps=best, labels=labels),),
    )
