"""Labels: read within bounds, from a file or the model's own archive, and written so that C cannot misread them."""

from __future__ import annotations

import ctypes
import io
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from edgewright.core.errors import UsageError
from edgewright.microcontrollers import host
from edgewright.microcontrollers.emit import compile_model, write_sources
from edgewright.microcontrollers.labels import (
    MAX_LABEL_CHARACTERS,
    MAX_LABELS,
    c_string,
    embedded_labels,
    read_labels,
)
from edgewright.microcontrollers.reader import read_graph

pytestmark = pytest.mark.toolchain("ai_edge_litert")
ODD = (
    '"',
    "\\",
    "??=",
    "*/",
    "été",
    "\x07 7",
    '"); system("x',
    "日本",
    "%s",
    "a" * MAX_LABEL_CHARACTERS,
    "0",
    "é1",
)


def _kws(assets: Path) -> Path:
    return assets / "models" / "mlperf-tiny" / "kws_dscnn_int8.tflite"


def _with_archive(model: Path, target: Path, members: dict[str, bytes]) -> Path:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    target.write_bytes(model.read_bytes() + packed.getvalue())
    return target


def test_a_file_of_lines_is_read(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffcat\r\n dog \nété\n\n".encode())
    assert read_labels(file) == ("cat", "dog", "été")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "line 1 is not 1 to"),
        (b"cat\n\ndog\n", "line 2 is not 1 to"),
        (b"a" * (MAX_LABEL_CHARACTERS + 1), "line 1 is not 1 to"),
        (b"a\0b", "line 1 is not 1 to"),
        (b"a\n" * (MAX_LABELS + 1), "at most"),
        (b"\xff\xfe", "utf-8"),
        (b"a" * (1 << 20) + b"aa", "more than"),
    ],
)
def test_files_that_are_no_labels_are_refused(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=why):
        read_labels(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.txt cannot be read"):
        read_labels(tmp_path / "none.txt")


@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_c_reads_the_very_labels(cc: str, assets: Path, tmp_path: Path) -> None:
    if shutil.which(cc) is None:
        pytest.skip(f"needs {cc}")
    model = compile_model(_kws(assets), name="kws", labels=ODD)
    source, _ = write_sources(model, tmp_path)
    flags = ("-O1", "-shared", "-fPIC", "-trigraphs")
    library = ctypes.CDLL(str(host.build([source], tmp_path / "kws.so", flags=flags, cc=cc)))
    library.kws_label.restype = ctypes.c_char_p
    assert tuple(library.kws_label(i).decode() for i in range(len(ODD))) == ODD
    assert library.kws_label(-1) is None
    assert library.kws_label(len(ODD)) is None


def test_a_string_is_all_ascii_without_what_c_would_read() -> None:
    assert c_string('a"?\\é') == '"a\\042\\077\\134\\303\\251"'


def test_labels_that_fit_no_output_are_refused(assets: Path) -> None:
    with pytest.raises(UsageError, match="there are 3 labels, but the outputs tell 12 classes apart"):
        compile_model(_kws(assets), name="kws", labels=("a", "b", "c"))


def test_the_models_own_archive_gives_labels(assets: Path, tmp_path: Path) -> None:
    lines = "\n".join(f"class {i}" for i in range(12)).encode()
    model = _with_archive(_kws(assets), tmp_path / "kws.tflite", {"labels.txt": lines, "other.txt": b"a\nb"})
    assert compile_model(model, name="kws").graph.labels == tuple(f"class {i}" for i in range(12))
    assert "kws_label(int32_t index)" in compile_model(model, name="kws").header


@pytest.mark.parametrize(
    "members",
    [
        {"labels.txt": b"a\nb"},  # fits no output
        {"one.txt": b"a\n" * 12, "two.txt": b"b\n" * 12},  # which of them?
        {"labels.txt": b"a\n" * 11 + b"\xff"},  # no text
        {"labels.bin": b"a\n" * 12},
        {"labels.txt": b"a\n" * (1 << 21)},  # larger than any labels
    ],
)
def test_an_archive_without_clear_labels_gives_none(
    members: dict[str, bytes], assets: Path, tmp_path: Path
) -> None:
    model = _with_archive(_kws(assets), tmp_path / "kws.tflite", members)
    assert compile_model(model, name="kws").graph.labels == ()
    assert "_label(" not in compile_model(model, name="kws").header


def test_a_published_model_has_its_labels(assets: Path) -> None:
    path = assets / "models" / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    labels = embedded_labels(path, read_graph(path))
    assert len(labels) == 1001 and labels[0].endswith("background")


def test_a_broken_archive_gives_none(assets: Path, tmp_path: Path) -> None:
    model = _with_archive(_kws(assets), tmp_path / "kws.tflite", {"labels.txt": b"abc\n" * 12})
    content = bytearray(model.read_bytes())
    at = content.rindex(b"PK\x03\x04") + 40
    content[at : at + 8] = b"\xff" * 8
    model.write_bytes(content)
    assert compile_model(model, name="kws").graph.labels == ()


def test_the_header_is_fit_for_cplusplus(assets: Path, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    write_sources(compile_model(_kws(assets), name="kws", labels=ODD), tmp_path)
    user = tmp_path / "user.cpp"
    user.write_text('#include "kws.h"\nint main() { return kws_label(0) == NULL ? kws_init() : 0; }\n')
    command = [
        "g++",
        "-std=c++11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-c",
        str(user),
        "-o",
        str(user) + ".o",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = subprocess.run(["nm", str(user) + ".o"], capture_output=True, text=True, check=True).stdout
    assert " U kws_label" in names
