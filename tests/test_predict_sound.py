"""Sound from files to typed results, by the presets: a clip, a stream, and what is strange about either."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.command_line import cli

from edgewright.core.errors import DataError, UsageError
from edgewright.prediction import load, specify
from edgewright.processing.audio_files import read_wav, wav_bytes
from edgewright.processing.raw import read_raw
from edgewright.processing.results import Classes, Runs, Spans, Values, Waveform, result_lines, spans_of
from edgewright.processing.scores import TopK
from edgewright.processing.specification import RawInput


@pytest.mark.toolchain("ai_edge_litert")
def test_a_keyword_is_heard_and_a_clipped_clip_noted(assets: Path, tmp_path: Path) -> None:
    loud = np.clip(np.sin(np.arange(16_000) * 0.05) * 2, -1, 1).astype(np.float32)
    (tmp_path / "loud.wav").write_bytes(wav_bytes(loud, 16_000))
    (tmp_path / "fast.wav").write_bytes(wav_bytes(loud, 48_000))
    with load(assets / "models/mlperf-tiny/kws_dscnn_int8.tflite", processing="kws_mfcc") as predictor:
        heard = predictor(assets / "data/micro-speech/yes_1000ms.wav")
        clipped = predictor(tmp_path / "loud.wav")
        long = predictor(assets / "data/silero-audio/test.wav")
        with pytest.raises(DataError, match="48000 Hz, but 16000 Hz"):
            predictor(tmp_path / "fast.wav")
        with pytest.raises(DataError, match="NaN"):
            predictor(np.full(16_000, np.nan, np.float32))
    keyword = heard["keyword"]
    assert isinstance(keyword, Classes) and keyword.labels[0].name == "yes" and not heard.notes
    assert "clipped" in clipped.notes[0]
    assert "960000 samples, of which the first 16000" in long.notes[0]
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
        active = predictor(assets / "data/silero-audio/test.wav")["active"]
    assert isinstance(speech, Values) and speech.array.shape == (2, 1)
    assert isinstance(active, Spans) and active.array.shape == (1875, 1)
    # The spans are the runs that are on, of 32 ms each.
    total = sum(span.end_s - span.start_s for span in active.spans)
    assert total == pytest.approx(0.032 * float(active.array.sum()))
    assert all(one.end_s < two.start_s for one, two in itertools.pairwise(active.spans))


@pytest.mark.toolchain("ai_edge_litert")
def test_a_long_sound_is_heard_second_by_second(assets: Path, tmp_path: Path) -> None:
    model = assets / "models/mlperf-tiny/kws_dscnn_int8.tflite"
    preset = specify(model, processing="kws_mfcc").specification
    (clip,), (keyword,) = preset.inputs, preset.results
    certain = (*keyword.steps[:-1], TopK(k=3, threshold=0.5))
    by_second = replace(preset, inputs=(replace(clip, samples=16_000),))
    files = ("micro-speech/yes_1000ms.wav", "speech-commands/tst_000000_Stop_7.wav")
    words = [read_wav(assets / "data" / file).samples for file in files]
    with load(model, processing=by_second) as predictor:
        long = predictor(np.concatenate(words))
        heard = long["keyword"]
        once = predictor(words[1])["keyword"]
    assert not long.notes
    assert isinstance(heard, Runs) and isinstance(once, Classes)
    lines = result_lines("keyword", heard)
    assert lines[0].startswith("0.00 s  yes") and lines[1].startswith("1.00 s  stop")
    assert once.labels[0].name == "stop" and len(json.loads(json.dumps(heard.to_json()))) == 2
    # How many are certain differs from run to run: one run is given, several are refused.
    with load(model, processing=replace(by_second, results=(replace(keyword, steps=certain),))) as predictor:
        once = predictor(words[0])["keyword"]
        assert isinstance(once, Classes) and [label.name for label in once.labels] == ["yes"]
        with pytest.raises(UsageError, match="known shape"):
            predictor(np.concatenate(words))


def test_spans_of_two_classes_are_in_the_order_of_their_beginnings() -> None:
    array = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, 0]], np.float32)
    found = spans_of(array, 0.5, ("one", "two"))
    assert found.to_json() == [
        {"start_s": 0.0, "end_s": 1.0, "index": 0, "name": "one"},
        {"start_s": 0.5, "end_s": 1.5, "index": 1, "name": "two"},
        {"start_s": 2.0, "end_s": 2.5, "index": 0, "name": "one"},
    ]
    assert result_lines("spoken", found)[1] == "two  0.50 .. 1.50 s"
    never = spans_of(np.zeros((4, 1), np.float32), 0.5, ())
    assert result_lines("spoken", never) == ["spoken: never"]


@pytest.mark.parametrize("content", ["", "1,2\n3,x\n", "1,2\n3\n"])
def test_a_csv_without_numbers_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "hand.csv").write_text(content)
    with pytest.raises(DataError, match=r"hand\.csv"):
        read_raw(RawInput(name="hand", kind="landmarks", shape=(21, 2)), tmp_path / "hand.csv")


@pytest.mark.toolchain("ai_edge_litert", "onnxruntime")
def test_sound_is_written_where_it_is_made_and_else_refused(assets: Path, tmp_path: Path) -> None:
    sound = (np.random.default_rng(0).standard_normal(500) * 0.1).astype(np.float32)
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(wav_bytes(sound, 16_000))
    models = tmp_path / "dtln"
    models.mkdir()
    for number in (1, 2):
        shutil.copy(assets / f"models/dtln/model_{number}.onnx", models)
    options = ("--processing", "dtln", "--sound")
    files = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    assert _said("predict", models, *files, *options, tmp_path / "made")[0] == 0
    assert [read_wav(tmp_path / "made" / f"{name}.wav").samples.size for name in ("a", "b")] == [500, 500]
    code, said = _said("predict", models, *files, *options, tmp_path / "one.wav")
    assert code == 2 and "2 inputs" in said
    shutil.copy(models / "model_1.onnx", models / "model_1.tflite")
    code, said = _said("predict", models, *files, *options, tmp_path / "made")
    assert code == 2 and "Keep one format" in said
    keywords = assets / "models/mlperf-tiny/kws_dscnn_int8.tflite"
    code, said = _said(
        "predict", keywords, files[0], "--processing", "kws_mfcc", "--sound", tmp_path / "x.wav"
    )
    assert code == 2 and "makes 0 sounds" in said


def _said(*arguments: object) -> tuple[int, str]:
    process = cli(*arguments)
    out, err = process.communicate()
    return process.returncode, out + err
