"""The files of a LiteRT Micro artifact: the model as a C array, its resolver, an example and a README."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from edgewright.backends.litert_file import real_text
from edgewright.backends.tflm_measure import Arena
from edgewright.core.errors import IntegrityError

ALIGNMENT = 16
MAX_MODEL_BYTES = 64 << 20
_BYTES_PER_LINE = 20
_SHOWN_NAME = 60
# dtype -> its type in C, and the member of a tensor's data that points to it
_C_TYPES: Mapping[str, tuple[str, str]] = {
    "int8": ("int8_t", "int8"),
    "int16": ("int16_t", "i16"),
    "int32": ("int32_t", "i32"),
    "int64": ("int64_t", "i64"),
    "float32": ("float", "f"),
    "bool": ("bool", "b"),
}
DTYPES = tuple(_C_TYPES)
_LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767)}


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of the model as the device sees it; `scale` is 0 where its values are not quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    @property
    def is_quantized(self) -> bool:
        """True when real = scale * (q - zero point)."""
        return self.scale > 0.0 and self.dtype in _LIMITS


@dataclass(frozen=True, kw_only=True)
class TflmModel:
    """What the files are made of.

    Attributes:
        name: an identifier of C.
        content: the `.tflite` file.
        methods: of the resolver, each once.
        arena: None where it was not measured.
        interpreter: the version that measured.
    """

    name: str
    content: bytes
    sha256: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    methods: tuple[str, ...]
    arena: Arena | None
    interpreter: str

    @property
    def macro(self) -> str:
        """The prefix of macros."""
        return f"{self.name.upper()}_MODEL"


def file_texts(model: TflmModel) -> dict[str, str]:
    """Return file name -> text; the first is the one that holds the model."""
    return {
        f"{model.name}_model.cc": array_text(model.name, model.content),
        f"{model.name}_model.h": header_text(model),
        f"{model.name}_resolver.h": _resolver_text(model),
        "main.cc": _example_text(model),
        "README.md": _readme_text(model),
    }


def array_text(name: str, content: bytes) -> str:
    """Return NAME_model.cc."""
    lines = [
        "0x" + content[start : start + _BYTES_PER_LINE].hex(",").replace(",", ",0x") + ","
        for start in range(0, len(content), _BYTES_PER_LINE)
    ]
    body = "\n".join(lines)
    return (
        f'#include "{name}_model.h"\n\n'
        f"alignas({ALIGNMENT}) const unsigned char {name}_model_data[] = {{\n{body}\n}};\n"
        f"const unsigned int {name}_model_data_bytes = {len(content)};\n"
    )


def array_content(text: str) -> bytes:
    """Return the bytes of the array in NAME_model.cc; nothing where there is none."""
    _, _, body = text.partition("[] = {")
    digits = body.partition("}")[0].replace("0x", "").replace(",", "")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""


def arena_bytes(text: str) -> int:
    """Return the arena that NAME_model.h states; 0 where it was not measured."""
    found = re.search(r"^#define \w+_ARENA_BYTES (\d{1,9})$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def read_delivered(source: Path) -> tuple[bytes, int]:
    """Return the model in NAME_model.cc, and the arena that NAME_model.h beside it states: 0 where it was not measured.

    Raises:
        IntegrityError: a file is missing, or not what this version writes.
    """
    name = source.name.removesuffix("_model.cc")
    header = source.with_name(f"{name}_model.h")
    for file in (source, header):
        if not file.is_file() or file.stat().st_size > 8 * MAX_MODEL_BYTES:
            raise IntegrityError(f"{file} is missing or too large. Build it again.")
    text = source.read_text(encoding="utf-8", errors="replace")
    content = array_content(text)
    if not content or text != array_text(name, content):
        raise IntegrityError(f"{source} is not what this version of Edgewright writes. Build it again.")
    return content, arena_bytes(header.read_text(encoding="utf-8", errors="replace"))


def header_text(model: TflmModel) -> str:
    """Return NAME_model.h, for C and C++."""
    name, macro = model.name, model.macro
    parts = [
        f"/* The model {name} for LiteRT Micro: made by Edgewright. Do not edit: build it again.\n"
        f" * model  sha256 {model.sha256}\n */\n"
        f"#ifndef {macro}_H\n#define {macro}_H\n\n#include <stdint.h>\n",
        _arena_text(model),
        '#ifdef __cplusplus\nextern "C" {\n#endif\n'
        f"extern const unsigned char {name}_model_data[]; /* aligned to {ALIGNMENT} bytes */\n"
        f"extern const unsigned int {name}_model_data_bytes;\n"
        "#ifdef __cplusplus\n}\n#endif\n",
    ]
    for side, ports in (("input", model.inputs), ("output", model.outputs)):
        for position, port in enumerate(ports):
            parts.append(_port_text(model, side, _numbered(side, position, ports), port))
    return "\n".join((*parts, f"#endif /* {macro}_H */\n"))


def _arena_text(model: TflmModel) -> str:
    macro, arena = model.macro, model.arena
    if arena is None:
        return (
            "/* The arena was not measured, for the interpreter was not installed: define it before this header. */\n"
            f"#ifndef {macro}_ARENA_BYTES\n"
            f'#error "define {macro}_ARENA_BYTES; it was not measured (edgewright toolchain install tflm)"\n#endif\n'
        )
    lasting = arena.total_bytes - arena.activation_bytes
    return (
        f"/* The smallest arena in which LiteRT Micro {model.interpreter} ran the model, on a 64-bit machine\n"
        f" * with the reference kernels: {arena.activation_bytes} bytes of tensors and scratch, {lasting} that last.\n"
        " * Pointers are half as wide on a 32-bit core; optimized kernels may ask for more scratch. */\n"
        f"#define {macro}_ARENA_BYTES {arena.total_bytes}\n"
    )


def _port_text(model: TflmModel, side: str, label: str, port: Port) -> str:
    macro = f"{model.macro}_{label.upper()}"
    kind, _ = _C_TYPES[port.dtype]
    shape = " x ".join(map(str, port.shape)) or "one value"
    head = (
        f"/* {label.replace('_', ' ')}, {plain(port.name)}: {kind}, {shape} */\n"
        f"#define {macro}_COUNT {prod(port.shape)}\n"
    )
    if not port.is_quantized:
        return head
    low, high = _LIMITS[port.dtype]
    head += f"#define {macro}_SCALE {_literal(port.scale)}\n#define {macro}_ZERO_POINT ({port.zero_point})\n"
    if side == "output":
        return head + (
            f"static inline float {model.name}_dequantize_{label}({kind} value) {{\n"
            f"  return {macro}_SCALE * (float)((int32_t)value - {macro}_ZERO_POINT);\n}}\n"
        )
    return head + (
        "/* Rounds half away from zero, as QUANTIZE does; what is out of range becomes the nearest end. */\n"
        f"static inline {kind} {model.name}_quantize_{label}(float value) {{\n"
        f"  const float steps = value / {macro}_SCALE;\n"
        f"  int32_t whole;\n"
        f"  if (!(steps > {low - port.zero_point}.0f)) {{\n    return {low};\n  }}\n"
        f"  if (steps >= {high - port.zero_point}.0f) {{\n    return {high};\n  }}\n"
        f"  whole = (int32_t)steps;\n"
        f"  if (steps - (float)whole >= 0.5f) {{\n    ++whole;\n"
        f"  }} else if (steps - (float)whole <= -0.5f) {{\n    --whole;\n  }}\n"
        f"  return ({kind})(whole + {macro}_ZERO_POINT);\n}}\n"
    )


_NAMES = """\
namespace tflite {
namespace micro {}
}  // namespace tflite
"""


def _resolver_text(model: TflmModel) -> str:
    name, macro = model.name, model.macro
    calls = "\n".join(
        f"  if (resolver.{method}() != kTfLiteOk) {{\n    return kTfLiteError;\n  }}"
        for method in model.methods
    )
    return (
        f"// The operators of {name}, and no others: {len(model.methods)} of them.\n"
        f"#ifndef {macro}_RESOLVER_H\n#define {macro}_RESOLVER_H\n\n"
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n\n'
        "// LiteRT Micro moved its names from tflite and the global namespace into tflite::micro: both are found.\n"
        f"{_NAMES}\n"
        f"namespace {name}_model {{\n\n"
        "using namespace ::tflite;         // NOLINT\nusing namespace ::tflite::micro;  // NOLINT\n\n"
        f"using Resolver = MicroMutableOpResolver<{len(model.methods)}>;\n\n"
        "inline TfLiteStatus AddOperators(Resolver& resolver) {\n"
        f"{calls}\n  return kTfLiteOk;\n}}\n\n"
        f"}}  // namespace {name}_model\n\n"
        f"#endif  // {macro}_RESOLVER_H\n"
    )


def _example_text(model: TflmModel) -> str:
    name, macro = model.name, model.macro
    fills = "\n".join(_fill_text(model, i, port) for i, port in enumerate(model.inputs))
    uses = "\n".join(_use_text(model, i, port) for i, port in enumerate(model.outputs))
    return f"""\
