"""A processing in C as WebAssembly: built by clang without a libc, for browsers and for Node."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from edgewright.core.errors import UnavailableError
from edgewright.core.files import write_aside
from edgewright.processing.c_code import FLAGS, CCore
from edgewright.processing.c_host import run_compiler

_STACK_BYTES = 256 << 10
# All that the core takes of a libc; with bulk memory the compiler makes instructions of it.
STRING_H = """#pragma once
#include <stddef.h>
#define memcpy __builtin_memcpy
#define memmove __builtin_memmove
#define memset __builtin_memset
"""
_EXPORTS = (
    "ew_bytes", "ew_init", "ew_reset", "ew_set_image", "ew_set_yuv", "ew_set_samples", "ew_set_values",
    "ew_prepare", "ew_finish", "ew_input", "ew_output", "ew_result", "ew_label",
)  # fmt: skip
# 128-bit vectors and bulk memory are in every browser that has ES modules with top-level await (2021 to 2023).
_TARGET_FLAGS = (
    "--target=wasm32", "-ffreestanding", "-nostdlib", "-msimd128", "-mbulk-memory", "-fvisibility=hidden",
)  # fmt: skip
_LINK_FLAGS = (
    "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,--stack-first", f"-Wl,-z,stack-size={_STACK_BYTES}",
    "-Wl,--export=__heap_base",
)  # fmt: skip


def build_wasm(core: CCore, path: Path, *, clang: str = "clang") -> Path:
    """Return the module of `core` at `path`; it exports `memory`, `__heap_base`, NAME_processing and the ew_ functions.

    The memory behind `__heap_base` is the caller's, who makes it grow. Products and sums are not fused, so the bits are
    those of the other compilers.

    Raises:
        UnavailableError: clang or its linker for WebAssembly is not installed.
        ConversionError: the compiler refused the code.
    """
    missing = missing_tools(clang)
    if missing:
        raise UnavailableError(
            f"WebAssembly cannot be built: {' and '.join(missing)} not found. "
            "Install them: apt-get install -y clang lld"
        )
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work, write_aside(path) as aside:
        (Path(work) / "string.h").write_text(STRING_H, encoding="utf-8")
        command = [
            clang, *wasm_flags(core.name), "-Wall", "-Wextra", "-Werror", "-I", work, "-I", str(core.folder),
            "-o", str(aside), *map(str, core.sources),
        ]  # fmt: skip
        run_compiler(command, what=f"{core.name}_processing.c for WebAssembly")
    return path


def wasm_flags(name: str) -> tuple[str, ...]:
    """Return what clang needs for the core called `name`, but for its files and the folder of `string.h`."""
    exports = (f"-Wl,--export={what}" for what in (*_EXPORTS, f"{name}_processing"))
    return (*FLAGS, *_TARGET_FLAGS, *_LINK_FLAGS, *exports)


def missing_tools(clang: str = "clang") -> tuple[str, ...]:
    """Return which of the compiler and the linker are not installed."""
    return tuple(tool for tool in (clang, "wasm-ld") if shutil.which(tool) is None)
