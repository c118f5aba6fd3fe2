"""A processing in C on this machine: built by its compiler as a shared library, and called through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgewright.core.errors import ConversionError, DataError, UnavailableError
from edgewright.core.tensors import Array
from edgewright.processing.c_code import FLAGS, CCore, write_core
from edgewright.processing.c_program import COptions
from edgewright.processing.planning import Plan
from edgewright.processing.processor import Execute, Raw, require_raw

_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")
_COMPILERS = ("cc", "gcc", "clang")
_TIMEOUT_S = 300
_DTYPES = ("float32", "int8", "uint8", "int16", "int32", "int64")
_FORMATS = {"rgb": 0, "bgr": 1, "rgba": 2, "bgra": 3, "grey": 4, "nv12": 5, "nv21": 6, "i420": 7}
VIDEO_RANGE = 256
CODES: Mapping[int, str] = {
    -1: "EW_BAD_ARGUMENT",
    -2: "EW_BAD_SIZE",
    -3: "EW_BAD_VALUE",
    -4: "EW_NO_ROOM",
    -5: "EW_BAD_ORDER",
    -6: "EW_UNALIGNED",
    -7: "EW_UNSUPPORTED",
}


class _Value(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int32 * 8),
    )


def host_compiler(name: str = "") -> str:
    """Return the path of the compiler called `name`; the first of cc, gcc and clang where that is empty.

    Raises:
        UnavailableError: there is none.
    """
    wanted = (name,) if name else _COMPILERS
    for known in wanted:
        found = shutil.which(known)
        if found:
            return found
    raise UnavailableError(
        f"no C compiler: {', '.join(wanted)} not found. Install one: apt-get install -y gcc"
    )


def build_library(core: CCore, library: Path, *, flags: Sequence[str] = FLAGS, cc: str = "") -> Path:
    """Return the shared library of `core`, built with every warning an error.

    Raises:
        UnavailableError: there is no compiler.
        ConversionError: it refused the code.
    """
    command = [
        host_compiler(cc), *flags, *_WARNINGS, "-shared", "-fPIC", "-I", str(core.folder), "-o", str(library),
        *map(str, core.sources),
    ]  # fmt: skip
    run_compiler(command, what=f"{core.name}_processing.c")
    return library


def run_compiler(command: Sequence[str], *, what: str) -> None:
    """Run the compiler that `command` begins with.

    Args:
        what: is built, for messages.
    Raises:
        ConversionError: it refused the code, or was not done after 300 s.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise ConversionError(f"{command[0]} had not built {what} after {_TIMEOUT_S} s.") from err
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ConversionError(f"{command[0]} cannot build {what}: {said[:400]}. Report it.")


