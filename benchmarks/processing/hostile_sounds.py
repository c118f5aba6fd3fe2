"""Sounds, arrays and labels as nobody wants them."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.processing.hostile_cases import Case, Must, cut_off

from edgewright.core.tensors import Array
from edgewright.processing.audio_files import read_wav

RATE_HZ = 16_000
NUMBERS = np.arange(12, dtype=np.float32).reshape(4, 3) / 8 - 0.5
_GENERATOR = np.random.default_rng(4)
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_TAIL = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"  # of the GUID of a sub-format


def wav(
    data: bytes,
    *,
    bits: int = 16,
    coding: int = _PCM,
    channels: int = 1,
    rate_hz: int = RATE_HZ,
    size: int | None = None,
    extra: bytes = b"",
    between: bytes = b"",
) -> bytes:
    """Return a WAV with any head; `extra` ends its format, `between` are chunks before its sound."""
    frame = channels * bits // 8
    form = (
        struct.pack("<HHIIHH", coding, channels, rate_hz, (rate_hz * frame) & 0xFFFFFFFF, frame, bits) + extra
    )
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(form)) + form + between
    body += struct.pack("<4sI", b"data", len(data) if size is None else size) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def sounds(assets: Path) -> Iterator[Case]:
    """Yield WAVs; `assets` holds spoken words."""
    path = assets / "data/micro-speech/yes_1000ms.wav"
    yield from cut_off("cut off wav", "cut", ".wav", path.read_bytes(), read_wav(path).samples)
    tone = np.sin(np.arange(1600) * 0.05) * 0.5
    yield from _codings(tone)
    yield from _strange(tone)
    yield from _broken(tone)


def _codings(tone: Array) -> Iterator[Case]:
    def right(name: str, content: bytes, wanted: Array, tolerance: float) -> Case:
        return Case(
            kind="codings of wav", name=f"coding_{name}.wav", content=content, must="right",
            wanted=wanted.astype(np.float32), tolerance=tolerance,
        )  # fmt: skip

    whole = {
        8: np.round(tone * 127 + 128).astype("u1").tobytes(),
        16: np.round(tone * 32767).astype("<i2").tobytes(),
        24: b"".join(struct.pack("<i", int(n))[:3] for n in np.round(tone * 8388607)),
        32: np.round(tone * 2147483647).astype("<i4").tobytes(),
    }
    for bits, data in whole.items():
        yield right(f"{bits}", wav(data, bits=bits), tone, 1.5 / 2 ** (bits - 1) if bits < 24 else 1e-6)
        guid = struct.pack("<HHIH", 22, bits, 4, _PCM) + _TAIL
        content = wav(data, bits=bits, coding=_EXTENSIBLE, extra=guid)
        yield right(f"{bits}_extensible", content, tone, 1.5 / 2 ** (bits - 1) if bits < 24 else 1e-6)
    for bits in (32, 64):
        data = tone.astype(f"<f{bits // 8}").tobytes()
        yield right(f"float{bits}", wav(data, bits=bits, coding=_FLOAT), tone, 1e-7)
        guid = struct.pack("<HHIH", 22, bits, 4, _FLOAT) + _TAIL
        yield right(
            f"float{bits}_extensible", wav(data, bits=bits, coding=_EXTENSIBLE, extra=guid), tone, 1e-7
        )
    for channels in (2, 3, 6, 64):
        several = np.stack([tone * (n + 1) / channels for n in range(channels)], axis=1)
        data = np.round(several * 32767).astype("<i2").tobytes()
        yield right(f"{channels}_channels", wav(data, channels=channels), several.mean(axis=1), 2e-4)
    note = struct.pack("<4sI", b"LIST", 5) + b"abcde\0"
    yield right("odd_chunk", wav(whole[16], between=note), tone, 1e-4)
    yield right("odd_bytes", wav(whole[16] + b"\x07"), tone, 1e-4)
    yield right("chunk_after", wav(whole[16]) + struct.pack("<4sI", b"LIST", 1 << 30), tone, 1e-4)


def _strange(tone: Array) -> Iterator[Case]:
    kinds: dict[str, Array] = {
        "silent": np.zeros(1600), "one_sample": np.array([0.25]), "clipped": np.clip(tone * 9, -1, 32767 / 32768),
        "square": np.where(tone > 0, 32767 / 32768, -1.0), "offset": np.full(1600, 0.75), "long": np.tile(tone, 60),
    }  # fmt: skip
    for name, samples in kinds.items():
        data = np.round(samples * 32768).clip(-32768, 32767).astype("<i2").tobytes()
        wanted = samples.astype(np.float32)
        yield Case(
            kind="strange sounds",
            name=f"{name}.wav",
            content=wav(data),
            must="right",
            wanted=wanted,
            tolerance=1e-4,
        )
    beyond = (tone * 50).astype("<f4")
    content = wav(beyond.tobytes(), bits=32, coding=_FLOAT)
    yield Case(kind="strange sounds", name="beyond.wav", content=content, must="right", wanted=beyond)
    for name, value in (("nan", np.nan), ("infinite", np.inf), ("minus", -np.inf), ("signalling", None)):
        for bits in (32, 64):
            samples = tone.astype(f"<f{bits // 8}")
            samples[777] = 0 if value is None else value
            data = bytearray(samples.tobytes())
            if value is None:
                data[777 * bits // 8 : 778 * bits // 8] = (
                    b"\1" + b"\0" * (bits // 8 - 3) + b"\xf0\x7f" if bits == 64 else b"\1\0\x80\x7f"
                )
            content = wav(bytes(data), bits=bits, coding=_FLOAT)
            yield Case(kind="NaN, infinite", name=f"{name}{bits}.wav", content=content)
    huge = np.full(1600, 1e300, "<f8").tobytes()
    yield Case(kind="NaN, infinite", name="huge64.wav", content=wav(huge, bits=64, coding=_FLOAT))
    data = np.round(tone * 32767).astype("<i2").tobytes()
    for rate_hz in (1, 8000, 15_999, 16_001, 44_100, 48_000, 192_000, 384_000, 1 << 31, 0):
        yield Case(kind="another rate", name=f"rate_{rate_hz}.wav", content=wav(data, rate_hz=rate_hz))


def _broken(tone: Array) -> Iterator[Case]:
    data = np.round(tone * 32767).astype("<i2").tobytes()
    good = wav(data)
    contents = {
        "empty": b"", "text": b"not a sound", "zeros": bytes(5000), "mp3": b"ID3" + bytes(400),
        "ogg": b"OggS" + bytes(400),
        "flac": b"fLaC" + bytes(400), "rifx": b"RIFX" + good[4:], "rf64": b"RF64" + good[4:],
        "aiff": b"FORM" + good[4:],
        "none": wav(b""), "half": wav(b"\0"), "more": wav(data, size=len(data) + 2), "most": wav(data,
        size=0xFFFFFFFF),
        "bombed": wav(data, size=0x7FFFFFF0), "channels0": wav(data, channels=0), "channels999": wav(data,
        channels=999),
        "bits0": wav(data, bits=0), "bits12": wav(data, bits=12), "bits128": wav(data, bits=128),
        "alaw": wav(data, coding=6, bits=8), "mulaw": wav(data, coding=7, bits=8), "adpcm": wav(data, coding=2,
        bits=4),
        "mpeg": wav(data, coding=85), "no_format": good.replace(b"fmt ", b"fmt_"),
        "chunks": good[:12] + b"junk\0\0\0\0" * 5000,
        "extensible": wav(data, coding=_EXTENSIBLE), "unknown": wav(data, coding=_EXTENSIBLE, extra=bytes(24)),
        "frames": good[:32] + b"\7\0" + good[34:], "pickle": pickle.dumps([1]),
    }  # fmt: skip
    for name, content in contents.items():
        yield Case(kind="no sounds", name=f"{name}.wav", content=content)
    for number in range(200):
        body = bytearray(good)
        for place in _GENERATOR.integers(0, 60, 3):
            body[place] = _GENERATOR.integers(0, 256)
        yield Case(kind="changed bytes wav", name=f"changed_{number}.wav", content=bytes(body), must="any")


def npy(array: Array) -> bytes:
    """Return the file of `array`."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=array.dtype.kind == "O")
    return stream.getvalue()


