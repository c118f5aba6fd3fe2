"""Damaged and hostile `.ewz` files: every one is detected, in bounded memory, and nothing is written."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import FormatMismatchError, IntegrityError, UnavailableError
from edgewright.ewz import pack, read_packed, unpack
from edgewright.ewz.container import VERSION, Entry, header_bytes, is_safe_name, varint
from edgewright.ewz.reading import read_chunks
from edgewright.ewz.writing import write_container

BROKEN = (IntegrityError, FormatMismatchError)
MAX_MEMORY_BYTES = 80 << 20  # a frame of 16 MiB, what it was packed in, and the tables
RANDOM_CHANGES = 1_500


def container(folder: Path) -> bytes:
    """Return a small container with every part: two files, int8, clustered and sparse weights, and a graph."""
    rng = np.random.default_rng(3)
    codebook = rng.normal(0, 1, 8).astype(np.float32)
    content = b"graph of some kind" + np.rint(rng.normal(0, 9, 400)).astype(np.int8).tobytes()
    content += codebook[rng.integers(0, 8, 200)].tobytes() + bytes(5)
    content += np.where(rng.random(300) < 0.9, np.float32(0), codebook[rng.integers(0, 8, 300)]).tobytes()
    (folder / "model.xml").write_bytes(b'<net><data offset="18" size="400"/><data offset="418" size="800"/>'
                                       b'<data offset="1223" size="1200"/></net>')  # fmt: skip
    (folder / "model.bin").write_bytes(content)
    stream = io.BytesIO()
    written = write_container([(n, folder / n) for n in ("model.bin", "model.xml")], stream)
    assert {r.kind for r in written.ranges} >= {"bytes", "words32"}
    assert len(stream.getvalue()) < 1_500
    return stream.getvalue()


def read(content: bytes) -> int:
    return sum(len(chunk.content) for chunk in read_chunks(io.BytesIO(content)))


def peak_of(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_every_flipped_byte_is_detected(tmp_path: Path) -> None:
    good = container(tmp_path)
    assert read(good) > 2_000

    def flip_all() -> None:
        for at in range(len(good)):
            bad = bytearray(good)
            bad[at] ^= (0xFF, 1, 0x80)[at % 3]
            with pytest.raises(BROKEN):
                read(bytes(bad))

    assert peak_of(flip_all) < MAX_MEMORY_BYTES


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    good = container(tmp_path)
    for size in range(len(good)):
        with pytest.raises(BROKEN):
            read(good[:size])
    with pytest.raises(IntegrityError, match="after its end"):
        read(good + b"\0")


def test_random_changes_are_detected(tmp_path: Path) -> None:
    good = container(tmp_path)
    choose = random.Random(5)

    def change_all() -> None:
        for _ in range(RANDOM_CHANGES):
            bad = bytearray(good)
            for _ in range(choose.randint(1, 8)):
                at = choose.randrange(len(bad))
                kind = choose.randrange(4)
                if kind == 0:
                    bad[at] = choose.randrange(256)
                elif kind == 1:
                    del bad[at : at + choose.randint(1, 9)]
                elif kind == 2:
                    bad[at:at] = choose.randbytes(choose.randint(1, 9))
                else:
                    bad[at : at + 4] = b"\xff\xff\xff\x7f"
                if not bad:
                    break
            if bytes(bad) != good:
                with pytest.raises(BROKEN):
                    read(bytes(bad))

    assert peak_of(change_all) < MAX_MEMORY_BYTES


def test_a_damaged_file_leaves_nothing(tmp_path: Path) -> None:
    bad = bytearray(container(tmp_path))
    bad[-40] ^= 1
    (tmp_path / "bad.ewz").write_bytes(bad)
    with pytest.raises(IntegrityError, match=r"bad\.ewz is damaged: .* Download it again"):
        unpack(tmp_path / "bad.ewz", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a//b",
        "./a",
        "C:\\x",
        "a\\b",
        "a\nb",
        "a\0b",
        "x" * 300,
        "a/",
        "nul\u202ename",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    assert not is_safe_name(name)
    (tmp_path / "bad.ewz").write_bytes(header_bytes([Entry(name=name, size_bytes=1)], bytes(32)))
    with pytest.raises(IntegrityError):
        read_packed(tmp_path / "bad.ewz")


def test_names_that_clash_are_refused(tmp_path: Path) -> None:
    for names in (("a", "a"), ("b", "a"), ("a", "a/b")):
        entries = [Entry(name=name, size_bytes=1) for name in names]
        (tmp_path / "bad.ewz").write_bytes(header_bytes(entries, bytes(32)))
        with pytest.raises(IntegrityError):
            read_packed(tmp_path / "bad.ewz")


def test_promises_take_no_memory() -> None:
    huge = header_bytes([Entry(name="a", size_bytes=1 << 32)], bytes(32))

    def read_huge() -> None:
        for frame in (varint(1 << 40), varint(16 << 20) * 3, b"\xff" * 9, varint(0) * 3):
            with pytest.raises(IntegrityError):
                read(huge + frame)
        with pytest.raises(IntegrityError):
            read(header_bytes([], bytes(32)))
        with pytest.raises(IntegrityError):
            read(header_bytes([Entry(name="a", size_bytes=1 << 60)], bytes(32)))

    assert peak_of(read_huge) < MAX_MEMORY_BYTES


def test_a_bomb_needs_the_users_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright.ewz.packing.FREE_BYTES", 1 << 20)
    (tmp_path / "zeros").write_bytes(bytes(2 << 20))
    report = pack(tmp_path / "zeros")
    assert report.packed_bytes < 300
    with pytest.raises(IntegrityError, match="--limit-mb"):
        unpack(report.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert unpack(report.path, tmp_path / "out", limit_bytes=2 << 20).source_bytes == 2 << 20


def test_other_files_and_versions_are_named(tmp_path: Path) -> None:
    good = container(tmp_path)
    with pytest.raises(FormatMismatchError, match="begins with"):
        read(b"PK\x03\x04" + good)
    with pytest.raises(FormatMismatchError, match=f"version {VERSION + 1}"):
        read(good[:3] + bytes([VERSION + 1]) + good[4:])


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(UnavailableError, match=r"numba and zstandard.*pip install 'edgewright\[ewz\]'"):
        pack(tmp_path / "a")
