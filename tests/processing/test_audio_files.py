"""WAV files of all kinds, sound ones and broken ones."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from edgewright.core.errors import DataError
from edgewright.processing.audio_files import read_audio, read_wav, wav_bytes

RAMP = np.linspace(-0.9, 0.9, 61)


def wav(
    data: bytes,
    *,
    coding: int = 1,
    bits: int = 16,
    channels: int = 1,
    rate: int = 16_000,
    size: int = -1,
    extra: bytes = b"",
) -> bytes:
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", coding, channels, rate, 0, frame, bits) + extra
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"LIST" + struct.pack("<I", 3) + b"odd\0"
    body += b"data" + struct.pack("<I", len(data) if size < 0 else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_scipy_writes_is_read(tmp_path: Path, dtype: str, channels: int) -> None:
    scale = {"uint8": 128, "int16": 1 << 15, "int32": 1 << 31}.get(dtype, 1)
    made = (RAMP * scale + (128 if dtype == "uint8" else 0)).astype(dtype)
    wavfile.write(tmp_path / "a.wav", 22_050, made if channels == 1 else np.stack([made, made], axis=1))
    clip = read_wav(tmp_path / "a.wav")
    assert (clip.rate_hz, clip.channels, clip.samples.dtype) == (22_050, channels, np.float32)
    assert clip.samples == pytest.approx(RAMP, abs=1 / 128 if dtype == "uint8" else 1e-4)
    assert bool(clip.notes) == (channels == 2)


def test_24_bits_and_the_extensible_form_are_read(tmp_path: Path) -> None:
    wide = (RAMP * (1 << 23)).astype(np.int32)
    packed = b"".join(int(value).to_bytes(3, "little", signed=True) for value in wide)
    extra = struct.pack("<HHIH", 22, 24, 0, 1) + bytes(14)
    for content in (wav(packed, bits=24), wav(packed, bits=24, coding=0xFFFE, extra=extra)):
        (tmp_path / "a.wav").write_bytes(content)
        assert read_wav(tmp_path / "a.wav").samples == pytest.approx(RAMP, abs=1e-6)


def test_several_channels_become_their_mean(tmp_path: Path) -> None:
    data = np.array([[1000, 3000], [-500, 500]], "<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(wav(data, channels=2))
    clip = read_wav(tmp_path / "a.wav")
    assert clip.samples.tolist() == [2000 / 32768, 0]
    assert "mean of its 2 channels" in clip.notes[0]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = wav_bytes(np.append(RAMP, [2.0, -2.0]).astype(np.float32), 8000)
    (tmp_path / "a.wav").write_bytes(content)
    with wave.open(io.BytesIO(content)) as other:
        assert (other.getframerate(), other.getnchannels(), other.getsampwidth()) == (8000, 1, 2)
    clip = read_wav(tmp_path / "a.wav")
    assert clip.samples[:-2] == pytest.approx(RAMP, abs=1 / 32768)
    assert clip.samples[-2:].tolist() == [32767 / 32768, -1]


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 2)), np.array([np.nan]), np.array([np.inf])])
def test_what_is_no_sound_is_not_written(samples: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    with pytest.raises(DataError):
        wav_bytes(samples.astype(np.float32), 8000)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not as a WAV"),
        (b"OggS" + bytes(40), "OggS"),
        (b"RIFF\0\0\0\0WAVE", "truncated"),
        (wav(bytes(8))[:30], "16 at least"),
        (wav(bytes(8))[:-10], "truncated"),
        (wav(bytes(8), size=100), "8 of 100 bytes"),
        (wav(bytes(8), size=0xFFFFFFFF), "at most"),
        (wav(b""), "no sample"),
        (wav(b"\0"), "no sample"),
        (wav(bytes(8), coding=7, bits=8), "mu-law of 8 bits"),
        (wav(bytes(8), coding=85), "MP3"),
        (wav(bytes(8), coding=1234), "coding 1234"),
        (wav(bytes(8), bits=12), "12 bits"),
        (wav(bytes(8), channels=0), "0 channels"),
        (wav(bytes(8), channels=65), "65 channels"),
        (wav(bytes(8), rate=0), "0 Hz"),
        (wav(bytes(8), rate=1 << 31), "Hz"),
        (wav(np.array([0, np.nan], "<f4").tobytes(), coding=3, bits=32), "NaN"),
        (wav(np.array([0, 1e300], "<f8").tobytes(), coding=3, bits=64), "infinite"),
        (wav(bytes(8)).replace(b"fmt ", b"fmt_"), "before its format"),
        (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 2000, "chunks"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_wav(tmp_path / "a.wav")


def test_a_file_whose_frames_do_not_add_up_is_refused(tmp_path: Path) -> None:
    content = bytearray(wav(bytes(8)))
    content[32:34] = b"\x07\0"
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match="7 bytes"):
        read_wav(tmp_path / "a.wav")


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.wav"):
        with pytest.raises(DataError, match="no file"):
            read_wav(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 60), value=st.integers(0, 255), end=st.integers(0, 80))
def test_changed_bytes_are_read_or_refused(tmp_path: Path, place: int, value: int, end: int) -> None:
    content = bytearray(wav(bytes(range(32))))
    content[place] = value
    (tmp_path / "a.wav").write_bytes(content[: len(content) - end])
    try:
        clip = read_wav(tmp_path / "a.wav")
    except DataError:
        return
    assert np.isfinite(clip.samples).all() and 1 <= clip.samples.size <= 32


def test_another_rate_is_refused_or_resampled(tmp_path: Path) -> None:
    tone = np.sin(np.arange(4800) * 0.05).astype(np.float32) / 2
    (tmp_path / "a.wav").write_bytes(wav_bytes(tone, 48_000))
    assert len(read_audio(tmp_path / "a.wav")) == 4800
    with pytest.raises(DataError, match=r"48000 Hz, but 16000.*resample"):
        read_audio(tmp_path / "a.wav", rate_hz=16_000)
    made = read_audio(tmp_path / "a.wav", rate_hz=16_000, convert=True)
    assert made[100:-100] == pytest.approx(tone[::3][100:-100], abs=1e-3)


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (np.full(100, 1e-5), "silent"),
        (np.append(np.zeros(50), np.ones(9)), "clipped: 9 of 59"),
        (-np.ones(9), "clipped"),
    ],
)
def test_silent_and_clipped_sound_is_noted(
    tmp_path: Path, samples: np.ndarray[tuple[int], np.dtype[np.float64]], says: str
) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(samples.astype(np.float32), 8000))
    (note,) = read_wav(tmp_path / "a.wav").notes
    assert says in note


def test_a_loud_tone_is_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.sin(np.arange(999) * 0.3).astype(np.float32), 8000))
    assert not read_wav(tmp_path / "a.wav").notes
