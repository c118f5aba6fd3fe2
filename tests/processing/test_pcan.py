"""The micro front end's second half, and the whole of it on the clips of its example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.processing.one_step import run, runs

from edgewright.core.errors import UsageError
from edgewright.core.tensors import TensorSpec
from edgewright.microcontrollers import oracle
from edgewright.processing import presets
from edgewright.processing.audio_files import read_audio
from edgewright.processing.pcan import Pcan
from edgewright.processing.presets import Quantization, Subject
from edgewright.processing.processor import Processor, Signature, plan
from edgewright.processing.step import Floats

MODEL = Subject(
    path=Path("m.tflite"),
    signature=Signature(
        inputs=(TensorSpec(name="x", shape=(1, 1960), dtype="int8"),),
        outputs=(TensorSpec(name="y", shape=(1, 4), dtype="int8"),),
    ),
    quantization={
        "x": Quantization(scale=0.10171568393707275, zero_point=-128),
        "y": Quantization(scale=1 / 256, zero_point=-128),
    },
)


@pytest.fixture
def energies(rng: np.random.Generator) -> Floats:
    return (rng.uniform(0, 1, (30, 6)) ** 4).astype(np.float32)


def test_a_first_frame_by_hand() -> None:
    # Root 0.25 * 4096 = 1024; mean 0.025 * 1024 = 25.6; 1024 - 25.6 -> 998; gain 2^21 / (8 * 25.6 + 80) ^ 0.95.
    gain = int(2**21 / (8 * 25.6 + 80) ** 0.95 + 0.5)
    ratio = (998 * gain // 64) / 4096
    assert ratio > 2
    made = run(Pcan(), np.array([[0.0625]], np.float32), kind="tensor")
    assert made.tolist() == [[int(64 * np.log(8 * int(64 * (ratio - 1))) + 0.5)]]


def test_frames_one_by_one_are_those_of_all_at_once(energies: Floats) -> None:
    together = run(Pcan(), energies, kind="tensor")
    apart = np.concatenate(runs(Pcan(), [[row[None]] for row in energies], kind="tensor"))
    assert apart.tolist() == together.tolist()


def test_steady_noise_fades_and_loudness_matters_less() -> None:
    loud, soft = (
        run(Pcan(), np.full((300, 1), power, np.float32), kind="tensor")[:, 0] for power in (0.1, 0.001)
    )
    assert loud[0] > 0 and soft[0] > 0 and not loud[200:].any() and not soft[200:].any()
    assert 0 < loud[0] - soft[0] < 64 * np.log(10) * 0.6  # the roots' own logarithms lie 64 ln 10 apart
    assert not run(Pcan(), np.zeros((3, 2), np.float32), kind="tensor").any()


@pytest.mark.parametrize(
    "options", [{"strength": 1.5}, {"offset": 0.0}, {"remaining": -0.1}, {"odd_smoothing": 2.0}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="pcan"):
        Pcan(**options)


@pytest.mark.toolchain("ai_edge_litert")
@pytest.mark.parametrize(
    ("clip", "best", "score"),
    [("yes", 2, 0.996), ("no", 3, 0.945), ("noise", 0, 0.969), ("silence", 0, 0.336)],
)
def test_clips_score_as_with_the_fixed_point_front_end(
    assets: Path, clip: str, best: int, score: float
) -> None:
    """The scores are those of features that LiteRT for Microcontrollers' audio_preprocessor_int8.tflite makes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(assets / "models/tflite-micro/micro_speech_quantized.tflite"))
    interpreter.allocate_tensors()
    processor = Processor(plan(presets.make("micro_speech", {"": MODEL}), MODEL.signature))
    sound = read_audio(assets / f"data/micro-speech/{clip}_1000ms.wav", rate_hz=16_000)

    def execute(model: str, inputs: object) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int8]]]:
        assert isinstance(inputs, dict)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs["x"])
        interpreter.invoke()
        return {"y": interpreter.get_tensor(interpreter.get_output_details()[0]["index"])}

    found = processor.run({"clip": sound}, execute)["keyword"]
    assert found[0, 0] == best and found[0, 1] == pytest.approx(score, abs=0.05)


@pytest.mark.parametrize(("clip", "close"), [("yes", 0.9), ("no", 0.78), ("noise", 0.93), ("silence", 0.94)])
def test_most_features_are_those_of_the_fixed_point_front_end(assets: Path, clip: str, close: float) -> None:
    if not oracle.is_installed():
        pytest.skip("needs the LiteRT Micro interpreter: edgewright toolchain install tflm")
    sound = read_audio(assets / f"data/micro-speech/{clip}_1000ms.wav", rate_hz=16_000)
    whole = np.round(sound * 32_768).astype(np.int16)
    rows = [[whole[None, start : start + 480]] for start in range(0, 16_000 - 479, 320)]
    done = oracle.run(assets / "models/tflite-micro/audio_preprocessor_int8.tflite", rows)
    wanted = np.stack([outputs[0].reshape(40) for outputs in done.outputs]).astype(np.int64)
    processor = Processor(plan(presets.make("micro_speech", {"": MODEL}), MODEL.signature))
    made = processor.prepare({"clip": sound})["x"].reshape(49, 40).astype(np.int64)
    assert (np.abs(made - wanted) <= 1).mean() > close
