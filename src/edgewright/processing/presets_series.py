"""Presets for landmarks and series of measurements."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright.core.errors import FormatMismatchError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.landmarks import Relative
from edgewright.processing.presets import Subject, from_tensor, only, to_tensor
from edgewright.processing.scores import Softmax, TopK
from edgewright.processing.series import Standardise
from edgewright.processing.specification import Flow, RawInput, ResultFlow, Specification
from edgewright.processing.tensors import Reshape

_HAND_POINTS = 21
_MAX_CLASSES = 5


def gesture(models: Mapping[str, Subject]) -> Specification:
    """A hand's gesture from its 21 landmarks in pixels: relative to the wrist, the largest coordinate 1.

    For models whose outputs are probabilities, such as the keypoint classifier of
    Kazuhito00/hand-gesture-recognition-using-mediapipe (also its source).

    Raises:
        FormatMismatchError: the model does not take 42 coordinates.
    """
    subject = only("gesture", models)
    taken, given, classes = _ends(subject, "gesture")
    if taken.shape[1:] not in ((2 * _HAND_POINTS,), (_HAND_POINTS, 2)):
        raise FormatMismatchError(
            f"preset 'gesture' is for {2 * _HAND_POINTS} coordinates, but the model takes {taken}. "
            "Write a processing.toml."
        )
    flat = (Reshape(shape=(2 * _HAND_POINTS,)),) if len(taken.shape) == 2 else ()
    return Specification(
        task="classification",
        inputs=(RawInput(name="hand", kind="landmarks", shape=(_HAND_POINTS, 2)),),
        tensors=(
            Flow(
                name=taken.name,
                sources=("hand",),
                steps=(Relative(), *flat, *to_tensor(subject, taken)),
            ),
        ),
        results=(
            ResultFlow(
                name="gesture",
                sources=(given.name,),
                steps=(*from_tensor(subject, given), TopK(k=min(_MAX_CLASSES, classes))),
            ),
        ),
    )


def motion(models: Mapping[str, Subject]) -> Specification:
    """An activity from a window of motion sensors [time, channels], each channel standardised over the window.

    For models that take [batch, time, channels] and give logits.

    Raises:
        FormatMismatchError: the model takes something else.
    """
    subject = only("motion", models)
    taken, given, classes = _ends(subject, "motion")
    time, channels = taken.shape[1:] if len(taken.shape) == 3 else (None, None)
    if time is None or channels is None:
        raise FormatMismatchError(
            f"preset 'motion' is for [batch, time, channels] of known sizes, but the model takes {taken}. "
            "Write a processing.toml."
        )
    return Specification(
        task="series",
        inputs=(RawInput(name="motion", kind="series", shape=(time, channels)),),
        tensors=(
            Flow(name=taken.name, sources=("motion",), steps=(Standardise(), *to_tensor(subject, taken))),
        ),
        results=(
            ResultFlow(
                name="activity",
                sources=(given.name,),
                steps=(*from_tensor(subject, given), Softmax(), TopK(k=min(_MAX_CLASSES, classes))),
            ),
        ),
    )


def _ends(subject: Subject, preset: str) -> tuple[TensorSpec, TensorSpec, int]:
    """Return the only input, the only output [1, classes], and the number of classes."""
    inputs, outputs = subject.signature.inputs, subject.signature.outputs
    classes = outputs[0].shape[-1] if len(outputs) == 1 and len(outputs[0].shape) == 2 else None
    if len(inputs) != 1 or classes is None:
        raise FormatMismatchError(
            f"preset {preset!r} is for a model with one input and one output [batch, classes], but it has "
            f"{', '.join(map(str, (*inputs, *outputs)))}. Write a processing.toml."
        )
    return inputs[0], outputs[0], classes
