"""Sound from WAV files, and to them: a bounded reader of RIFF, as the files are anybody's."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgewright.core.errors import DataError
from edgewright.processing.audio import MAX_RATE_HZ, MAX_SAMPLES, resampled
from edgewright.processing.step import Floats

_MAX_CHANNELS = 64
_MAX_CHUNKS = 1000
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_OTHER_CODINGS = {2: "ADPCM", 6: "A-law", 7: "mu-law", 17: "IMA ADPCM", 49: "GSM", 80: "MPEG", 85: "MP3"}
# Coding and bits of a sample -> dtype of the file, and what is full scale. 24 bits are widened to 32.
_CODINGS = {
    (_PCM, 8): ("u1", 2.0**7),
    (_PCM, 16): ("<i2", 2.0**15),
    (_PCM, 24): ("<i4", 2.0**31),
    (_PCM, 32): ("<i4", 2.0**31),
    (_FLOAT, 32): ("<f4", 1.0),
    (_FLOAT, 64): ("<f8", 1.0),
}
_EXPECTED = "A WAV of 8, 16, 24 or 32-bit PCM, or of 32 or 64-bit float, is expected."
# Full scale as 16-bit files reach it; 4 such samples in a row are no tone's own peak.
_FULL_SCALE = 32767 / 32768
_CLIPPED_RUN = 4
_SILENCE = 1e-4  # 80 dB below full scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """The sound of one file.

    Attributes:
        samples: mono, float32 [n]; full scale is -1..1, which float files may exceed.
        rate_hz: samples a second.
        channels: of the file; their mean is what `samples` holds.
        notes: what is strange about it, as sentences: silent, clipped, several channels.
    """

    samples: Floats
    rate_hz: int
    channels: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Format:
    coding: int
    bits: int
    channels: int
    rate_hz: int
    frame_bytes: int = field(default=0)


def read_audio(path: Path, *, rate_hz: int = 0, convert: bool = False) -> Floats:
    """Return the samples of the WAV at `path`, mono float32 [n]; the mean of several channels.

    Args:
        path: of the file.
        rate_hz: that is expected; 0 takes any.
        convert: resample a file with another rate instead of refusing it.
    Raises:
        DataError: as of `read_wav`, or of another rate.
    """
    clip = read_wav(path)
    if rate_hz in (0, clip.rate_hz):
        return clip.samples
    if not convert:
        raise DataError(
            f"{path} has {clip.rate_hz} Hz, but {rate_hz} Hz is expected. Convert it, or set the input's rate_hz to "
            f'{clip.rate_hz} and put {{ step = "resample", rate_hz = {rate_hz} }} before the other steps.'
        )
    return resampled(clip.samples, clip.rate_hz, rate_hz)


def read_wav(path: Path) -> Clip:
    """Return the sound of the WAV at `path`.

    Raises:
        DataError: no file, no WAV, another coding, a truncated or an empty one, one with more than 2**26 samples,
            or with NaN or infinite samples.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path} is no file. {_EXPECTED}")
        with path.open("rb") as stream:
            found, size = _find_data(stream, path)
            # Looked up before, as a buffer of the promised size is made before anything is read.
            there = path.stat().st_size - stream.tell()
            if there < size:
                raise DataError(
                    f"{path} is truncated: {there} of {size} bytes of sound are there. Record it again."
                )
            raw = stream.read(size)
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err.strerror or err}. Check the path.") from err
    channels = _samples(raw, found)
    if not np.isfinite(channels).all():
        raise DataError(f"{path} holds NaN or infinite samples. Mend what records it.")
    mono = channels[:, 0] if found.channels == 1 else channels.mean(axis=1, dtype=np.float64)
    samples = np.ascontiguousarray(mono, dtype=np.float32)
    notes = [f"the mean of its {found.channels} channels is taken"] if found.channels > 1 else []
    notes += sound_notes(samples)
    return Clip(samples=samples, rate_hz=found.rate_hz, channels=found.channels, notes=tuple(notes))


