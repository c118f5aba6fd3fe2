"""Bundles for C++: a CMake project around ONNX Runtime, OpenVINO or LiteRT."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from edgewright.core.errors import UsageError
from edgewright.core.files import write_text
from edgewright.core.tensors import Array
from edgewright.deploy import golden
from edgewright.deploy.api import Field, hop, input_text, is_stream, result_text
from edgewright.deploy.building import run_tool
from edgewright.deploy.cpp_runtimes import RUNTIMES, cmake_flags, missing, refusal
from edgewright.deploy.golden import Case, array_file, cases_text
from edgewright.deploy.names import check_distinct, plain_name, snake_case
from edgewright.deploy.records import Component, Content, Size, Written
from edgewright.deploy.templates import render
from edgewright.deploy.writing import (
    core_bytes,
    package_licence,
    write_c_core,
    write_cases,
    write_licences,
    write_model,
    write_processing,
)
from edgewright.processing.c_code import CCore
from edgewright.processing.values import ValueType

_BUILD_TIMEOUT_S = 900
_TYPES = {
    "classes": ("std::vector<Label>", "read_labels"),
    "boxes": ("std::vector<Box>", "read_boxes"),
    "keypoints": ("std::vector<Point>", "read_points"),
    "mask": ("Mask", "read_mask"),
    "audio": ("std::vector<float>", "read_samples"),
    "codes": ("std::vector<std::int32_t>", "read_codes"),
}
_ELEMENTS = {
    "float32": "float", "int8": "std::int8_t", "uint8": "std::uint8_t", "int16": "std::int16_t",
    "int32": "std::int32_t", "int64": "std::int64_t",
}  # fmt: skip
_MODEL_SUFFIXES = (".onnx", ".xml", ".tflite")


class CppPlatform:
    """A CMake project in C++17: a library with a typed API, a sample, the golden test."""

    name = "cpp"
    summary = "CMake project in C++17, with ONNX Runtime, OpenVINO or LiteRT"
    runtimes: tuple[str, ...] = tuple(RUNTIMES)
    options: Mapping[str, str] = {}

    def write(self, content: Content, folder: Path) -> Written:
        """Write the project; see `Platform.write`."""
        refused = refusal(content.runtime, content.model_files().values())
        if refused:
            raise UsageError(f"no C++ bundle: {refused}.")
        core = write_c_core(content, folder / "core")
        write_model(content, folder / "data" / "model")
        write_processing(content, folder / "data" / "processing")
        write_cases(content, folder / "data" / "golden")
        size = write_project(content, folder, core)
        runtime = RUNTIMES[content.runtime]
        write_licences(folder, {runtime.package: text} if (text := package_licence(runtime.package)) else {})
        component = Component(
            name=runtime.package,
            version=runtime.version,
            purl=f"{runtime.purl}{runtime.version}",
            licence=runtime.licence,
        )
        return Written(
            places={"model": "data/model", "processing": "data/processing", "golden": "data/golden"},
            components=(component,),
            sizes=(size,),
            notes=(
                f"written against {runtime.title} {runtime.version}; another version may give other bits",
            ),
        )

    def prove(self, content: Content, folder: Path) -> tuple[str, ...]:
        """Build with CMake and run the golden cases, where a compiler and the runtime are here."""
        return prove_project(content, folder, folder / "data")

    def inspect(self, folder: Path) -> Mapping[str, Sequence[str]]:
        """Return nothing: the project has no binaries of its own."""
        return {}


PLATFORM = CppPlatform()


def write_project(
    content: Content, folder: Path, core: CCore, *, core_place: str = "core", data_place: str = "data"
) -> Size:
    """Write CMakeLists.txt and the sources of the project; return what it weighs.

    Args:
        core: the processing in C, written before.
        core_place: where it lies, from `folder`.
        data_place: where the folders model, processing and golden lie, from `folder`.
    """
    runtime = RUNTIMES[content.runtime]
    namespace = snake_case(content.name)
    size = Size(
        abi=f"Linux {os.uname().machine}",
        model_bytes=content.model_bytes,
        runtime_bytes=runtime.size_bytes(),
        core_bytes=core_bytes(core),
    )
    values = _values(content) | {
        "core_sources": [path.name for path in core.sources],
        "core_place": core_place,
        "data_place": data_place,
        "is_part": core_place != "core",
        "sizes": (size,),
    }
    files = {
        "CMakeLists.txt": "CMakeLists.txt",
        "README.md": "README.md",
        f"include/{namespace}/{namespace}.hpp": "api.hpp",
        f"src/{namespace}.cpp": "api.cpp",
        "src/engine.hpp": "engine.hpp",
        "src/engine.cpp": "engine.cpp",
        "src/runtime.cpp": f"runtime_{content.runtime}.cpp",
        "app/main.cpp": "main.cpp",
        "test/selftest.cpp": "selftest.cpp",
    }
    for file, template in (files | dict(runtime.sources)).items():
        write_text(folder / file, render(f"cpp/{template}.j2", values))
    return size


def prove_project(content: Content, folder: Path, data: Path) -> tuple[str, ...]:
    """Build the project in `folder`, run the golden cases of `data`; return what was shown.

    Raises:
        ConversionError: it does not build, or fails its golden cases.
    """
    lacking = missing(content.runtime)
    if lacking:
        return (f"not built here: {lacking}",)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        build = Path(work) / "build"
        _run(["cmake", "-S", str(folder), "-B", str(build), *cmake_flags(content.runtime)], "configure")
        _run(["cmake", "--build", str(build), "--parallel", "2"], "build")
        selftest = build / f"{snake_case(content.name)}_selftest"
        _run([str(selftest), str(data)], "pass its golden cases")
    compiler = _run([os.environ.get("CXX", "c++"), "--version"], "say its version").splitlines()[0]
    return (
        f"built with {compiler}, -Wall -Wextra -Werror; {cases_text(len(content.cases))} passed on "
        f"{os.uname().machine}",
    )


def _values(content: Content) -> dict[str, object]:
    runtime = RUNTIMES[content.runtime]
    namespace = snake_case(content.name)
    inputs = [
        Field(
            name=row.name,
            field=plain_name(snake_case(row.name), "cpp"),
            kind=row.kind,
            text=input_text(content.plan.types[row.name], is_stream=is_stream(content)),
        )
        for row in content.plan.specification.inputs
    ]
    results = [
        {
            "name": name,
            "field": plain_name(snake_case(name), "cpp"),
            "type": _TYPES.get(made.kind, ("Values", "read_values"))[0],
            "reader": _TYPES.get(made.kind, ("Values", "read_values"))[1],
            "text": result_text(made),
        }
        for name, made in _results(content).items()
    ]
    check_distinct("inputs", [field.name for field in inputs], [field.field for field in inputs])
    check_distinct("results", list(_results(content)), [str(row["field"]) for row in results])
    return {
        "name": content.name,
        "namespace": namespace,
        "version": content.version,
        "runtime": content.runtime,
        "runtime_title": f"{runtime.title} {runtime.version}",
        "runtime_version": runtime.version,
        "runtime_text": runtime.text,
        "accelerator_text": runtime.accelerator_text,
        "cmake_hint": runtime.cmake_hint,
        "licence": "see manifest.json",
        "inputs": [
            asdict(field) | {"element": _ELEMENTS[content.plan.types[field.name].dtype]} for field in inputs
        ],
        "results": results,
        "parameters": ", ".join(
            f"{_parameter(content.plan.types[field.name])}{field.field}" for field in inputs
        ),
        "arguments": ", ".join(field.field for field in inputs),
        "kinds": sorted({"image" if field.kind == "image" else "numbers" for field in inputs}),
        "is_stream": is_stream(content),
        "hop": hop(content),
        "sample_use": _sample_use(inputs),
        "model_files": [name for name in content.model_files() if name.endswith(_MODEL_SUFFIXES)],
        "cases": _cases(content),
        "colour_format": _colour_format(content),
        "tolerances": {
            "tensor": golden.TENSOR_TOLERANCE,
            "tensor_steps": golden.TENSOR_STEPS,
            "score": golden.SCORE_TOLERANCE,
            "box": golden.BOX_TOLERANCE,
            "mask_agreement": golden.MASK_AGREEMENT,
            "value": golden.VALUE_TOLERANCE,
        },
    }


def _results(content: Content) -> dict[str, ValueType]:
    made = content.plan.results
    return {flow.name: made[flow.name] for flow in content.plan.specification.results}


def _parameter(made: ValueType) -> str:
    if made.kind == "image":
        return "const Image &"
    if made.kind == "text":
        raise UsageError("a text is no input of a C++ bundle: the C core has no tokenizer.")
    return f"const std::vector<{_ELEMENTS[made.dtype]}> &"


def _sample_use(inputs: Sequence[Field]) -> str:
    if all(field.kind == "image" for field in inputs):
        return "it reads a PPM, as ImageMagick's `convert photo.jpg photo.ppm` writes one, and prints the results"
    return "it reads raw little-endian numbers and prints the results"


def _cases(content: Content) -> list[dict[str, object]]:
    tensors = [spec.name for spec in next(iter(content.artifacts.values())).inputs]
    return [
        {
            "name": case.name,
            "inputs": _arrays(number, "inputs", case.raw),
            "tensors": _arrays(number, "tensors", case.tensors),
            "tensor_index": [tensors.index(name) for name in case.tensors],
            "results": _arrays(number, "results", case.results),
            "runs": _runs(content, case),
            "side": max((max(array.shape[:2]) for array in case.raw.values() if array.ndim == 3), default=1),
        }
        for number, case in enumerate(content.cases)
    ]


def _arrays(number: int, group: str, arrays: Mapping[str, Array]) -> list[dict[str, object]]:
    return [
        {"file": array_file(number, group, index), "shape": list(array.shape)}
        for index, array in enumerate(arrays.values())
    ]


def _runs(content: Content, case: Case) -> int:
    samples = hop(content)
    return next(iter(case.raw.values())).size // samples if samples else 1


def _colour_format(content: Content) -> str:
    """Return the format of raw pixels of three channels, whose order is the same for all image inputs of a case."""
    orders = {
        content.plan.types[row.name].order for row in content.plan.specification.inputs if row.kind == "image"
    }
    return "EW_BGR" if "bgr" in orders else "EW_RGB"


def _run(command: Sequence[str], what: str) -> str:
    return run_tool(
        command,
        failure=f"the C++ bundle does not {what}",
        quoted=slice(-6, None),
        most_characters=1200,
        timeout_s=_BUILD_TIMEOUT_S,
    ).stdout
