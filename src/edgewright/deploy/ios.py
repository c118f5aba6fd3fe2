"""Bundles for iOS and macOS: a Swift package around Core ML or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from edgewright.core.artifact import PACKAGE_SUFFIX
from edgewright.core.errors import UsageError
from edgewright.core.files import write_text
from edgewright.core.tensors import Array
from edgewright.deploy.api import (
    hop,
    input_text,
    is_stream,
    microphone_samples,
    result_text,
    sample_input,
)
from edgewright.deploy.ios_proof import prove_package
from edgewright.deploy.names import camel_case, snake_case
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
from edgewright.processing.c_site import C_DTYPES
from edgewright.processing.values import ValueType

# The newest that the package manager's repository has; ONNX Runtime itself is ahead of it.
_SWIFT_ONNXRUNTIME = "1.24.2"
_TYPES = {
    "classes": ("[Label]", "labels"),
    "boxes": ("[Box]", "boxes"),
    "keypoints": ("[Point]", "points"),
    "mask": ("Mask", "mask"),
    "codes": ("[Int]", "codes"),
}
_SAMPLES = {
    "camera": "the camera's pictures through the model",
    "microphone": "the microphone's sound through the model",
    "inputs": "the model, once, on inputs of zeros",
}
_NUMBERS = {
    "float32": "Float",
    "int8": "Int8",
    "uint8": "UInt8",
    "int16": "Int16",
    "int32": "Int32",
    "int64": "Int64",
}
_TITLES = {"coreml": "Core ML", "onnxruntime": "ONNX Runtime"}


class IosPlatform:
    """A Swift package with an async API, a golden test, and a sample app's source."""

    name = "ios"
    summary = "Swift package for iOS and macOS, with Core ML or ONNX Runtime"
    runtimes: tuple[str, ...] = ("coreml", "onnxruntime")
    options: Mapping[str, str] = {}

    def write(self, content: Content, folder: Path) -> Written:
        """Write the package; see `Platform.write`."""
        name = content.name
        home, c_home = folder / "Sources" / name, folder / "Sources" / f"C{name}"
        core = write_c_core(content, c_home)
        for header in core.headers:
            # What the Swift side imports; SwiftPM takes `include` for the public ones.
            if header.name in ("ew_processing.h", f"{core.name}_processing.h"):
                (c_home / "include").mkdir(exist_ok=True)
                header.rename(c_home / "include" / header.name)
        tests = folder / "Tests" / f"{name}Tests"
        write_model(content, home / "Resources" / "model")
        write_processing(content, folder / "processing")
        write_cases(content, tests / "golden")
        values = _values(content)
        sources = {
            "Package.swift": "Package.swift",
            "README.md": "README.md",
            f"Sources/{name}/{name}.swift": "Api.swift",
            f"Sources/{name}/Core.swift": "Core.swift",
            f"Sources/{name}/Model.swift": "Model.swift",
            f"Sources/{name}/Engine.swift": "Engine.swift",
            f"Sources/{name}/Runtime.swift": f"runtime_{content.runtime}.swift",
            f"Sources/{name}/Resources/PrivacyInfo.xcprivacy": "PrivacyInfo.xcprivacy",
            f"Tests/{name}Tests/Golden.swift": "Golden.swift",
            f"Tests/{name}Tests/GoldenTests.swift": "GoldenTests.swift",
            f"App/{name}App.swift": "App.swift",
        }
        if values["sample"] != "inputs":
            sources |= {"App/Info.plist": "Info.plist", f"App/{name}App.entitlements": "App.entitlements"}
        for file, template in sources.items():
            write_text(folder / file, render(f"ios/{template}.j2", values))
        is_onnx = content.runtime == "onnxruntime"
        write_licences(
            folder, {"onnxruntime": text} if is_onnx and (text := package_licence("onnxruntime")) else {}
        )
        component = Component(
            name="onnxruntime-swift-package-manager",
            version=_SWIFT_ONNXRUNTIME,
            purl=f"pkg:swift/github.com/microsoft/onnxruntime-swift-package-manager@{_SWIFT_ONNXRUNTIME}",
            licence="MIT",
        )
        notes = [
            "written on a machine without Xcode: open it there once, and run the golden test on a device",
        ]
        if is_onnx:
            notes.append(
                f"ONNX Runtime {_SWIFT_ONNXRUNTIME} on the device, "
                f"{metadata.version('onnxruntime')} for the golden cases"
            )
        places = {
            "model": f"Sources/{name}/Resources/model",
            "processing": "processing",
            "golden": f"Tests/{name}Tests/golden",
        }
        return Written(
            places=places,
            components=(component,) if is_onnx else (),
            sizes=(
                Size(
                    abi="arm64 iOS",
                    model_bytes=content.model_bytes,
                    runtime_bytes=None if is_onnx else 0,
                    core_bytes=core_bytes(core, c_home / "include"),
                    note="Core ML is part of the system; the core measured on this machine"
                    if not is_onnx
                    else "the framework is not here to be measured; the core measured on this machine",
                ),
            ),
            notes=tuple(notes),
        )

    def prove(self, content: Content, folder: Path) -> tuple[str, ...]:
        """Build the package and run its test where SwiftPM is here; see `Platform.prove`."""
        golden = folder / "Tests" / f"{content.name}Tests" / "golden"
        return prove_package(folder, content.name, content.runtime, len(content.cases), golden)

    def inspect(self, folder: Path) -> Mapping[str, Sequence[str]]:
        """Return nothing: the package has no binaries of its own."""
        return {}