def wav_bytes(samples: Floats, rate_hz: int) -> bytes:
    """Return a WAV of 16-bit PCM, mono; samples [n] beyond -1..1 are clamped.

    Raises:
        DataError: no sample, more than 2**26, NaN, or a rate out of range.
    """
    if not 1 <= samples.size <= MAX_SAMPLES or samples.ndim != 1 or not 1 <= rate_hz <= MAX_RATE_HZ:
        raise DataError(
            f"{list(samples.shape)} samples at {rate_hz} Hz are no clip; 1..{MAX_SAMPLES} samples at "
            f"1..{MAX_RATE_HZ} Hz are expected."
        )
    if not np.isfinite(samples).all():
        raise DataError("samples hold NaN or infinite values. Mend what makes them.")
    data = np.clip(np.round(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, rate_hz, 2 * rate_hz, 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def _find_data(stream: BinaryIO, path: Path) -> tuple[_Format, int]:
    """Return the format and the bytes of sound; `stream` then stands at the sound."""
    head = stream.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise DataError(f"{path} begins with {head!r}, not as a WAV. {_EXPECTED}")
    found: _Format | None = None
    for _ in range(_MAX_CHUNKS):
        header = stream.read(8)
        if len(header) < 8:
            missing = "sound" if found else "format"
            raise DataError(f"{path} ends before its {missing}: it is truncated or no WAV. {_EXPECTED}")
        name, size = header[:4], int.from_bytes(header[4:], "little")
        if name == b"data":
            if found is None:
                raise DataError(f"{path} has sound before its format. {_EXPECTED}")
            return found, _data_bytes(size, found, path)
        if name == b"fmt ":
            found = _read_format(stream.read(min(size, 40)), path)
            stream.seek(max(size - 40, 0) + size % 2, 1)
        else:
            stream.seek(size + size % 2, 1)  # chunks begin at even places
    raise DataError(f"{path} has more than {_MAX_CHUNKS} chunks before its sound. {_EXPECTED}")


def _read_format(raw: bytes, path: Path) -> _Format:
    if len(raw) < 16:
        raise DataError(
            f"{path} has a format of {len(raw)} bytes; 16 at least are expected. It is truncated."
        )
    coding, channels, rate_hz, _, frame_bytes, bits = struct.unpack("<HHIIHH", raw[:16])
    if coding == _EXTENSIBLE and len(raw) >= 26:
        coding = int.from_bytes(raw[24:26], "little")
    if (coding, bits) not in _CODINGS:
        named = {_PCM: "PCM", _FLOAT: "float"} | _OTHER_CODINGS
        raise DataError(f"{path} is {named.get(coding, f'coding {coding}')} of {bits} bits. {_EXPECTED}")
    if not 1 <= channels <= _MAX_CHANNELS or not 1 <= rate_hz <= MAX_RATE_HZ:
        raise DataError(
            f"{path} has {channels} channels at {rate_hz} Hz; 1..{_MAX_CHANNELS} at 1..{MAX_RATE_HZ} are expected."
        )
    if frame_bytes != channels * bits // 8:
        raise DataError(
            f"{path} says {frame_bytes} bytes for {channels} samples of {bits} bits; it is no WAV of whole samples."
        )
    return _Format(coding=coding, bits=bits, channels=channels, rate_hz=rate_hz, frame_bytes=frame_bytes)


def _data_bytes(size: int, found: _Format, path: Path) -> int:
    frames = size // found.frame_bytes
    if frames == 0:
        raise DataError(f"{path} holds no sample. Record it again.")
    # The bound is on values, so that many channels need no more memory than one.
    if frames * found.channels > MAX_SAMPLES:
        raise DataError(
            f"{path} says {frames} samples in {found.channels} channels; at most {MAX_SAMPLES} in all are taken. "
            "Cut it."
        )
    return frames * found.frame_bytes


def _samples(raw: bytes, found: _Format) -> Floats:
    """Return float32 [frames, channels]."""
    dtype, full_scale = _CODINGS[found.coding, found.bits]
    if found.bits == 24:
        wide = np.zeros((len(raw) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3)
        raw = wide.tobytes()
    values = np.frombuffer(raw, dtype=dtype)
    if found.bits == 8:
        values = values.astype(np.int16) - 128
    # A float64 beyond float32 becomes infinite, and is refused as such; so is what is no number.
    with np.errstate(over="ignore", invalid="ignore"):
        return (values.astype(np.float32) / np.float32(full_scale)).reshape(-1, found.channels)


def sound_notes(samples: Floats) -> list[str]:
    """Return what is strange about `samples`, float32 [n], as sentences: silent, clipped."""
    notes = []
    peak = float(np.abs(samples).max())
    if peak < _SILENCE:
        notes.append("it is silent: no sample is within 80 dB of full scale")
    full = np.abs(samples) >= _FULL_SCALE
    runs = np.convolve(full, np.ones(_CLIPPED_RUN, dtype=np.int64))
    if (runs >= _CLIPPED_RUN).any():
        notes.append(f"it is clipped: {int(full.sum())} of {samples.size} samples are at full scale")
    return notes
