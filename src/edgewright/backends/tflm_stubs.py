"""Stubs of the few declarations of LiteRT Micro that generated C++ uses, to type-check it where its sources are not.

They are no part of an artifact. The PyPI package of the interpreter has no headers, so nothing is built here: what
passes is called "type-checked against stubs".
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgewright.backends.tflm_operators import CUSTOM_METHODS, METHODS
from edgewright.core.errors import ConversionError

_COMPILERS = ("g++", "clang++", "c++")
_FLAGS = ("-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror")
_TIMEOUT_S = 300
LAYOUTS = ("tflite", "tflite::micro")  # where the classes are: before 2026, and since
_MICRO = "tensorflow/lite/micro"


def compiler() -> str:
    """Return the path of a C++ compiler, or nothing."""
    return next((path for name in _COMPILERS if (path := shutil.which(name))), "")


def type_check(sources: Sequence[Path], *, folder: Path, defines: Sequence[str] = ()) -> bool:
    """Check C++ files against the stubs, with the names of LiteRT Micro where they were and where they are.

    Args:
        folder: for the stubs; nothing else lies there.
        defines: macros, "NAME=VALUE".
    Returns:
        False where there is no compiler.
    Raises:
        ConversionError: what was generated does not compile, which is our fault.
    """
    path = compiler()
    if not path:
        return False
    for number, layout in enumerate(LAYOUTS):
        root = folder / str(number)
        for name, text in stub_files(layout).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        flags = [*_FLAGS, *(f"-D{define}" for define in defines), f"-I{root}"]
        try:
            done = subprocess.run(
                [path, *flags, *map(str, sources)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise ConversionError(f"{Path(path).name} did not end within {_TIMEOUT_S} s.") from err
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise ConversionError(
                f"the generated C++ does not compile against {layout}: {said[:300]!r}. "
                "Report it with the model, and use --to c."
            )
    return True


def stub_files(layout: str) -> dict[str, str]:
    """Return path -> text of the headers, with the classes in the namespace `layout`."""
    is_nested = layout == "tflite::micro"
    begin, end = ("namespace tflite {\nnamespace micro {\n", "}\n}\n") if is_nested else ("", "")
    methods = sorted({*METHODS.values(), *CUSTOM_METHODS.values()})
    adds = "\n".join(f"  TfLiteStatus {method}() {{ return kTfLiteOk; }}" for method in methods)
    opened, closed = (begin, end) if is_nested else ("namespace tflite {\n", "}\n")
    return {
        "tensorflow/lite/c/common.h": f"""\
#pragma once
#include <stddef.h>
#include <stdint.h>
{begin}enum TfLiteStatus {{ kTfLiteOk = 0, kTfLiteError = 1 }};
union TfLitePtrUnion {{
  int32_t* i32; int64_t* i64; float* f; bool* b; int16_t* i16; int8_t* int8; uint8_t* uint8; void* data;
}};
struct TfLiteTensor {{ TfLitePtrUnion data; size_t bytes; }};
{end}""",
        "tensorflow/lite/schema/schema_generated.h": """\
#pragma once
#include <stdint.h>
#define TFLITE_SCHEMA_VERSION (3)
namespace tflite {
struct Model { uint32_t version() const { return 3; } };
inline const Model* GetModel(const void* buffer) { return static_cast<const Model*>(buffer); }
}
""",
        f"{_MICRO}/micro_mutable_op_resolver.h": f"""\
#pragma once
#include "tensorflow/lite/c/common.h"
{opened}class MicroOpResolver {{}};
template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {{
 public:
{adds}
}};
{closed}""",
        f"{_MICRO}/micro_interpreter.h": f"""\
#pragma once
#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
{opened}class MicroResourceVariables;
class MicroProfilerInterface;
class MicroInterpreter {{
 public:
  MicroInterpreter(const ::tflite::Model* model, const MicroOpResolver& resolver, uint8_t* arena, size_t bytes,
                   MicroResourceVariables* variables = nullptr, MicroProfilerInterface* profiler = nullptr,
                   bool preserve_all_tensors = false);
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteTensor* input(size_t index);
  TfLiteTensor* output(size_t index);
  size_t arena_used_bytes() const;
}};
{closed}""",
        f"{_MICRO}/system_setup.h": f"#pragma once\n{opened}void InitializeTarget();\n{closed}",
    }