class CProcessor:
    """Runs a processing in C, as `Processor` runs it in numpy, and keeps its states between runs.

    Args:
        checked: the specification, checked against its models.
        folder: where the sources and the library are written.
        library: one that `build_library` made of the same processing under the same name; nothing is compiled then.
    Raises:
        UnavailableError: there is no C compiler.
        ConversionError: a step has no C.
    """

    def __init__(
        self,
        checked: Plan,
        folder: Path,
        *,
        name: str = "host",
        options: COptions | None = None,
        flags: Sequence[str] = FLAGS,
        cc: str = "",
        library: Path | None = None,
    ) -> None:
        self.plan = checked
        self.core = write_core(checked, folder, name, options)
        built = library or build_library(self.core, folder / f"lib{name}.so", flags=flags, cc=cc)
        self._library = _typed(ctypes.CDLL(str(built)), name)
        self._what = getattr(self._library, f"{name}_processing")()
        size = self._library.ew_bytes(self._what)
        self._block = np.zeros(size // 8 + 2, dtype=np.int64)
        self._memory = self._block.ctypes.data
        self._check(self._library.ew_init(self._what, self._memory, size), "ew_init")
        self._kept: dict[int, Array] = {}

    @property
    def memory_bytes(self) -> int:
        """What the processing needs in all."""
        return int(self._library.ew_bytes(self._what))

    def reset(self) -> None:
        """Forget everything of earlier runs: a new stream begins."""
        self._check(self._library.ew_reset(self._memory), "ew_reset")

    def set_image(
        self,
        index: int,
        pixels: Array,
        *,
        width: int,
        height: int,
        row_bytes: int = 0,
        pixel_format: str = "rgb",
        rotation: int = 0,
        is_video_range: bool = False,
    ) -> int:
        """Give image input number `index` its bytes, and return the core's code."""
        held = np.ascontiguousarray(pixels)
        self._kept[index] = held
        number = _FORMATS[pixel_format] + (VIDEO_RANGE if is_video_range else 0)
        return int(
            self._library.ew_set_image(
                self._memory, index, held.ctypes.data, width, height, row_bytes, number, rotation
            )
        )

    def set_values(self, index: int, values: Array) -> int:
        """Give input number `index` its numbers, and return the core's code."""
        held = np.ascontiguousarray(values)
        self._kept[index] = held
        return int(self._library.ew_set_values(self._memory, index, held.ctypes.data, held.size))

    def set_inputs(self, raw: Mapping[str, Raw]) -> None:
        """Give every input what `Processor.run` takes.

        Raises:
            DataError: one is missing, has another type or shape, or the core refuses it.
        """
        for index, row in enumerate(self.plan.specification.inputs):
            # Before its address is handed over: the core reads as many bytes as the type says.
            array = require_raw(row.name, row.type, raw)
            if row.kind == "image":
                code = self.set_image(
                    index, array, width=array.shape[1], height=array.shape[0], pixel_format=row.order
                )
            else:
                code = self.set_values(index, array)
            self._check(code, f"input {row.name!r}")

    def compute(self, model: int = 0) -> None:
        """Make the inputs of model number `model` where they lie; the work of `prepare` without copies.

        Raises:
            DataError: the core refuses what the inputs were given.
        """
        self._check(self._library.ew_prepare(self._memory, model), "ew_prepare")

    def prepare(self, model: int = 0) -> dict[str, Array]:
        """Return the inputs of model number `model`, batch axis included.

        Raises:
            DataError: the core refuses what the inputs were given.
        """
        self.compute(model)
        ends = self.core.program.models[model].inputs
        return {end.spec.name: self.tensor(model, index).copy() for index, end in enumerate(ends)}

    def tensor(self, model: int, index: int) -> Array:
        """Return input number `index` of model number `model` where it lies; the next run overwrites it."""
        spec = self.core.program.models[model].inputs[index].spec
        shape = tuple(size or 1 for size in spec.shape)
        return self._at(self._library.ew_input(self._memory, model, index), shape, spec.dtype)

    def finish(self, model: int, outputs: Mapping[str, Array]) -> None:
        """Give the outputs of model number `model`, and make what follows from them.

        Raises:
            DataError: the core refuses them.
        """
        for index, tensor in enumerate(self.core.program.models[model].outputs):
            shape = tuple(size or 1 for size in tensor.spec.shape)
            place = self._at(self._library.ew_output(self._memory, model, index), shape, tensor.spec.dtype)
            place[...] = np.asarray(outputs[tensor.spec.name]).reshape(shape)
        self._check(self._library.ew_finish(self._memory, model), "ew_finish")

    def results(self) -> dict[str, Array]:
        """Return the results of the run, by name."""
        found = {}
        for index, (flow, _) in enumerate(self.core.program.results):
            value = _Value()
            self._check(self._library.ew_result(self._memory, index, ctypes.byref(value)), flow.name)
            shape = tuple(value.shape[: value.rank])
            found[flow.name] = self._at(value.data or 0, shape, _DTYPES[value.dtype]).copy()
        return found

    def run(self, raw: Mapping[str, Raw], execute: Execute) -> dict[str, Array]:
        """Return the results of one run, by name, as `Processor.run` does.

        Raises:
            DataError: the core refuses an input.
        """
        self.set_inputs(raw)
        for number, ends in enumerate(self.core.program.models):
            self.finish(number, execute(ends.name, self.prepare(number)))
        return self.results()

    def _at(self, address: int, shape: tuple[int, ...], dtype: str) -> Array:
        count = int(np.prod(shape))
        if count == 0:
            return np.empty(shape, dtype=dtype)
        size = count * np.dtype(dtype).itemsize
        memory = (ctypes.c_uint8 * size).from_address(address)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def _check(self, code: int, what: str) -> None:
        if code:
            raise DataError(
                f"the C processing answers {what} with {CODES.get(code, code)}; see ew_processing.h."
            )


def _typed(library: ctypes.CDLL, name: str) -> ctypes.CDLL:
    """Declare the functions of the core."""
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    for function, result, arguments in (
        (f"{name}_processing", pointer, []),
        ("ew_bytes", size, [pointer]),
        ("ew_init", number, [pointer, pointer, size]),
        ("ew_reset", number, [pointer]),
        ("ew_set_image", number, [pointer, number, pointer, *[number] * 5]),
        ("ew_set_yuv", number, [pointer, number, *[pointer] * 3, *[number] * 7]),
        ("ew_set_samples", number, [pointer, number, pointer, number]),
        ("ew_set_values", number, [pointer, number, pointer, number]),
        ("ew_prepare", number, [pointer, number]),
        ("ew_finish", number, [pointer, number]),
        ("ew_input", pointer, [pointer, number, number]),
        ("ew_output", pointer, [pointer, number, number]),
        ("ew_result", number, [pointer, number, pointer]),
        ("ew_label", ctypes.c_char_p, [pointer, number, number]),
    ):
        found = getattr(library, function)
        found.restype, found.argtypes = result, arguments
    return library
