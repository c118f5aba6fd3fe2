"""Bundles for iOS and macOS: a Swift package around Core ML or ONNX Runtime."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from edgewright.core.artifact import PACKAGE_SUFFIX
from edgewright.core.errors import ConversionError, UsageError
from edgewright.core.files import write_text
from edgewright.deploy.api import hop, input_text, is_stream, result_text
from edgewright.deploy.building import run_tool
from edgewright.deploy.golden import cases_text
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

# A Debian root with `swiftlang`, where the compiler is not installed on the machine itself; its /tmp is the machine's.
ROOT_VARIABLE = "EDGEWRIGHT_SWIFT_ROOT"
_SWIFT_ONNXRUNTIME = "1.20.0"
_TIMEOUT_S = 900
_TYPES = {
    "classes": ("[Label]", "labels"),
    "boxes": ("[Box]", "boxes"),
    "keypoints": ("[Point]", "points"),
    "mask": ("Mask", "mask"),
    "codes": ("[Int]", "codes"),
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
        write_model(content, home / "Resources" / "model")
        write_processing(content, home / "Resources" / "processing")
        write_cases(content, home / "Resources" / "golden")
        values = _values(content)
        sources = {
            "Package.swift": "Package.swift",
            "README.md": "README.md",
            f"Sources/{name}/{name}.swift": "Api.swift",
            f"Sources/{name}/Core.swift": "Core.swift",
            f"Sources/{name}/Model.swift": "Model.swift",
            f"Sources/{name}/Engine.swift": "Engine.swift",
            f"Sources/{name}/Golden.swift": "Golden.swift",
            f"Sources/{name}/Runtime.swift": f"runtime_{content.runtime}.swift",
            f"Tests/{name}Tests/GoldenTests.swift": "GoldenTests.swift",
            f"App/{name}App.swift": "App.swift",
        }
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
        places = {kind: f"Sources/{name}/Resources/{kind}" for kind in ("model", "processing", "golden")}
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
        """Run the processing with its golden cases, and type-check the rest, where a Swift compiler is here."""
        swiftc = _swiftc()
        if swiftc is None:
            return (
                "not compiled here: no swiftc (Debian 13: apt-get install -y swiftlang; a root of its own is named in "
                f"{ROOT_VARIABLE})",
            )
        with tempfile.TemporaryDirectory(prefix="edgewright-", dir=_shared_folder()) as work:
            said = _prove(content, folder, Path(work), swiftc)
        version = _run([*swiftc, "--version"], "say its version").splitlines()[0].strip()
        return tuple(f"{text} ({version}, Linux)" for text in said)

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
        "first_result": results[0]["field"],
        "has_image": len(rows) == 1 and rows[0].kind == "image",
        "is_stream": is_stream(content),
        "hop": hop(content),
        "models": _models(content),
    }


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


def _prove(content: Content, folder: Path, work: Path, swiftc: Sequence[str]) -> list[str]:
    """Return what was shown with the Swift compiler in `work`.

    Raises:
        ConversionError: it refuses the package, or a golden case fails.
    """
    name = content.name
    c_home, home = folder / "Sources" / f"C{name}", folder / "Sources" / name
    shutil.copytree(c_home, work / "c")
    names = sorted(path.name for path in (work / "c" / "include").iterdir())
    headers = "\n".join(f'    header "{header}"' for header in names)
    write_text(
        work / "c" / "include" / "module.modulemap", f"module C{name} {{\n{headers}\n    export *\n}}\n"
    )
    stubs = files("edgewright.deploy") / "templates" / "ios" / "stubs"
    for stub in ("CoreML.swift", "OnnxRuntimeBindings.swift", "SwiftUI.swift", "Bundle.swift"):
        write_text(work / "stubs" / stub, (stubs / stub).read_text(encoding="utf-8"))
    runtime = "CoreML" if content.runtime == "coreml" else "OnnxRuntimeBindings"
    modules = ["-I", str(work), "-I", str(work / "c" / "include")]
    _module(swiftc, work, runtime, [work / "stubs" / f"{runtime}.swift"], modules)
    for source in home.glob("*.swift"):
        shutil.copy(source, work / source.name)
    shutil.copytree(home / "Resources" / "golden", work / "golden")
    sources = sorted(work.glob("*.swift"))
    # The whole library, against declarations of the runtime: a module that the app can import.
    _module(swiftc, work, name, [*sources, work / "stubs" / "Bundle.swift"], modules)
    app = "Swift package type-checked against stubs of " + (
        "Core ML" if runtime == "CoreML" else "ONNX Runtime"
    )
    for module in ("SwiftUI", "AVFoundation"):
        declared = work / "stubs" / f"{module}.swift"
        if module == "AVFoundation":
            write_text(declared, "@_exported import SwiftUI\n")
        _module(swiftc, work, module, [declared], modules)
    sample = work / "app" / "App.swift"
    sample.parent.mkdir()
    shutil.copy(folder / "App" / f"{name}App.swift", sample)
    _run([*swiftc, "-typecheck", "-parse-as-library", *modules, str(sample)], "type-check its sample app")
    # The processing for real: the same Swift files and the same C, the models replaced by what they gave.
    objects = _objects(work)
    write_text(work / "main.swift", render("ios/main.swift.j2", _values(content)))
    parts = [
        str(work / f"{part}.swift") for part in ("Core", "Model", "Engine", "Golden", name, "Runtime", "main")
    ]
    parts.append(str(work / "stubs" / "Bundle.swift"))
    runtime_source = str(work / "stubs" / f"{runtime}.swift")
    _run(
        [
            *swiftc,
            "-c",
            "-parse-as-library",
            "-module-name",
            runtime,
            "-o",
            str(work / "runtime.o"),
            runtime_source,
        ],
        "compile the stubs",
    )
    binary = work / "selftest"
    link = [str(work / "runtime.o"), *map(str, objects)]
    _run([*swiftc, "-module-name", f"{name}Test", *modules, "-o", str(binary), *parts, *link], "compile")
    _run([*_prefix(), str(binary), str(work / "golden")], "pass its golden cases")
    return [
        f"{cases_text(len(content.cases))} passed in Swift over the C core, with recorded outputs of the model",
        f"{app}, its sample app against stubs of SwiftUI and AVFoundation; not built with Xcode",
    ]


def _module(
    swiftc: Sequence[str], work: Path, name: str, sources: Sequence[Path], flags: Sequence[str]
) -> None:
    command = [*swiftc, "-emit-module", "-parse-as-library", "-enable-testing", "-module-name", name, *flags]
    _run([*command, "-o", str(work / f"{name}.swiftmodule"), *map(str, sources)], f"type-check {name}")


def _objects(work: Path) -> list[Path]:
    """Compile the C of the core; return its object files."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise ConversionError("the Swift bundle cannot be run: there is no C compiler.")
    objects = []
    for source in sorted((work / "c").glob("*.c")):
        made = source.with_suffix(".o")
        flags = [
            "-std=c99",
            "-O2",
            "-ffp-contract=off",
            "-fPIC",
            "-I",
            str(work / "c" / "include"),
            "-I",
            str(work / "c"),
        ]
        _run([compiler, *flags, "-c", str(source), "-o", str(made)], "compile its C")
        objects.append(made)
    return objects


def _prefix() -> list[str]:
    root = os.environ.get(ROOT_VARIABLE, "")
    return ["chroot", root] if root else []


def _swiftc() -> list[str] | None:
    if _prefix():
        return [*_prefix(), "/usr/bin/swiftc"]
    found = shutil.which("swiftc")
    return [found] if found else None


def _shared_folder() -> str | None:
    # The compiler in a root of its own sees the machine's /tmp alone.
    return "/tmp" if _prefix() else None


def _run(command: Sequence[str], what: str) -> str:
    done = run_tool(
        command,
        failure=f"the Swift bundle does not {what}",
        quoted=slice(12),
        most_characters=1600,
        timeout_s=_TIMEOUT_S,
    )
    return done.stdout + done.stderr