// An example for {name}: read the inputs, run the model, use the outputs, for ever. Change the two functions below.
#include <stddef.h>
#include <stdint.h>

#include "{name}_model.h"
#include "{name}_resolver.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {name}_model {{
namespace {{

alignas({ALIGNMENT}) uint8_t arena[{macro}_ARENA_BYTES];

// Returns value number `index` of input number `input`: a sensor, a feature, a pixel.
float ReadValue(int input, size_t index) {{
  (void)input;
  (void)index;
  return 0.0f;
}}

// Takes value number `index` of output number `output`.
void UseValue(int output, size_t index, float value) {{
  (void)output;
  (void)index;
  (void)value;
}}

int Main() {{
  InitializeTarget();
  const Model* model = GetModel({name}_model_data);
  if (model->version() != TFLITE_SCHEMA_VERSION) {{
    return 1;
  }}
  static Resolver resolver;
  if (AddOperators(resolver) != kTfLiteOk) {{
    return 2;
  }}
  static MicroInterpreter interpreter(model, resolver, arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) {{
    return 3;  // the arena is too small, or a kernel refuses the model
  }}
  for (;;) {{
{fills}
    if (interpreter.Invoke() != kTfLiteOk) {{
      return 4;
    }}
{uses}
  }}
}}

}}  // namespace
}}  // namespace {name}_model