def _head(text: str, data: bytes = bytes(48), version: bytes = b"\1\0") -> bytes:
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text.encode("latin-1") + data


def arrays() -> Iterator[Case]:
    """Yield .npy and .csv files for an input of float32 [4, 3]."""
    yield from cut_off("cut off npy", "cut", ".npy", npy(NUMBERS), NUMBERS)

    def case(name: str, content: bytes, must: Must = "refused") -> Case:
        return Case(
            kind="arrays",
            name=name,
            content=content,
            must=must,
            wanted=None if must == "refused" else NUMBERS,
        )

    for dtype in ("<f4", ">f4", "<f8", ">f8", "<f2"):
        yield case(
            f"type_{dtype[1:]}{'big' if dtype[0] == '>' else ''}.npy", npy(NUMBERS.astype(dtype)), "right"
        )
    yield case("fortran.npy", npy(np.asfortranarray(NUMBERS)), "right")
    refused = {
        "complex": NUMBERS.astype(complex), "texts": NUMBERS.astype("U4"), "bytes": NUMBERS.astype("S4"),
        "bools": NUMBERS > 0, "times": NUMBERS.astype("m8[s]"), "rows": np.zeros((4, 3), [("a", "f4")]),
        "objects": np.full((4, 3), {}, dtype=object), "nan": np.full((4, 3), np.nan), "infinite": np.full((4, 3),
        np.inf),
        "beyond": np.full((4, 3), 1e300), "other": np.zeros((3, 4)), "flat": np.zeros(12), "deep": np.zeros((1, 4,
        3)),
        "nothing": np.zeros((0, 3)), "one": np.float32(1), "many": np.zeros((400, 3)),
    }  # fmt: skip
    for name, array in refused.items():
        yield case(f"{name}.npy", npy(np.asarray(array)))
    form = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"
    for number, shape in enumerate((
        "4, 3000000000", "1099511627776,", "-1, 3", "4, -3", "9" * 40 + ",", "4, 3, " + "1, " * 40, "True, 3",
        "2147483648, 2147483648, 4", "__import__('os'),", "[4], 3", "4.0, 3", "4L, 3L",
    )):  # fmt: skip
        yield case(f"head_{number}.npy", _head(form % shape), "either")
    heads = {
        "long": _head(" " * 65_000 + form % "4, 3"), "deep": _head("(" * 4000), "open": _head("{'descr': '''"),
        "none": _head(""), "list": _head("[1]"), "keys": _head("{'a': 1}"), "nul": _head("\0" * 100),
        "type": _head("{'descr': '|O', 'fortran_order': False, 'shape': (4, 3), }\n", pickle.dumps([1])),
        "kind": _head("{'descr': 'zzz', 'fortran_order': False, 'shape': (4, 3), }\n"),
        "version": _head(form % "4, 3", version=b"\x09\0"), "most": b"\x93NUMPY\2\0\xff\xff\xff\xff",
        "indent": _head("{'descr': '<f4',\n  'a\n"),
        "dtype": _head("{'descr': [('a', '<f4', " + "(9,9)" * 99 + ")]}"),
    }  # fmt: skip
    for name, content in heads.items():
        yield case(f"head_{name}.npy", content)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.npy", npy(np.zeros(1 << 22, np.float32)))
    others = {
        "archive": archive.getvalue(),
        "pickle": pickle.dumps(NUMBERS.tolist()),
        "empty": b"",
        "text": b"1,2,3",
    }
    for name, content in others.items():
        yield case(f"other_{name}.npy", content)
    yield from _tables(case)


