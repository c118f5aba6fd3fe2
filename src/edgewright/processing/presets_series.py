"""Presets for landmarks and series of measurements."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright.core.errors import FormatMismatchError
from edgewright.processing.landmarks import Relative
from edgewright.processing.preset_classes import classifier, classifier_ends
from edgewright.processing.presets import Subject, only
from edgewright.processing.scores import Softmax
from edgewright.processing.series import Standardise
from edgewright.processing.specification import RawInput, Specification
from edgewright.processing.tensors import Reshape

_HAND_POINTS = 21


def gesture(models: Mapping[str, Subject]) -> Specification:
    """A hand's gesture from its 21 landmarks in pixels: relative to the wrist, the largest coordinate 1.

    For models whose outputs are probabilities, such as the keypoint classifier of
    Kazuhito00/hand-gesture-recognition-using-mediapipe (also its source).

    Raises:
        FormatMismatchError: the model does not take 42 coordinates.
    """
    subject = only("gesture", models)
    taken, _, _ = classifier_ends(subject, "gesture")
    if taken.shape[1:] not in ((2 * _HAND_POINTS,), (_HAND_POINTS, 2)):
        raise FormatMismatchError(
            f"preset 'gesture' is for {2 * _HAND_POINTS} coordinates, but the model takes {taken}. "
            "Write a processing.toml."
        )
    flat = (Reshape(shape=(2 * _HAND_POINTS,)),) if len(taken.shape) == 2 else ()
    hand = RawInput(name="hand", kind="landmarks", shape=(_HAND_POINTS, 2))
    return classifier(subject, hand, (Relative(), *flat), task="classification", result="gesture")


def motion(models: Mapping[str, Subject]) -> Specification:
    """An activity from a window of motion sensors [time, channels], each channel standardised over the window.

    For models that take [batch, time, channels] and give logits.

    Raises:
        FormatMismatchError: the model takes something else.
    """
    subject = only("motion", models)
    taken, _, _ = classifier_ends(subject, "motion")
    time, channels = taken.shape[1:] if len(taken.shape) == 3 else (None, None)
    if time is None or channels is None:
        raise FormatMismatchError(
            f"preset 'motion' is for [batch, time, channels] of known sizes, but the model takes {taken}. "
            "Write a processing.toml."
        )
    sensors = RawInput(name="motion", kind="series", shape=(time, channels))
    return classifier(
        subject, sensors, (Standardise(),), task="series", result="activity", scores=(Softmax(),)
    )
