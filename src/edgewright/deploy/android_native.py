"""The JNI library of an Android bundle, by its own CMakeLists.txt: for a desktop JVM, and for Android's ABIs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgewright.core.errors import ConversionError
from edgewright.deploy.building import run_tool
from edgewright.deploy.elf import page_problem
from edgewright.processing.c_wasm import STRING_H

_BUILD_TIMEOUT_S = 900
# ABI -> clang's name of the machine; the number is the API level, as minSdk has it.
ABIS: Mapping[str, str] = {
    "arm64-v8a": "aarch64-linux-android26",
    "x86_64": "x86_64-linux-android26",
    "armeabi-v7a": "armv7a-linux-androideabi26",
    "x86": "i686-linux-android26",
}
_ABIS_OF_16_KB = ("arm64-v8a", "x86_64")
# All that the library takes of Android's libc, whose headers come with the NDK alone; jni.h only names stdio.h.
_HEADERS: Mapping[str, str] = {
    "string.h": STRING_H,
    "stdlib.h": "#pragma once\n#include <stddef.h>\nvoid *malloc(size_t bytes);\nvoid free(void *memory);\n",
    "stdio.h": "#pragma once\n",
}


def unbuildable(*tools: str) -> str:
    """Return what is missing to build the JNI library with cmake and `tools`; empty where nothing is."""
    for tool in ("cmake", *tools):
        if shutil.which(tool) is None:
            return f"{tool} is missing"
    has_header = shutil.which("java") is not None and (_java_home() / "include" / "jni.h").is_file()
    return "" if has_header else "jni.h of a JDK is missing"


def unbuildable_for_android() -> str:
    """Return what is missing to build for Android's ABIs without its NDK; empty where nothing is."""
    return unbuildable("clang", "ld.lld")


def build_jni(folder: Path, build: Path) -> Path:
    """Build the JNI library, stripped, for this machine's JVM; return the folder it lies in.

    Raises:
        ConversionError: it does not build.
    """
    return _build(folder, build, ["-DCMAKE_C_COMPILER=cc"])


def build_for_abi(folder: Path, build: Path, abi: str) -> Path:
    """Return the JNI library, stripped, as clang builds it for `abi`.

    Android's libc is not linked: its functions stay names, as they are in every shared library, and Android resolves
    them when it loads one.

    Raises:
        ConversionError: it does not build.
    """
    headers = build / "headers"
    headers.mkdir(parents=True)
    for name, text in _HEADERS.items():
        (headers / name).write_text(text, encoding="utf-8")
    java = _java_home() / "include"
    flags = (
        f"-ffreestanding -nostdlib -nostdlibinc -isystem {headers} -isystem {java} -isystem {java / 'linux'}"
    )
    options = [
        "-DANDROID=1", "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_C_COMPILER=clang",
        f"-DCMAKE_C_COMPILER_TARGET={ABIS[abi]}", f"-DCMAKE_C_FLAGS={flags}",
        "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY",
    ]  # fmt: skip
    # Asking an x86-64 processor for AVX2 takes a table of the compiler's own library, which the NDK links by itself.
    builtins = _builtins() if abi == "x86_64" else ""
    return library_in(_build(folder, build / "library", options, f"-fuse-ld=lld -s {builtins}"))


def library_in(build: Path) -> Path:
    """Return the library in the folder of a build."""
    return next(build.glob("lib*.so"))


def check_pages(library: Path) -> None:
    """Refuse a library that a device with pages of 16 KB does not load.

    Raises:
        ConversionError: it is one.
    """
    problem = page_problem(library.name, library.read_bytes())
    if problem:
        raise ConversionError(f"the Android bundle's library is not laid out for pages of 16 KB: {problem}")


def measure_abis(folder: Path, abis: Sequence[str]) -> dict[str, int | None]:
    """Return ABI -> the bytes of its JNI library, with pages of 16 KB checked; None where clang is not here.

    Raises:
        ConversionError: one does not build, or is laid out for other pages.
    """
    if unbuildable_for_android():
        return dict.fromkeys(abis)
    found: dict[str, int | None] = {}
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        for abi in abis:
            library = build_for_abi(folder, Path(work) / abi, abi)
            if abi in _ABIS_OF_16_KB:
                check_pages(library)
            found[abi] = library.stat().st_size
    return found


def _builtins() -> str:
    command = ["clang", "--target=x86_64-linux-gnu", "--rtlib=compiler-rt", "-print-libgcc-file-name"]
    return _run(command, "find clang's own library").stdout.strip()


def _build(folder: Path, build: Path, options: Sequence[str], link_flags: str = "-s") -> Path:
    source = folder / "library" / "src" / "main" / "cpp"
    options = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_SHARED_LINKER_FLAGS={link_flags}", *options]
    _run(["cmake", "-S", str(source), "-B", str(build), *options], "configure")
    _run(["cmake", "--build", str(build), "--parallel", "2"], "build its JNI library")
    return build


def _java_home() -> Path:
    return Path(str(shutil.which("java"))).resolve().parent.parent


def _run(command: Sequence[str], what: str) -> subprocess.CompletedProcess[str]:
    return run_tool(
        command,
        failure=f"the Android bundle does not {what}",
        quoted=slice(-8, None),
        most_characters=1500,
        timeout_s=_BUILD_TIMEOUT_S,
        env={"JAVA_HOME": str(_java_home())},
    )
