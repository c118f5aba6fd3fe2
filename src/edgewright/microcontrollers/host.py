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
from edgewright.microcontrollers.graph import Graph

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
        graph: the graph that it was made of.
        folder: where the library is built.
    """

    def __init__(self, source: Path, *, graph: Graph, folder: Path) -> None:
        self._inputs = tuple(graph.tensor(index) for index in graph.inputs)
        self._outputs = tuple(graph.tensor(index) for index in graph.outputs)
        self._name = source.stem
        library = build([source], folder / f"{source.stem}.so", flags=("-O2", "-shared", "-fPIC"))
        self._library = ctypes.CDLL(str(library))
        self._run = getattr(self._library, f"{self._name}_run")
        self._init = getattr(self._library, f"{self._name}_init")
        self.reset()

    @property
    def input_types(self) -> tuple[str, ...]:
        """The dtypes of the model's own inputs."""
        return tuple(tensor.dtype for tensor in self._inputs)

    def reset(self) -> None:
        """Put the model into its first state."""
        code = self._init()
        assert code == 0, f"init returned {code}"

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Return the outputs for one run; arrays have the shapes and dtypes of the model's own ends."""
        given = [
            np.ascontiguousarray(array, dtype=tensor.dtype)
            for array, tensor in zip(inputs, self._inputs, strict=True)
        ]
        for array, tensor in zip(given, self._inputs, strict=True):
            assert array.shape == tensor.shape, f"{array.shape} for {tensor.shape}"
        made = tuple(np.empty(tensor.shape, dtype=tensor.dtype) for tensor in self._outputs)
        code = self._run(*(ctypes.c_void_p(array.ctypes.data) for array in (*given, *made)))
        assert code == 0, f"run returned {code}"
        return made

    def quantized(self, position: int, values: Array) -> Array:
        """Return float32 `values` as input number `position` takes them, by the model's own function."""
        tensor = self._inputs[position]
        made = np.empty(tensor.shape, dtype=tensor.dtype)
        self._convert("quantize_input", position, len(self._inputs), np.ascontiguousarray(values), made)
        return made

    def dequantized(self, position: int, integers: Array) -> Array:
        """Return output number `position` as float32, by the model's own function."""
        made = np.empty(integers.shape, dtype=np.float32)
        self._convert("dequantize_output", position, len(self._outputs), np.ascontiguousarray(integers), made)
        return made

    def _convert(self, what: str, position: int, count: int, source: Array, target: Array) -> None:
        suffix = f"_{position}" if count > 1 else ""
        function = getattr(self._library, f"{self._name}_{what}{suffix}")
        function.restype = None
        function(ctypes.c_void_p(source.ctypes.data), ctypes.c_void_p(target.ctypes.data))


def compiler_version() -> dict[str, str]:
    """Return the compiler's name and version, nothing where there is none."""
    try:
        path = compiler()
        said = subprocess.run(
            [path, "-dumpfullversion", "-dumpversion"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (UnavailableError, OSError, subprocess.TimeoutExpired):
        return {}
    return {Path(path).name: said.stdout.strip() or "unknown"}
