"""Pages of shared libraries: read from real ones, and from bytes that somebody made up."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.deploy.elf import ElfError, load_alignment, page_problem, page_problems


def elf(alignment: int, *, is_64: bool = True, order: str = "<", count: int = 1) -> bytes:
    """Return a file's header and its program headers, as the System V ABI lays them out."""
    ident = b"\x7fELF" + bytes([2 if is_64 else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    if is_64:
        head = struct.pack(f"{order}HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
        loads = struct.pack(f"{order}IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, alignment) * count
    else:
        head = struct.pack(f"{order}HHIIIIIHHHHHH", 3, 40, 1, 0, 52, 0, 0, 52, 32, count, 0, 0, 0)
        loads = struct.pack(f"{order}IIIIIIII", 1, 0, 0, 0, 0, 0, 5, alignment) * count
    return ident + head + loads


def link(folder: Path, compiler: str, page_bytes: int) -> Path:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    source = folder / "one.c"
    source.write_text("int one(void) { return 1; }\n")
    made = folder / f"lib{page_bytes}.so"
    flags = ["-shared", "-fPIC", "-nostdlib", f"-Wl,-z,max-page-size={page_bytes}"]
    subprocess.run([compiler, *flags, "-o", str(made), str(source)], check=True)
    return made


@pytest.mark.parametrize("compiler", ["gcc", "aarch64-linux-gnu-gcc"])
@pytest.mark.parametrize(("page_bytes", "is_right"), [(4096, False), (16_384, True), (65_536, True)])
def test_real_libraries(tmp_path: Path, compiler: str, page_bytes: int, is_right: bool) -> None:
    made = link(tmp_path, compiler, page_bytes)
    assert load_alignment(made.read_bytes()) == page_bytes
    count, problems = page_problems(tmp_path)
    assert count == 1
    assert [bool(problems)] == [not is_right]
    if not is_right:
        assert "pages of 4096 bytes; 16384 are expected" in problems[0]


@pytest.mark.parametrize("is_64", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_classes_and_both_orders(is_64: bool, order: str) -> None:
    assert load_alignment(elf(16_384, is_64=is_64, order=order, count=3)) == 16_384


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x7fELF",
        b"MZ" + bytes(200),
        elf(4096)[:80],  # the program header is cut off
        elf(4096, count=1)[:56] + struct.pack("<H", 60_000) + elf(4096)[58:],
        elf(4096)[:32] + struct.pack("<Q", 1 << 60) + elf(4096)[40:],
        elf(4096)[:64] + struct.pack("<I", 2) + elf(4096)[68:],  # nothing is loaded
    ],
)
def test_what_is_no_library_is_said(head: bytes) -> None:
    with pytest.raises(ElfError):
        load_alignment(head)
    assert page_problem("libbird.so", head).startswith("libbird.so: ")


@pytest.mark.parametrize("alignment", [0, 1, 4096, 16_385, 3 * 16_384 // 2])
def test_alignments_that_are_none(alignment: int) -> None:
    assert page_problem("libbird.so", elf(alignment))


@given(st.binary(max_size=300))
def test_any_bytes_end_in_an_answer(content: bytes) -> None:
    page_problem("libbird.so", content)
    page_problem("libbird.so", elf(16_384)[:40] + content)


def test_what_an_archive_holds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "library.aar", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("jni/arm64-v8a/libbird.so", elf(4096))
        archive.writestr("jni/x86_64/libbird.so", elf(16_384))
        archive.writestr("jni/armeabi-v7a/libbird.so", elf(4096, is_64=False))
    count, problems = page_problems(tmp_path)
    assert count == 2
    assert len(problems) == 1
    assert problems[0].startswith("library.aar: jni/arm64-v8a/libbird.so is laid out for pages of 4096")


@pytest.mark.parametrize("padding", [0, 16_384 - 30 - len("lib/arm64-v8a/libbird.so")])
def test_a_library_in_an_apk_begins_at_a_page(tmp_path: Path, padding: int) -> None:
    entry = zipfile.ZipInfo("lib/arm64-v8a/libbird.so")
    # zipalign fills up with extra bytes, too: here a field of a kind that nobody uses.
    entry.extra = struct.pack("<HH", 0xD935, padding - 4) + bytes(padding - 4) if padding else b""
    with zipfile.ZipFile(tmp_path / "app.apk", "w") as archive:
        archive.writestr(entry, elf(16_384))
    count, problems = page_problems(tmp_path)
    assert count == 1
    assert [("zipalign" in problem) for problem in problems] == ([] if padding else [True])


@pytest.mark.parametrize("content", [b"PK\x03\x04 but no archive", b"", bytes(5000)])
def test_a_broken_archive_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "app.apk").write_bytes(content)
    (tmp_path / "link.so").symlink_to("nowhere")
    count, problems = page_problems(tmp_path)
    assert (count, len(problems)) == (0, 1)
    assert problems[0].startswith("app.apk cannot be read")
