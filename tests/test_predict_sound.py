"""Sound from files to typed results, by the presets: a clip, a stream, and what is strange about either."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import DataError
from edgewright.prediction import load
from edgewright.processing.audio_files import wav_bytes
from edgewright.processing.results import Classes, Values, Waveform


@pytest.mark.toolchain("ai_edge_litert")
def test_a_keyword_is_heard_and_a_clipped_clip_noted(assets: Path, tmp_path: Path) -> None:
    loud = np.clip(np.sin(np.arange(16_000) * 0.05) * 2, -1, 1).astype(np.float32)
    (tmp_path / "loud.wav").write_bytes(wav_bytes(loud, 16_000))
    (tmp_path / "fast.wav").write_bytes(wav_bytes(loud, 48_000))
    with load(assets / "models/mlperf-tiny/kws_dscnn_int8.tflite", processing="kws_mfcc") as predictor:
        heard = predictor(assets / "data/micro-speech/yes_1000ms.wav")
        clipped = predictor(tmp_path / "loud.wav")
        with pytest.raises(DataError, match="48000 Hz, but 16000 Hz"):
            predictor(tmp_path / "fast.wav")
        with pytest.raises(DataError, match="NaN"):
            predictor(np.full(16_000, np.nan, np.float32))
    keyword = heard["keyword"]
    assert isinstance(keyword, Classes) and keyword.labels[0].name == "yes" and not heard.notes
    assert "clipped" in clipped.notes[0]
    assert json.loads(json.dumps(clipped.to_json()))["notes"] == list(clipped.notes)


@pytest.mark.toolchain("onnxruntime")
def test_a_stream_is_predicted_from_beginning_to_end_and_again(assets: Path) -> None:
    rng = np.random.default_rng(0)
    sound = (rng.standard_normal(1000) * 0.1).astype(np.float32)
    with load(
        [assets / f"models/dtln/model_{number}.onnx" for number in (1, 2)], processing="dtln"
    ) as predictor:
        first, second = (predictor(sound)["clean"] for _ in range(2))
    assert isinstance(first, Waveform) and isinstance(second, Waveform)
    assert first.samples.shape == sound.shape and first.rate_hz == 16_000
    # Nothing of the first sound is left in the second run.
    assert first.samples.tolist() == second.samples.tolist()
    with load(assets / "models/silero-vad/silero_vad.onnx", processing="silero_vad") as predictor:
        speech = predictor(sound)["speech"]
    assert isinstance(speech, Values) and speech.array.shape == (2, 1)
