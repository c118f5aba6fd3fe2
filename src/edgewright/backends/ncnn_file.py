"""ncnn's `.param` text: read with bounds on every count, without ncnn.

A file is the line `7767517`, the line `LAYERS BLOBS`, then a line per layer:
`type name inputs outputs input... output... id=value...`; an id at or below -23300 holds `count,value,...`.
Source: ncnn wiki, "param and model file structure".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, IntegrityError

MAGIC = "7767517"
MAX_PARAM_BYTES = 64 << 20
MAX_LAYERS = 1 << 17
MAX_TENSORS_PER_LAYER = 1 << 12
MAX_RANK = 4
_INTEGER = re.compile(r"-?\d{1,18}")
_PARAMETER = re.compile(r"(-?\d{1,9})=(.{0,1048576})", re.DOTALL)
# Input: its parameters by axis, the outermost first
_AXES = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}


@dataclass(frozen=True, kw_only=True)
class ParamLayer:
    """One line: a layer, the tensors ("blobs") that it reads and writes, and its parameters as they are spelled."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[int, str] = field(default_factory=dict)

    def integer(self, key: int, default: int = 0) -> int:
        """Return parameter `key` as an integer, or `default` where it is absent or no integer."""
        text = self.parameters.get(key, "")
        return int(text) if _INTEGER.fullmatch(text) else default

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that an Input layer declares, the outermost axis first and without a batch; empty if none."""
        known = {key for key in _AXES[MAX_RANK] if self.integer(key)}
        rank = next((rank for rank, keys in _AXES.items() if known == set(keys)), 0)
        return tuple(self.integer(key) for key in _AXES[rank]) if rank else ()

    def line(self) -> str:
        """Return the layer as a line of the file, columns padded as pnnx pads them."""
        words = [*self.inputs, *self.outputs, *(f"{key}={text}" for key, text in self.parameters.items())]
        head = f"{self.operator:<24} {self.name:<24} {len(self.inputs)} {len(self.outputs)}"
        return " ".join([head, *words])


def read_param(path: Path) -> list[ParamLayer]:
    """Return the layers of the `.param` file at `path`, in the order of execution.

    Raises:
        FormatMismatchError: it is no text `.param` file, or too large.
        IntegrityError: a count or a line is broken, or a tensor is read before it is written.
    """
    size = path.stat().st_size
    if size > MAX_PARAM_BYTES:
        raise FormatMismatchError(
            f"{path} has {size} bytes; a .param of at most {MAX_PARAM_BYTES} bytes is read."
        )
    content = path.read_bytes()
    if content[:8].split() != [MAGIC.encode()]:
        raise FormatMismatchError(
            f"{path} is no text .param of ncnn: it begins with {content[:8]!r}, expected {MAGIC}. "
            "A .param.bin is not read; give the text file."
        )
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as err:
        raise IntegrityError(
            f"{path} is damaged: byte {err.start} is no UTF-8. Convert the model again."
        ) from err
    counts = lines[1].split() if len(lines) > 1 else []
    if len(counts) != 2 or not all(
        count.isascii() and count.isdigit() and len(count) < 10 for count in counts
    ):
        raise _broken(path, 2, "layers and blobs are counted there")
    layer_count = int(counts[0])
    if layer_count > MAX_LAYERS:
        raise IntegrityError(f"{path} promises {layer_count} layers; at most {MAX_LAYERS} are read.")
    layers = [_layer(path, number, line) for number, line in enumerate(lines[2:], start=3) if line.strip()]
    if len(layers) != layer_count:
        raise IntegrityError(
            f"{path} has {len(layers)} layers, but its head promises {layer_count}. Convert the model again."
        )
    _check_order(path, layers)
    return layers


def write_param(layers: Sequence[ParamLayer], path: Path) -> None:
    """Write `layers` as the text `.param` file at `path`."""
    blobs = {name for layer in layers for name in (*layer.inputs, *layer.outputs)}
    lines = [MAGIC, f"{len(layers)} {len(blobs)}", *(layer.line() for layer in layers)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def with_shape(layer: ParamLayer, shape: Sequence[int]) -> ParamLayer:
    """Return the Input layer with `shape` (the outermost axis first, no batch) declared in it."""
    parameters = dict(zip(_AXES[len(shape)], map(str, shape), strict=True))
    return ParamLayer(
        operator=layer.operator,
        name=layer.name,
        inputs=layer.inputs,
        outputs=layer.outputs,
        parameters=dict(sorted(parameters.items())),
    )


def inputs_of(layers: Sequence[ParamLayer]) -> list[ParamLayer]:
    """Return the Input layers, `in0` of pnnx first."""
    return [layer for layer in layers if layer.operator == "Input"]


def results_of(layers: Sequence[ParamLayer]) -> list[str]:
    """Return the tensors that no layer reads: the outputs of the model, in the order of the file."""
    read = {name for layer in layers for name in layer.inputs}
    return [name for layer in layers for name in layer.outputs if name not in read]


def _layer(path: Path, number: int, line: str) -> ParamLayer:
    words = line.split()
    if len(words) < 4 or not all(word.isascii() and word.isdigit() and len(word) < 6 for word in words[2:4]):
        raise _broken(path, number, "type, name and the counts of inputs and outputs are expected")
    inputs, outputs = int(words[2]), int(words[3])
    if max(inputs, outputs) > MAX_TENSORS_PER_LAYER or len(words) < 4 + inputs + outputs:
        raise _broken(path, number, f"it promises {inputs} inputs and {outputs} outputs")
    parameters = {}
    for word in words[4 + inputs + outputs :]:
        found = _PARAMETER.fullmatch(word)
        if found is None:
            raise _broken(path, number, f"{word[:40]!r} is no id=value")
        parameters[int(found[1])] = found[2]
    return ParamLayer(
        operator=words[0],
        name=words[1],
        inputs=tuple(words[4 : 4 + inputs]),
        outputs=tuple(words[4 + inputs : 4 + inputs + outputs]),
        parameters=parameters,
    )


def _check_order(path: Path, layers: Sequence[ParamLayer]) -> None:
    written: set[str] = set()
    for layer in layers:
        missing = [name for name in layer.inputs if name not in written]
        if missing:
            raise IntegrityError(
                f"{path}: layer {layer.name[:80]!r} reads {missing[0][:80]!r} before it is written. "
                "Convert the model again."
            )
        written.update(layer.outputs)


def _broken(path: Path, number: int, why: str) -> IntegrityError:
    return IntegrityError(f"{path} is damaged in line {number}: {why}. Convert the model again.")
