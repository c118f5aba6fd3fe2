"""C models on this machine: built by its compiler as a shared library, and called through ctypes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.core.errors import ConversionError, UnavailableError
from edgewright.core.tensors import Array

COMPILERS = ("gcc", "clang", "cc")
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
# Sums of float32 keep their order and their rounding.
ARITHMETIC = ("-ffp-contract=off",)
TIMEOUT_S = 300


def compiler() -> str:
    """Return the path of the C compiler: $CC, else the first of gcc, clang, cc.

    Raises:
        UnavailableError: there is none.
    """
    wanted = (os.environ["CC"],) if os.environ.get("CC") else COMPILERS
    for name in wanted:
        found = shutil.which(name)
        if found:
            return found
    raise UnavailableError(
        f"no C compiler: {', '.join(wanted)} not found. Install one: apt-get install -y gcc, or set CC."
    )


def build(sources: Sequence[Path], result: Path, *, flags: Sequence[str] = ("-O2",), cc: str = "") -> Path:
    """Return `result`, built of `sources` with every warning an error.

    Raises:
        UnavailableError: there is no compiler.
        ConversionError: the compiler refused the code.
    """
    command = [cc or compiler(), *WARNINGS, *ARITHMETIC, *flags, "-o", str(result), *map(str, sources)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise ConversionError(f"{command[0]} had not built {sources[0].name} after {TIMEOUT_S} s.") from err
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace")
        lines = [line for line in said.splitlines() if "error" in line] or said.splitlines()
        raise ConversionError(
            f"{command[0]} cannot build {sources[0].name}: {(lines or ['no reason'])[0][:300]}. "
            "Report it with the model."
        )
    return result


class HostModel:
    """A C model in this process.

    Args:
        source: NAME.c, with NAME.h beside it.
        inputs, outputs: shape and dtype of each.
        folder: where the library is built.
    """

    def __init__(
        self,
        source: Path,
        *,
        inputs: Sequence[tuple[tuple[int, ...], str]],
        outputs: Sequence[tuple[tuple[int, ...], str]],
        folder: Path,
    ) -> None:
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        library = build([source], folder / f"{source.stem}.so", flags=("-O2", "-shared", "-fPIC"))
        self._library = ctypes.CDLL(str(library))
        self._run = getattr(self._library, f"{source.stem}_run")
        self._init = getattr(self._library, f"{source.stem}_init")
        self._run.argtypes = [ctypes.c_void_p] * (len(inputs) + len(outputs))
        self.reset()

    def reset(self) -> None:
        """Put the model into its first state."""
        code = self._init()
        assert code == 0, f"init returned {code}"

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Return the outputs for one run; arrays have the shapes and dtypes of the model."""
        given = [
            np.ascontiguousarray(array, dtype=dtype)
            for array, (_, dtype) in zip(inputs, self._inputs, strict=True)
        ]
        for array, (shape, _) in zip(given, self._inputs, strict=True):
            assert array.shape == shape, f"{array.shape} for {shape}"
        made = tuple(np.empty(shape, dtype=dtype) for shape, dtype in self._outputs)
        code = self._run(*(array.ctypes.data for array in (*given, *made)))
        assert code == 0, f"run returned {code}"
        return made
