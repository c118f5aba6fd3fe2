"""A C model's folder as a project: built by CMake; what Arduino, ESP-IDF and Zephyr read is checked without them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.microcontrollers.arduino_stub import write_stub
from tests.microcontrollers.c_folders import write_folder

from edgewright.microcontrollers.qemu import DEVICES

pytestmark = pytest.mark.toolchain("ai_edge_litert")
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
# What the project calls of ESP-IDF and of Zephyr, as plain CMake, to run the CMake code itself.
ESP_IDF = """\
cmake_minimum_required(VERSION 3.16)
project(app C)
set(ESP_PLATFORM 1)
set(COMPONENT_LIB component)
macro(idf_component_register)
  cmake_parse_arguments(REGISTERED "" "" "SRCS;INCLUDE_DIRS" ${ARGN})
  add_library(component STATIC ${REGISTERED_SRCS})
  target_include_directories(component PUBLIC ${REGISTERED_INCLUDE_DIRS})
endmacro()
add_subdirectory(MODEL model)
"""
ZEPHYR = """\
cmake_minimum_required(VERSION 3.20)
project(app C)
set(CONFIG_EDGEWRIGHT_HELLO y)
macro(zephyr_library_named name)
  add_library(${name} STATIC)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
endmacro()
macro(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endmacro()
macro(zephyr_library_compile_definitions)
  target_compile_definitions(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endmacro()
macro(zephyr_library_compile_options)
  target_compile_options(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endmacro()
macro(zephyr_include_directories)
  include_directories(${ARGN})
endmacro()
add_subdirectory(MODEL model)
"""


@pytest.fixture(scope="module")
def folder(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("c") / "hello"
    return write_folder(
        assets / "models/tflite-micro/hello_world_int8.tflite", made, name="hello", labels=("sine",)
    ).parent


def _run(*command: object, cwd: Path | None = None) -> str:
    texts = [str(part) for part in command]
    done = subprocess.run(texts, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(texts)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _needs(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def test_nothing_is_there_twice(folder: Path) -> None:
    sources = list(folder.rglob("*.[ch]"))
    assert sorted(file.name for file in sources) == ["hello.c", "hello.h", "hello_test.c"]


def test_cmake_builds_and_tests_it_here(folder: Path, tmp_path: Path) -> None:
    _needs("cmake", "make", "cc")
    _run("cmake", "-S", folder, "-B", tmp_path)
    _run("cmake", "--build", tmp_path)
    assert "100% tests passed" in _run("ctest", "--test-dir", tmp_path)


def test_cmake_does_not_write_over_the_makefile(folder: Path, tmp_path: Path) -> None:
    _needs("cmake")
    copy = shutil.copytree(folder, tmp_path / "copy")
    done = subprocess.run(["cmake", "."], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "Build elsewhere: cmake -B build" in done.stderr
    assert (copy / "Makefile").read_text(encoding="utf-8") == (folder / "Makefile").read_text(
        encoding="utf-8"
    )


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_cmake_builds_it_for_a_core(device: str, folder: Path, tmp_path: Path) -> None:
    compiler = DEVICES[device].compiler
    _needs("cmake", "make", compiler)
    _run(
        "cmake", "-S", folder, "-B", tmp_path, "-DCMAKE_TOOLCHAIN_FILE=cmake/cross.cmake",
        f"-DEDGEWRIGHT_DEVICE={device}",
    )  # fmt: skip
    _run("cmake", "--build", tmp_path)
    names = _run(compiler.replace("gcc", "nm"), tmp_path / "libedgewright_hello.a")
    assert re.search(r" T hello_run$", names, re.MULTILINE)
    assert "main" not in names


@pytest.mark.slow
@pytest.mark.parametrize("application", [ESP_IDF, ZEPHYR], ids=["esp-idf", "zephyr"])
def test_the_cmake_code_for_other_build_systems_runs(application: str, folder: Path, tmp_path: Path) -> None:
    _needs("cmake", "make", "cc", "nm")
    (tmp_path / "CMakeLists.txt").write_text(application.replace("MODEL", str(folder)), encoding="utf-8")
    _run("cmake", "-S", tmp_path, "-B", tmp_path / "build")
    _run("cmake", "--build", tmp_path / "build")
    (library,) = (tmp_path / "build" / "model").glob("*.a")
    names = _run("nm", library)
    assert " T hello_run\n" in names
    assert " T hello_self_test\n" in names
    assert " T main\n" not in names
    assert " printf\n" not in names and " puts\n" not in names


def test_kconfig_reads_the_zephyr_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kconfiglib = pytest.importorskip("kconfiglib")
    yaml = pytest.importorskip("yaml")
    module = yaml.safe_load((folder / "zephyr" / "module.yml").read_text(encoding="utf-8"))
    assert module == {"name": "edgewright_hello", "build": {"cmake": ".", "kconfig": "zephyr/Kconfig"}}
    monkeypatch.chdir(folder)
    found = kconfiglib.Kconfig(module["build"]["kconfig"])
    assert found.warnings == []
    symbol = found.syms["EDGEWRIGHT_HELLO"]
    assert symbol.type == kconfiglib.BOOL
    symbol.set_value("y")
    assert "CONFIG_EDGEWRIGHT_HELLO=y" in symbol.config_string
    assert "CONFIG_EDGEWRIGHT_HELLO" in (folder / "CMakeLists.txt").read_text(encoding="utf-8")


def test_the_esp_idf_component_has_a_manifest(folder: Path) -> None:
    yaml = pytest.importorskip("yaml")
    manifest = yaml.safe_load((folder / "idf_component.yml").read_text(encoding="utf-8"))
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert "hello" in manifest["description"]


def test_the_arduino_library_has_the_fields_of_the_specification(folder: Path) -> None:
    lines = (folder / "library.properties").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    assert list(fields) == [
        "name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures",
        "includes",
    ]  # fmt: skip
    assert fields["includes"] == "hello.h" and (folder / "hello.h").is_file()
    assert not (folder / "src").exists()  # or the flat layout would not hold, and hello.c would not be built
    assert (folder / "examples" / fields["name"] / f"{fields['name']}.ino").is_file()


@pytest.mark.parametrize(("c_compiler", "compiler"), [("gcc", "g++"), ("clang", "clang++")])
def test_the_sketch_runs_on_a_stub_of_arduino(
    c_compiler: str, compiler: str, folder: Path, tmp_path: Path
) -> None:
    """The sketch is built with a stub here, not with Arduino's tools, and so on boards nothing is shown by it."""
    _needs(compiler, c_compiler)
    header, main = write_stub(tmp_path / "stub")
    objects = []
    for file in ("hello.c", "hello_test.c"):  # the flat layout: every source of the library's root
        objects.append(tmp_path / f"{file}.o")
        _run(
            c_compiler,
            "-std=gnu11",
            "-Os",
            *STRICT,
            "-DARDUINO=10819",
            "-c",
            folder / file,
            "-o",
            objects[-1],
        )
    sketch = folder / "examples" / "hello" / "hello.ino"
    _run(
        compiler, "-std=gnu++11", "-Os", *STRICT, "-DARDUINO=10819", "-I", header.parent, "-I", folder, "-include",
        header, "-x", "c++", sketch, main, "-x", "none", *objects, "-o", tmp_path / "sketch",
    )  # fmt: skip
    said = _run(tmp_path / "sketch").splitlines()
    assert said[0] == "hello: outputs that are not as expected: 0"
    assert re.fullmatch(r"hello: largest at sine, value -?\d+, microseconds 7", said[1])


def test_the_sketch_is_taken_by_the_compiler_of_arm_boards(folder: Path, tmp_path: Path) -> None:
    _needs("arm-none-eabi-g++")
    header, _ = write_stub(tmp_path)
    _run(
        "arm-none-eabi-g++", "-std=gnu++11", "-mcpu=cortex-m4", "-mthumb", "-Os", *STRICT, "-DARDUINO=10819", "-I",
        tmp_path, "-I", folder, "-include", header, "-x", "c++", "-c", folder / "examples" / "hello" / "hello.ino",
        "-o", tmp_path / "sketch.o",
    )  # fmt: skip
    assert " U hello_run\n" in _run("arm-none-eabi-nm", tmp_path / "sketch.o")