PLATFORM = IosPlatform()


def _values(content: Content) -> dict[str, object]:
    rows = content.plan.specification.inputs
    made = content.plan.results
    inputs = [
        {
            "name": row.name,
            "field": camel_case(row.name, "swift"),
            "kind": row.kind,
            "type": _parameter(content.plan.types[row.name]),
            "text": input_text(content.plan.types[row.name], is_stream=is_stream(content)),
        }
        for row in rows
    ]
    results = [
        {
            "name": flow.name,
            "field": camel_case(flow.name, "swift"),
            "type": _TYPES.get(made[flow.name].kind, ("[Float]", "numbers"))[0],
            "reader": _TYPES.get(made[flow.name].kind, ("[Float]", "numbers"))[1],
            "text": result_text(made[flow.name]),
        }
        for flow in content.plan.specification.results
    ]
    package = snake_case(content.name)
    readers = {str(row["reader"]) for row in results}
    sample = sample_input(content) or "inputs"
    first = content.plan.specification.inputs[0]
    return {
        "name": content.name,
        "package": package,
        "version": content.version,
        "runtime": content.runtime,
        "runtime_title": _TITLES[content.runtime],
        "swift_onnxruntime": _SWIFT_ONNXRUNTIME,
        "inputs": inputs,
        "results": results,
        "parameters": ", ".join(f"{row['field']}: {row['type']}" for row in inputs),
        "call": ", ".join(f"{row['field']}: {row['field']}" for row in inputs),
        "first_field": inputs[0]["field"],
        "has_labels": bool(readers & {"labels", "boxes"}),
        "has_label_rows": "labels" in readers,
        "has_points": bool(readers & {"points", "boxes"}),
        "has_point_rows": "points" in readers,
        "has_boxes": "boxes" in readers,
        "has_mask": "mask" in readers,
        "has_numbers": "numbers" in readers,
        "has_codes": "codes" in readers,
        "has_rows": bool(readers & {"labels", "boxes", "points"}),
        "has_pixels": any(row.kind == "image" for row in rows),
        "sample": sample,
        "sample_text": _SAMPLES[sample],
        "zeros": ", ".join(map(_zeros, inputs, content.cases[0].raw.values())),
        "rate_hz": first.rate_hz or 16_000,
        "samples": microphone_samples(content),
        "is_stream": is_stream(content),
        "hop": hop(content),
        "models": _models(content),
    }


def _zeros(row: Mapping[str, str], raw: Array) -> str:
    """Return an argument of `predict` that has the size of a golden input."""
    if row["kind"] == "image":
        height, width = raw.shape[:2]
        what = f".init(bytes: Array(repeating: 0, count: {raw.size}), width: {width}, height: {height})"
        return f"{row['field']}: {what}"
    return f"{row['field']}: Array(repeating: 0, count: {raw.size})"


def _parameter(made: ValueType) -> str:
    if made.kind == "image":
        return "Pixels"
    if made.kind == "text":
        raise UsageError("a text is no input of an iOS bundle: the C core has no tokenizer.")
    return f"[{_NUMBERS[made.dtype]}]"


def _models(content: Content) -> list[dict[str, object]]:
    models: list[dict[str, object]] = []
    for name, artifact in content.artifacts.items():
        own = artifact.names[0]
        package = next((part for part in Path(own).parts if part.endswith(PACKAGE_SUFFIX)), own)
        models.append(
            {
                "file": f"{name}/{package}" if name else package,
                "outputs": [
                    {
                        "name": spec.name,
                        "full": f"{name}.{spec.name}" if name else spec.name,
                        "shape": "[" + ", ".join(str(size) for size in spec.shape) + "]",
                        "c_dtype": C_DTYPES[spec.dtype],
                    }
                    for spec in content.plan.signatures[name].outputs
                ],
            }
        )
    return models