def _tables(case: object) -> Iterator[Case]:
    assert callable(case)
    good = "".join(",".join(repr(float(n)) for n in row) + "\n" for row in NUMBERS)
    for name, text in (
        ("good", good),
        ("returns", good.replace("\n", "\r\n")),
        ("spaces", good.replace(",", " , ")),
        ("note", "# a, b\n" + good),
    ):
        yield case(f"{name}.csv", text.encode(), "right")
    texts = {
        "empty": "", "lines": "\n\n\n", "words": "a,b,c\n" * 4, "ragged": "1,2,3\n1,2\n", "nan": "nan,1,2\n" * 4,
        "infinite": "inf,1,2\n" * 4, "beyond": "1e999,1,2\n" * 4, "hex": "0x10,1,2\n" * 4, "points": "1..2,1,2\n" * 4,
        "long": "1" * 100_000 + ",1,2\n", "wide": ",".join(["1"] * 100_000), "semicolons": good.replace(",", ";"),
        "quotes": '"1","2","3"\n' * 4, "digits": "\u0661,\u0662,\u0663\n" * 4, "nul": "1,2,\0\n" * 4,
        "complex": "1j,2,3\n" * 4,
    }  # fmt: skip
    for name, text in texts.items():
        yield case(f"{name}.csv", text.encode())
    yield case("bytes.csv", bytes(range(256)) * 40)
    yield case("utf16.csv", good.encode("utf-16"))


def labels(count: int) -> Iterator[Case]:
    """Yield label files for a model of `count` classes; what they must give is that they are taken or not."""
    names = [f"name {n}" for n in range(count)]
    good = "\n".join(names).encode()

    def case(name: str, content: bytes, must: Must = "refused") -> Case:
        return Case(kind="labels", name=f"{name}.txt", content=content, must=must)

    yield case("good", good, "right")
    yield case("marked", b"\xef\xbb\xbf" + good, "right")
    yield case("returns", good.replace(b"\n", b"\r\n") + b"\r\n\r\n", "right")
    yield case("twice", b"same\n" * count, "right")
    yield case(
        "others",
        "\n".join(["\u9ce5", 'a"b\\c', "${x} {{y}} <b>&amp;"][n % 3] for n in range(count)).encode(),
        "right",
    )
    contents = {
        "empty": b"", "lines": b"\n" * 50, "fewer": b"\n".join(good.split(b"\n")[:-1]), "more": good + b"\nmore",
        "binary": bytes(range(256)) * 9, "nul": b"a\0b\n" * count, "bell": b"a\7\n" * count,
        "utf16": good.decode().encode("utf-16"),
        "latin": "\u00e9\n".encode("latin-1") * count, "long": b"x" * 300 + b"\n" * count, "many": b"a\n" * 100_001,
        "huge": b"a" * (9 << 20), "turned": "a\u202eb\n".encode() * count, "gap": b"a\n\x0cb\n" * count,
    }  # fmt: skip
    for name, content in contents.items():
        yield case(name, content)
