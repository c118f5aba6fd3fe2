"""Presets for sound, landmarks and series, on the real models where they are."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from tests.processing.onnx_models import onnx_runner

from edgewright.core.errors import FormatMismatchError, UnknownNameError
from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.processing import presets
from edgewright.processing.audio_files import read_audio
from edgewright.processing.presets import Quantization, Subject
from edgewright.processing.processor import Processor, Signature, plan
from edgewright.processing.specification import read_specification, write_specification
from edgewright.processing.streaming import stream

STEP = 0.5847029089927673
IMAGE = TensorSpec(name="image", shape=(1, 224, 224, 3), dtype="float32")


def model(inputs: list[tuple[str, tuple[int | None, ...], str]], outputs: list[tuple[str, tuple[int | None, ...], str]],
          quantization: dict[str, Quantization] | None = None) -> Subject:  # fmt: skip
    ends = [
        tuple(TensorSpec(name=name, shape=shape, dtype=dtype) for name, shape, dtype in rows)
        for rows in (inputs, outputs)
    ]
    return Subject(
        path=Path("m.tflite"),
        signature=Signature(inputs=ends[0], outputs=ends[1]),
        quantization=quantization or {},
    )


KEYWORDS = model(
    [("x", (1, 49, 10, 1), "int8")],
    [("y", (1, 12), "int8")],
    {"x": Quantization(scale=STEP, zero_point=83), "y": Quantization(scale=1 / 256, zero_point=-128)},
)
SILERO = model(
    [
        ("input", (None, None), "float32"),
        ("state", (2, None, 128), "float32"),
        ("sr", (), "int64"),
    ],
    [("output", (None, 1), "float32"), ("stateN", (None, None, None), "float32")],
)
DTLN = {
    f"model_{n}": model(
        [(f"in{n}", (1, 1, size), "float32"), (f"h{n}", (1, 2, 128, 2), "float32")],
        [(f"out{n}", (None, 1, size), "float32"), (f"k{n}", (None, 2, 128, 2), "float32")],
    )
    for n, size in ((1, 257), (2, 512))
}
HAND = model([("x", (1, 42), "float32")], [("y", (1, 3), "float32")])
SENSORS = model([("x", (None, 100, 6), "float32")], [("y", (None, 4), "float32")])
FITTING = {
    "kws_mfcc": {"": KEYWORDS},
    "silero_vad": {"": SILERO},
    "dtln": DTLN,
    "gesture": {"": HAND},
    "motion": {"": SENSORS},
}


@pytest.mark.parametrize("name", FITTING)
def test_a_preset_fits_its_model_and_goes_through_its_file(name: str, tmp_path: Path) -> None:
    made = presets.make(name, FITTING[name])
    plan(made, {key: subject.signature for key, subject in FITTING[name].items()})
    assert read_specification(write_specification(made, tmp_path)) == made


@pytest.mark.parametrize("name", FITTING)
def test_the_presets_that_fit_a_model_are_found(name: str) -> None:
    assert presets.fitting(FITTING[name]) == [name]


@pytest.mark.parametrize("name", FITTING)
def test_a_model_of_something_else_is_refused(name: str) -> None:
    other = Subject(path=Path("m.onnx"), signature=Signature(inputs=(IMAGE,), outputs=(IMAGE,)))
    for models in ({"": other}, {"a": other, "b": other}):
        with pytest.raises(FormatMismatchError, match=name):
            presets.make(name, models)


def test_an_output_has_the_sizes_of_its_state() -> None:
    made = plan(presets.make("silero_vad", {"": SILERO}), SILERO.signature)
    (signature,) = made.signatures.values()
    assert {spec.name: spec.shape for spec in (*signature.inputs, *signature.outputs)} == {
        "input": (None, None),
        "state": (2, 1, 128),
        "sr": (),
        "output": (None, 1),
        "stateN": (2, 1, 128),
    }


def test_integers_without_their_meaning_are_refused() -> None:
    silent = Subject(path=Path("m.tflite"), signature=KEYWORDS.signature)
    with pytest.raises(FormatMismatchError, match="what they mean"):
        presets.make("kws_mfcc", {"": silent})


def test_a_preset_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="kws_mfcc"):
        presets.make("kws_mfc", {"": KEYWORDS})


def test_keyword_features_are_those_that_mlperf_publishes(assets: Path) -> None:
    floats = model([("x", (1, 49, 10, 1), "float32")], [("y", (1, 12), "float32")])
    processor = Processor(plan(presets.make("kws_mfcc", {"": floats}), floats.signature))
    published = sorted((assets / "data/speech-commands-mfcc-int8").glob("*.bin"))[:40]
    different = 0
    for file in published:
        clip = read_audio(assets / "data/speech-commands" / f"{file.stem}.wav", rate_hz=16_000)
        features = processor.prepare({"clip": clip})["x"].reshape(490).astype(np.float64)
        # MLPerf's program drops the fraction.
        away = np.trunc(features / STEP + 83) - np.fromfile(file, dtype=np.int8)
        assert np.abs(away).max() <= 1
        different += np.count_nonzero(away)
    assert len(published) == 40 and different / (40 * 490) < 0.005


def streamed(preset: str, paths: dict[str, Path], sound: Array) -> dict[str, Array]:
    subjects, execute = onnx_runner(paths)
    made = presets.make(preset, subjects)
    signatures = {name: subject.signature for name, subject in subjects.items()}
    return stream(plan(made, signatures), sound, execute)


@pytest.mark.toolchain("onnxruntime")
def test_voices_are_found(assets: Path) -> None:
    sound = read_audio(assets / "data/silero-audio/test.wav", rate_hz=16_000)
    found = streamed("silero_vad", {"": assets / "models/silero-vad/silero_vad.onnx"}, sound)
    assert found["speech"].shape == (1875, 1)
    assert (found["speech"] >= 0.5).mean() == pytest.approx(0.774, abs=0.001)
    # What is active has begun at 0.5, and lasts through short pauses.
    assert not found["active"][0] and (found["active"] >= (found["speech"] >= 0.5)).all()


@pytest.mark.toolchain("onnxruntime")
def test_noise_is_taken_from_speech(assets: Path, rng: np.random.Generator) -> None:
    clean = read_audio(assets / "data/silero-audio/test.wav", rate_hz=16_000)[: 16_000 * 4]
    noise = rng.standard_normal(len(clean)).astype(np.float32)
    noisy = clean + noise * (np.linalg.norm(clean) / np.linalg.norm(noise) * np.float32(10 ** (-5 / 20)))
    folder = assets / "models/dtln"
    made = streamed("dtln", {f"model_{n}": folder / f"model_{n}.onnx" for n in (1, 2)}, noisy)["clean"]
    assert made.shape == clean.shape
    error = np.sum((made - clean) ** 2) / np.sum((noisy - clean) ** 2)
    assert error < 0.2


@pytest.mark.toolchain("ai_edge_litert")
def test_gestures_do_not_depend_on_the_hands_place(assets: Path, rng: np.random.Generator) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(assets / "models/hand-gesture/keypoint_classifier.tflite"))
    interpreter.allocate_tensors()

    def execute(name: str, inputs: Arrays) -> Arrays:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs["x"])
        interpreter.invoke()
        return {"y": interpreter.get_tensor(interpreter.get_output_details()[0]["index"])}

    with (assets / "data/hand-gesture/keypoint.csv").open() as stream:
        rows = [[float(cell) for cell in row] for row in csv.reader(stream)][::40]
    processor = Processor(plan(presets.make("gesture", {"": HAND}), HAND.signature))
    right = 0
    for label, *numbers in rows:
        hand = np.array(numbers).reshape(21, 2) * rng.uniform(50, 300) + rng.uniform(0, 600, 2)
        best = processor.run({"hand": hand.astype(np.float32)}, execute)["gesture"]
        right += int(best[0, 0] == label)
    assert right / len(rows) > 0.93
