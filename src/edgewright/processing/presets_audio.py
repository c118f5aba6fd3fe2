"""Presets for sound: keywords, voice activity, noise suppression."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright.core.errors import FormatMismatchError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.audio import Context, FitLength, Peak
from edgewright.processing.mel import Dct, Log, Mel
from edgewright.processing.pcan import Pcan
from edgewright.processing.preset_classes import classifier, classifier_ends
from edgewright.processing.presets import Subject, only
from edgewright.processing.signature import Signature
from edgewright.processing.smoothing import Threshold
from edgewright.processing.specification import (
    Constant,
    Flow,
    Model,
    RawInput,
    ResultFlow,
    Specification,
    State,
)
from edgewright.processing.spectrum import Cut, Fft, InverseFft, Magnitude, Multiply, OverlapAdd
from edgewright.processing.tensors import Reshape, Scale

_RATE_HZ = 16_000
_KEYWORDS = (
    "down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown",
)  # fmt: skip
_KWS_FRAMES, _KWS_COEFFICIENTS = 49, 10
_MICRO_FRAMES, _MICRO_CHANNELS = 49, 40
_MICRO_LABELS = ("silence", "unknown", "yes", "no")
_CLIP = RawInput(name="clip", kind="audio", rate_hz=_RATE_HZ)
_VAD_HOP, _VAD_CONTEXT = 512, 64
_DTLN_BLOCK, _DTLN_HOP = 512, 128
_DTLN_BINS = _DTLN_BLOCK // 2 + 1


def kws_mfcc(models: Mapping[str, Subject]) -> Specification:
    """Keywords in clips of 1 s at 16 kHz: 49 frames of 10 MFCC, as MLPerf Tiny's models take them.

    Source: mlcommons/tiny, keyword_spotting: frames of 30 ms every 20 ms under a Hann window, FFT 512, 40 mel filters
    of 20..4000 Hz, log(x + 1e-6), DCT; the clip is scaled to a largest sample of 1 before.

    Raises:
        FormatMismatchError: the model takes or gives another shape.
    """
    subject = only("kws_mfcc", models)
    taken, _, classes = classifier_ends(subject, "kws_mfcc")
    shape = tuple(size for size in taken.shape[1:] if size is not None)
    if shape not in (
        (_KWS_FRAMES, _KWS_COEFFICIENTS, 1),
        (1, _KWS_FRAMES, _KWS_COEFFICIENTS),
        (_KWS_FRAMES, _KWS_COEFFICIENTS),
        (_KWS_FRAMES * _KWS_COEFFICIENTS,),
    ):
        raise _misfit("kws_mfcc", taken, f"{_KWS_FRAMES} x {_KWS_COEFFICIENTS} coefficients")
    steps = (
        FitLength(samples=_RATE_HZ),
        Peak(of="value"),
        Cut(length=480, hop=320),
        Fft(size=512),
        Magnitude(),
        Mel(bins=40, low_hz=20.0, high_hz=4000.0, triangles="mel"),
        Log(offset=1e-6),
        Dct(coefficients=_KWS_COEFFICIENTS, norm="htk"),
        Reshape(shape=shape),
    )
    labels = _KEYWORDS if classes == len(_KEYWORDS) else ()
    return classifier(subject, _CLIP, steps, task="audio-classification", result="keyword", labels=labels)


def micro_speech(models: Mapping[str, Subject]) -> Specification:
    """Yes and no in clips of 1 s at 16 kHz, by the example of LiteRT for Microcontrollers: 49 frames of 40 features.

    The micro front end with its noise reduction and normalisation (the step `pcan`), in float: most features are those
    of the fixed-point front end, those of weak channels differ.

    Raises:
        FormatMismatchError: the model takes or gives another shape.
    """
    subject = only("micro_speech", models)
    taken, given, classes = classifier_ends(subject, "micro_speech")
    features = _MICRO_FRAMES * _MICRO_CHANNELS
    if taken.shape[1:] != (features,):
        raise _misfit("micro_speech", taken, f"{features} features")
    if classes != len(_MICRO_LABELS):
        raise _misfit("micro_speech", given, f"{len(_MICRO_LABELS)} scores")
    steps = (
        FitLength(samples=_RATE_HZ),
        Cut(length=480, hop=320, periodic=False),
        Fft(size=512),
        Magnitude(power=2),
        Mel(bins=_MICRO_CHANNELS, low_hz=125.0, high_hz=7500.0, triangles="mel"),
        Pcan(),
        Scale(factor=(1 / 25.6,)),  # the fixed-point features of the training, as its example says
        Reshape(shape=(features,)),
    )
    return classifier(
        subject, _CLIP, steps, task="audio-classification", result="keyword", labels=_MICRO_LABELS
    )


def silero_vad(models: Mapping[str, Subject]) -> Specification:
    """Voice activity in a stream at 16 kHz, every 512 samples, by Silero VAD (version 5 and later).

    `speech` is the probability, `active` is 1 from 0.5 on until it is below 0.35 for 4 runs (128 ms).

    Source: snakers4/silero-vad: each run gets the 64 samples before it, and the state that the run before gave.

    Raises:
        FormatMismatchError: the model takes or gives other tensors.
    """
    subject = only("silero_vad", models)
    inputs = {spec.name: spec for spec in subject.signature.inputs}
    outputs = {spec.name: spec for spec in subject.signature.outputs}
    for names, wanted in ((inputs, ("input", "state")), (outputs, ("output", "stateN"))):
        for name in wanted:
            if name not in names:
                raise FormatMismatchError(
                    f"preset 'silero_vad' is for a model with the tensor {name!r}, but {sorted(names)} are there. "
                    "Write a processing.toml."
                )
    return Specification(
        task="voice-activity",
        inputs=(RawInput(name="sound", kind="audio", rate_hz=_RATE_HZ, samples=_VAD_HOP),),
        tensors=(Flow(name="input", sources=("sound",), steps=(Context(samples=_VAD_CONTEXT),)),),
        constants=(Constant(tensor="sr", value=float(_RATE_HZ)),) if "sr" in inputs else (),
        states=(State(tensor="state", source="stateN"),),
        results=(
            ResultFlow(name="speech", sources=("output",)),
            ResultFlow(name="active", sources=("output",), steps=(Threshold(on=0.5, off=0.35, off_runs=4),)),
        ),
    )


def dtln(models: Mapping[str, Subject]) -> Specification:
    """Noise suppression in a stream at 16 kHz, every 128 samples, by the two models of DTLN.

    The first masks the magnitudes of a spectrum of 512 samples, the phase stays; the second works on the samples of
    that; the frames are overlap-added. The result lags 384 samples.

    Source: N. Westhausen, B. Meyer, "Dual-Signal Transformation LSTM Network for Real-Time Noise Suppression" (2020).

    Raises:
        FormatMismatchError: not two models, or they take or give other tensors.
    """
    if len(models) != 2:
        raise FormatMismatchError(f"preset 'dtln' is for two models, but {len(models)} are given.")
    masker, mask_in, mask_out, mask_states = _dtln_part(models, _DTLN_BINS)
    maker, frame_in, frame_out, frame_states = _dtln_part(models, _DTLN_BLOCK)
    return Specification(
        task="denoising",
        models=tuple(Model(name=name, file=models[name].path.name) for name in (masker, maker)),
        inputs=(RawInput(name="noisy", kind="audio", rate_hz=_RATE_HZ, samples=_DTLN_HOP),),
        values=(
            Flow(
                name="spectrum",
                sources=("noisy",),
                steps=(Context(samples=_DTLN_BLOCK - _DTLN_HOP), Fft(size=_DTLN_BLOCK)),
            ),
        ),
        tensors=(
            Flow(name=mask_in, sources=("spectrum",), steps=(Magnitude(), Reshape(shape=(1, _DTLN_BINS)))),
            Flow(
                name=frame_in,
                sources=("spectrum", mask_out),
                steps=(Multiply(), InverseFft(), Reshape(shape=(1, _DTLN_BLOCK))),
            ),
        ),
        states=(*mask_states, *frame_states),
        results=(
            ResultFlow(
                name="clean",
                sources=(frame_out,),
                steps=(Reshape(shape=(_DTLN_BLOCK,)), OverlapAdd(hop=_DTLN_HOP, rate_hz=_RATE_HZ)),
            ),
        ),
    )


def _dtln_part(models: Mapping[str, Subject], size: int) -> tuple[str, str, str, tuple[State, ...]]:
    """Return the model whose tensors hold [1, 1, size], the full names of both, and its state."""
    wanted = (1, 1, size)
    for name, subject in models.items():
        signature: Signature = subject.signature
        ends = [_split(specs, wanted) for specs in (signature.inputs, signature.outputs)]
        if all(len(data) == len(rest) == 1 for data, rest in ends):
            (((taken,), (state,)), ((given,), (kept,))) = ends
            return (
                name,
                f"{name}.{taken.name}",
                f"{name}.{given.name}",
                (State(tensor=f"{name}.{state.name}", source=f"{name}.{kept.name}"),),
            )
    raise FormatMismatchError(
        f"preset 'dtln' is for models of which one takes and gives {list(wanted)} and a state; none of "
        f"{sorted(models)} does. Write a processing.toml."
    )


def _split(
    specs: tuple[TensorSpec, ...], shape: tuple[int, ...]
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return the tensors that can have that shape, and the others."""
    fitting = [
        spec
        for spec in specs
        if len(spec.shape) == len(shape)
        and all(a in (None, b) for a, b in zip(spec.shape, shape, strict=True))
    ]
    return fitting, [spec for spec in specs if spec not in fitting]


def _misfit(preset: str, tensor: TensorSpec, expected: str) -> FormatMismatchError:
    return FormatMismatchError(
        f"preset {preset!r} is for {expected}, but the model has {tensor}. Write a processing.toml."
    )
