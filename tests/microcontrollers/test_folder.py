"""A folder is read again only where every line of code in it is the emitter's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.microcontrollers.c_folders import write_folder

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.microcontrollers.folder import read_folder, read_folders
from edgewright.sources import inspect_artifact

pytestmark = pytest.mark.toolchain("ai_edge_litert")


@pytest.fixture
def source(assets: Path, tmp_path: Path) -> Path:
    return write_folder(
        assets / "models/tflite-micro/hello_world_int8.tflite",
        tmp_path / "made",
        name="hello",
        labels=("one",),
    )


def test_a_file_or_its_folder_is_read(source: Path) -> None:
    for path in (source, source.parent):
        (found,) = read_folders(path)
        assert (found.name, found.folder, found.author) == ("hello", source.parent, "this machine")
        assert found.model.graph.labels == ("one",)


def test_what_a_conversion_wrote_is_found_in_its_folder(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "artifacts" / "c-w8a8"
    target.parent.mkdir(parents=True)
    source.parent.rename(target)
    assert [found.source for found in read_folders(tmp_path / "out")] == [target / "hello.c"]


def _system(text: str) -> str:
    return text.replace(
        "    memset(arena", '    extern int system(const char *);\n    system("id");\n    memset(arena', 1
    )


def _in_table(text: str) -> str:
    return re.sub(r"(expected_output\[20\] = \{\n)\s*", r"\1    sizeof(int), ", text)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("hello.c", lambda text: text + "\n"),
        ("hello.h", lambda text: text.replace("ARENA_BYTES", "ARENA_BYTE")),
        ("hello_test.c", _system),
        ("hello_test.c", _in_table),
        ("hello_test.c", lambda text: text.replace("expected: this machine", 'expected: " */ int x; /* "')),
        ("hello_test.c", lambda text: text.replace("20 runs", "999999 runs")),
        ("hello_test.c", lambda text: text + "int more;\n"),
        ("hello_labels.txt", lambda text: "two"),
    ],
)
def test_a_file_that_was_changed_is_not_built(name: str, change: Callable[[str], str], source: Path) -> None:
    file = source.with_name(name)
    before = file.read_text(encoding="utf-8")
    file.write_text(change(before), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != before
    with pytest.raises(IntegrityError, match="Build it again"):
        read_folder(source)


def test_other_expected_outputs_are_read_for_the_device_shall_find_them_wrong(source: Path) -> None:
    test = source.with_name("hello_test.c")
    text = test.read_text(encoding="utf-8")
    test.write_text(re.sub(r"(expected_output\[20\] = \{\n\s*)-?\d+", r"\g<1>99", text), encoding="utf-8")
    assert read_folder(source).author == "this machine"


def test_what_is_no_c_model_is_refused(source: Path, tmp_path: Path) -> None:
    source.with_suffix(".tflite").unlink()
    with pytest.raises(UsageError, match=r"hello\.tflite not beside it"):
        read_folder(source)
    for path in (tmp_path, tmp_path / "none.c"):
        with pytest.raises(UsageError, match="holds no C model"):
            read_folders(path)


def test_a_c_model_is_inspected_by_what_it_was_made_of(source: Path) -> None:
    found = inspect_artifact(source)
    assert (found.name, found.format, found.precision, found.macs) == ("hello.c", "c", "w8a8", 288)
    assert any("arena 32 bytes of RAM" in note for note in found.notes)
    source.write_text(source.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="Build it again"):
        inspect_artifact(source)
