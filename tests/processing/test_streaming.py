"""A long sound, hop by hop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgewright.core.errors import DataError, UsageError
from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.processing.audio import Context, FitLength, Resample, resampled
from edgewright.processing.ctc import Ctc
from edgewright.processing.processor import Plan, Processor, Signature, plan
from edgewright.processing.scores import TopK
from edgewright.processing.specification import Flow, RawInput, ResultFlow, Specification, State
from edgewright.processing.spectrum import Cut, Fft, InverseFft, OverlapAdd
from edgewright.processing.step import Step
from edgewright.processing.streaming import joined_types, stream, stream_input
from edgewright.processing.tensors import Reshape

HOP, LENGTH = 4, 16
SOUND = RawInput(name="sound", kind="audio", samples=HOP, rate_hz=16_000)
SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", shape=(1, LENGTH), dtype="float32"),
        TensorSpec(name="h", shape=(2, 1), dtype="float32"),
    ),
    outputs=(
        TensorSpec(name="y", shape=(None, LENGTH), dtype="float32"),
        TensorSpec(name="sum", shape=(1, 1), dtype="float32"),
        TensorSpec(name="h_out", shape=(None, None), dtype="float32"),
    ),
)
SPECIFICATION = Specification(
    task="denoising",
    inputs=(SOUND,),
    tensors=(Flow(name="x", sources=("sound",), steps=(Context(samples=LENGTH - HOP),)),),
    states=(State(tensor="h", source="h_out", initial=1.0),),
    results=(
        ResultFlow(
            name="clean", sources=("y",), steps=(OverlapAdd(hop=HOP, rate_hz=16_000, window="hann", analysis="none"),)
        ),
        ResultFlow(name="total", sources=("sum",)),
    ),
)  # fmt: skip


def pass_on(model: str, inputs: Arrays) -> Arrays:
    frame = np.asarray(inputs["x"], dtype=np.float32)
    held = np.asarray(inputs["h"], dtype=np.float32)
    return {"y": frame, "sum": frame[:, -HOP:].sum(keepdims=True), "h_out": held * 2}


def checked(specification: Specification = SPECIFICATION) -> Plan:
    return plan(specification, SIGNATURE)


@pytest.mark.parametrize("samples", [1, 4, 5, 40, 41])
def test_an_unchanged_sound_comes_back_at_its_place(samples: int, rng: np.random.Generator) -> None:
    sound = rng.standard_normal(samples).astype(np.float32)
    results = stream(checked(), sound, pass_on)
    assert results["clean"] == pytest.approx(sound, abs=1e-6)
    filled = np.pad(sound, (0, -samples % HOP)).reshape(-1, HOP)
    assert results["total"] == pytest.approx(filled.sum(axis=1, keepdims=True), abs=1e-6)


@pytest.mark.parametrize("samples", [48, 480, 500])
def test_a_stream_is_resampled_between_what_came_and_what_comes(
    samples: int, rng: np.random.Generator
) -> None:
    ahead = 54  # samples that the filter hears on each side, a multiple of 3
    steps = (Context(samples=2 * ahead), Resample(rate_hz=16_000), FitLength(samples=LENGTH, at="centre"))
    specification = replace(
        SPECIFICATION,
        inputs=(replace(SOUND, samples=3 * LENGTH, rate_hz=48_000),),
        tensors=(Flow(name="x", sources=("sound",), steps=steps),),
        results=(ResultFlow(name="slow", sources=("y",), steps=(OverlapAdd(hop=LENGTH, rate_hz=16_000),)),),
    )
    sound = rng.standard_normal(samples).astype(np.float32)
    made = stream(checked(specification), sound, pass_on)["slow"]
    whole = resampled(np.pad(sound, (ahead, 999)), 48_000, 16_000)
    assert made == pytest.approx(whole[: -(-samples // 3)], abs=1e-6)


def test_states_go_from_run_to_run_and_are_forgotten_by_a_reset() -> None:
    seen: list[Array] = []

    def keep(model: str, inputs: Arrays) -> Arrays:
        seen.append(np.asarray(inputs["h"]).copy())
        return pass_on(model, inputs)

    processor = Processor(checked())
    sound = np.ones(2 * HOP, np.float32)
    stream(checked(), sound, keep, start=processor)
    assert [array[0, 0] for array in seen] == [
        1,
        2,
        4,
        8,
        16,
    ]  # two hops, and three until the frames are complete
    assert seen[0].shape == (2, 1)
    processor.reset()
    stream(checked(), sound, keep, start=processor)
    assert seen[5][0, 0] == 1


def test_codes_follow_one_another_and_the_types_say_so() -> None:
    codes = ResultFlow(name="codes", sources=("y",), steps=(Reshape(shape=(8, 2)), Ctc(blank=-1)))
    made = checked(replace(SPECIFICATION, results=(*SPECIFICATION.results, codes)))
    results = stream(made, np.array([1, 0, 0, 1, 1, 0, 1, 0], np.float32), pass_on)
    assert results["codes"].tolist() == [0, 0, 0]
    for name, kind in joined_types(made).items():
        assert len(kind.shape) == results[name].ndim and kind.dtype == str(results[name].dtype)


def test_only_audio_of_a_hop_is_a_stream() -> None:
    row = stream_input(checked())
    assert row is not None and row.samples == HOP
    clip = replace(
        SPECIFICATION,
        inputs=(replace(SOUND, samples=0),),
        tensors=(Flow(name="x", sources=("sound",), steps=()),),
    )
    assert stream_input(checked(clip)) is None
    with pytest.raises(UsageError, match="not for streams"):
        stream(checked(clip), np.zeros(4, np.float32), pass_on)


@pytest.mark.parametrize(
    "sound", [np.zeros(0), np.zeros((2, 2)), np.zeros(4, np.float64), np.array([np.nan])]
)
def test_what_is_no_sound_is_refused(sound: Array) -> None:
    with pytest.raises(DataError):
        stream(
            checked(),
            sound if sound.dtype == np.float64 and sound.size == 4 else sound.astype(np.float32),
            pass_on,
        )


@pytest.mark.parametrize(
    ("steps", "says"),
    [((Reshape(shape=(LENGTH,)), TopK(threshold=0.5)), "known shape"), ((), "resample")],
)
def test_what_cannot_be_joined_is_refused(steps: tuple[Step, ...], says: str) -> None:
    if steps:
        changed = replace(SPECIFICATION, results=(ResultFlow(name="best", sources=("y",), steps=steps),))
    else:
        flow = Flow(name="x", sources=("sound",), steps=(Resample(rate_hz=64_000),))
        changed = replace(SPECIFICATION, tensors=(flow,))
    with pytest.raises(UsageError, match=says):
        stream(checked(changed), np.zeros(8, np.float32), pass_on)


def test_a_spectrum_in_the_middle_changes_nothing(rng: np.random.Generator) -> None:
    steps = (Context(samples=LENGTH - HOP), Cut(length=LENGTH, hop=LENGTH, window="sqrt_hann"), Fft(size=20))
    made = checked(
        replace(
            SPECIFICATION,
            values=(
                Flow(name="spectrum", sources=("sound",), steps=steps),
                Flow(name="back", sources=("spectrum",), steps=(InverseFft(length=LENGTH),)),
            ),
            results=(
                ResultFlow(
                    name="same",
                    sources=("back",),
                    steps=(OverlapAdd(hop=HOP, window="sqrt_hann", analysis="sqrt_hann"),),
                ),
                *SPECIFICATION.results,
            ),
        )
    )
    sound = rng.standard_normal(50).astype(np.float32)
    assert stream(made, sound, pass_on)["same"] == pytest.approx(sound, abs=2e-6)