int main() {{ return {name}_model::Main(); }}
"""


def _fill_text(model: TflmModel, position: int, port: Port) -> str:
    label = _numbered("input", position, model.inputs)
    kind, member = _C_TYPES[port.dtype]
    value = f"ReadValue({position}, i)"
    if port.is_quantized:
        value = f"{model.name}_quantize_{label}({value})"
    elif port.dtype == "bool":
        value = f"{value} != 0.0f"
    elif port.dtype != "float32":
        value = f"static_cast<{kind}>({value})"
    return (
        f"    {kind}* const {label} = interpreter.input({position})->data.{member};\n"
        f"    for (size_t i = 0; i < {model.macro}_{label.upper()}_COUNT; ++i) {{\n"
        f"      {label}[i] = {value};\n    }}"
    )


def _use_text(model: TflmModel, position: int, port: Port) -> str:
    label = _numbered("output", position, model.outputs)
    kind, member = _C_TYPES[port.dtype]
    value = f"{label}[i]"
    if port.is_quantized:
        value = f"{model.name}_dequantize_{label}({value})"
    elif port.dtype == "bool":
        value = f"{value} ? 1.0f : 0.0f"
    elif port.dtype != "float32":
        value = f"static_cast<float>({value})"
    return (
        f"    const {kind}* const {label} = interpreter.output({position})->data.{member};\n"
        f"    for (size_t i = 0; i < {model.macro}_{label.upper()}_COUNT; ++i) {{\n"
        f"      UseValue({position}, i, {value});\n    }}"
    )


def _readme_text(model: TflmModel) -> str:
    name = model.name
    return f"""\
# {name} for LiteRT Micro

| file | what it is |
|---|---|
| `{name}_model.cc`, `{name}_model.h` | the model, {len(model.content):,} bytes of flash; arena, sizes, quantization |
| `{name}_resolver.h` | `MicroMutableOpResolver<{len(model.methods)}>` with the operators of this model alone |
| `main.cc` | an example: fill `ReadValue` and `UseValue` |

Add the four to a project that has LiteRT Micro (C++17). {_measured_text(model)}

{_table_text(model)}
"""


def _measured_text(model: TflmModel) -> str:
    if model.arena is None:
        return f"The arena was not measured: define `{model.macro}_ARENA_BYTES`."
    return (
        f"The model ran in an arena of {model.arena.total_bytes:,} bytes in LiteRT Micro {model.interpreter} on a "
        "64-bit machine with the reference kernels, and in no smaller one. A 32-bit core needs less for what lasts; "
        "optimized kernels (CMSIS-NN, ESP-NN) may ask for more scratch. Read `arena_used_bytes()` on the device, and "
        "cut the arena to it."
    )


def _table_text(model: TflmModel) -> str:
    rows = [
        (side, plain(port.name), port.dtype, " x ".join(map(str, port.shape)), _quantization_text(port))
        for side, ports in (("input", model.inputs), ("output", model.outputs))
        for port in ports
    ]
    lines = ["| | name | type | shape | real value |", "|---|---|---|---|---|"]
    lines += [
        f"| {side} | `{name}` | {dtype} | {shape} | {real} |" for side, name, dtype, shape, real in rows
    ]
    if model.arena is not None:
        lines += ["", "| arena | bytes |", "|---|---|"]
        lines.append(f"| tensors and scratch, shared over time | {model.arena.activation_bytes:,} |")
        lines += [f"| {plain(name)} | {count:,} |" for name, count in model.arena.sections.items()]
    return "\n".join(lines)


def _quantization_text(port: Port) -> str:
    return real_text(port.scale, port.zero_point) if port.is_quantized else "as it is"


def plain(text: str) -> str:
    """Return a name of the model so that it can end no comment, cell or line."""
    shown = text if len(text) <= _SHOWN_NAME else text[: _SHOWN_NAME - 3] + "..."
    return re.sub(r"[^A-Za-z0-9_.:; -]", "_", shown)


def _numbered(side: str, position: int, ports: Sequence[Port]) -> str:
    return f"{side}_{position}" if len(ports) > 1 else side


def _literal(value: float) -> str:
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
