"""Bundles for the browser: an ES module, a page around it, and the runtime, all in one folder."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from edgewright.core.artifact import Artifact
from edgewright.core.errors import UnavailableError, UnknownNameError, UsageError
from edgewright.core.files import read_json, sha256_of, write_json, write_text
from edgewright.deploy.api import hop, input_text, is_stream, result_text
from edgewright.deploy.manifest import list_files
from edgewright.deploy.names import camel_case, snake_case
from edgewright.deploy.readme import README_NAME
from edgewright.deploy.records import Component, Content, Size, Written
from edgewright.deploy.templates import render
from edgewright.deploy.web_proof import prove_page
from edgewright.deploy.web_runtimes import RUNTIMES, WebRuntime
from edgewright.deploy.writing import (
    write_c_core,
    write_cases,
    write_licences,
    write_model,
    write_processing,
)
from edgewright.processing.c_code import CCore
from edgewright.processing.c_program import CTensor
from edgewright.processing.c_wasm import STRING_H, build_wasm, wasm_flags
from edgewright.processing.streaming import lags
from edgewright.processing.values import ValueType

FILES_NAME = "files.json"
# What is tried, in order, by what the option names.
CHAINS: Mapping[str, tuple[str, ...]] = {"wasm": ("wasm",), "webgpu": ("webgpu", "wasm")}
TITLES = {"wasm": "on the CPU", "webgpu": "on the GPU"}
_TYPES = {
    "classes": "Label[]",
    "boxes": "Box[]",
    "keypoints": "Point[]",
    "mask": "Mask",
    "audio": "Float32Array",
    "codes": "Code[]",
}
_ARRAYS = {
    "float32": "Float32Array", "int8": "Int8Array", "uint8": "Uint8Array", "int16": "Int16Array",
    "int32": "Int32Array", "int64": "BigInt64Array",
}  # fmt: skip
# What is large or not of the page is kept offline when it is first used, so that it is not fetched twice.
_KEPT_WHEN_USED = (
    "data/model/", "data/processing/", "data/golden/", "vendor/", "core/source/", "core/freestanding/",
    "core/build.sh", "LICENSES/", "README.md", "serve.py", "update.py", "package.json",
)  # fmt: skip


class WebPlatform:
    """An ES module with a typed API, a page for camera, files and microphone, and the golden test."""

    name = "web"
    summary = "ES module and page, with ONNX Runtime Web or LiteRT.js"
    runtimes: tuple[str, ...] = ("onnxruntime", "litert")
    options: Mapping[str, str] = {
        "accelerator": f"what is tried first: {' or '.join(CHAINS)}; default wasm, which is the CPU",
    }

    def write(self, content: Content, folder: Path) -> Written:
        """Write the project; see `Platform.write`."""
        runtime = RUNTIMES[content.runtime]
        for artifact in content.artifacts.values():
            if runtime.refusal is not None and (why := runtime.refusal(artifact)):
                raise UsageError(why)
        chain = _chain_of(content.options)
        values = _values(content, runtime, chain)
        module = snake_case(content.name)
        core = write_c_core(content, folder / "core" / "source")
        wasm = build_wasm(core, folder / "core" / "processing.wasm")
        write_text(folder / "core" / "freestanding" / "string.h", STRING_H)
        runtime.write(folder / "vendor", chain)
        write_model(content, folder / "data" / "model")
        write_processing(content, folder / "data" / "processing")
        write_cases(content, folder / "data" / "golden")
        write_json(folder / "data" / "interface.json", _interface(content, core, runtime, chain))
        sizes, values["sizes"] = _sizes(content, folder, runtime, chain, wasm)
        for file in _STATIC:
            write_text(folder / file, _template_text(file))
        write_text(folder / "lib" / "runtime.js", _template_text(f"lib/runtime_{content.runtime}.js"))
        for file, template in {
            f"{module}.js": "api.js",
            f"{module}.d.ts": "api.d.ts",
            "index.html": "index.html",
            "selftest.html": "selftest.html",
            "lib/model.js": "model.js",
            "serve.py": "serve.py",
            "update.py": "update.py",
            "core/build.sh": "build.sh",
            "README.md": "README.md",
            "package.json": "package.json",
        }.items():
            write_text(folder / file, render(f"web/{template}.j2", values))
        write_licences(folder, runtime.licences())
        _write_offline(module, folder)
        return Written(
            places={"model": "data/model", "processing": "data/processing", "golden": "data/golden"},
            components=tuple(
                Component(
                    name=package.name,
                    version=package.version,
                    purl=package.purl,
                    licence=package.licence,
                    is_shipped=True,
                )
                for package in runtime.packages
            ),
            sizes=sizes,
            notes=(
                "several threads need the headers COOP and COEP, as serve.py sends them; elsewhere the service worker "
                "adds them from the second visit on",
            ),
        )

    def prove(self, content: Content, folder: Path) -> tuple[str, ...]:
        """Run self-test and page in a headless Chromium, from the server and without it."""
        try:
            return prove_page(folder, with_gpu="webgpu" in _chain_of(content.options))
        except UnavailableError as err:
            return (f"not run here: {err}",)

    def inspect(self, folder: Path) -> Mapping[str, Sequence[str]]:
        """Return whether the list that the self-test and the service worker go by is that of the files."""
        return {"files.json": _unlisted(folder)}


PLATFORM = WebPlatform()
# Written as they are; lib/runtime.js comes of one of two.
_STATIC = (
    "app.js", "style.css", "icon.svg", "selftest.js", "selftest_page.js",
    "lib/accelerators.js", "lib/core.js", "lib/engine.js", "lib/images.js", "lib/sound.js", "lib/listener.js",
    "lib/golden.js", "lib/offline.js", "lib/draw.js", "lib/panel.js",
)  # fmt: skip


def _template_text(file: str) -> str:
    return (resources.files("edgewright.deploy") / "templates" / "web" / file).read_text(encoding="utf-8")


def _values(content: Content, runtime: WebRuntime, chain: Sequence[str]) -> dict[str, object]:
    if content.name in _TAKEN:
        raise UsageError(f"a web bundle has something called {content.name} already. Choose another --name.")
    specification, made = content.plan.specification, content.plan.results
    inputs = [
        {
            "name": row.name,
            "field": camel_case(row.name, "javascript"),
            "kind": row.kind,
            "type": _input_type(content.plan.types[row.name]),
            "text": input_text(content.plan.types[row.name], is_stream=is_stream(content)),
        }
        for row in specification.inputs
    ]
    results = [
        {
            "name": flow.name,
            "field": camel_case(flow.name, "javascript"),
            "kind": made[flow.name].kind,
            "type": _TYPES.get(made[flow.name].kind, "Values"),
            "text": result_text(made[flow.name]) + _late_text(content, flow.name),
        }
        for flow in specification.results
    ]
    for what, rows in (("inputs", inputs), ("results", results)):
        fields = [row["field"] for row in rows]
        if len(set(fields)) != len(fields):
            raise UsageError(
                f"two {what} of the specification have one name in JavaScript: {', '.join(fields)}."
            )
    return {
        "name": content.name,
        "module": snake_case(content.name),
        "version": content.version,
        "runtime_title": runtime.title,
        "packages": [f"{package.name} {package.version}" for package in runtime.packages],
        "changes": runtime.changes,
        "accelerators": chain,
        "without_gpu": _WITHOUT_GPU[content.runtime],
        "policy": _POLICY,
        "flags": wasm_flags(snake_case(content.name)),
        "inputs": inputs,
        "results": results,
        "kinds": {row["kind"] for row in inputs},
        "is_stream": is_stream(content),
        "example": ", ".join(f"{row['field']}: {_EXAMPLES.get(row['kind'], 'numbers')}" for row in inputs),
    }


def _late_text(content: Content, name: str) -> str:
    lag = lags(content.plan).get(name, 0) if is_stream(content) else 0
    return f", {lag} samples behind the input" if lag else ""


_WITHOUT_GPU = {
    "onnxruntime": "The runtime's files for WebGPU are not in this bundle: make it with `--option accelerator=webgpu`.",
    "litert": "To try WebGPU first by itself, make the bundle with `--option accelerator=webgpu`.",
}


# Scripts and WebAssembly of this folder alone; images and sound may be made in the page.
_POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self' 'wasm-unsafe-eval'", "worker-src 'self'", "connect-src 'self'",
        "img-src 'self' blob: data:", "media-src 'self' blob:", "style-src 'self'", "base-uri 'none'",
        "form-action 'none'",
    )
)  # fmt: skip
_EXAMPLES = {"image": "photo", "audio": "samples"}


# Names of the module and of its types, of files beside it, and of what these use.
_TAKEN = frozenset(
    "App Selftest SelftestPage Sw Engine ProcessingError Error URL Math Object Promise Blob Label Point Box Mask Code "
    "Values Inputs Results Pixels Accelerator LoadOptions Runtime Description "
    "ImageInput ImageData CanvasImageSource Uint8ClampedArray".split()
) | set(_ARRAYS.values())


def _input_type(made: ValueType) -> str:
    if made.kind == "text":
        raise UsageError("a text is no input of a web bundle: the C core has no tokenizer.")
    return "ImageInput" if made.kind == "image" else f"{_ARRAYS[made.dtype]} | number[]"


def _interface(content: Content, core: CCore, runtime: WebRuntime, chain: Sequence[str]) -> dict[str, object]:
    """Return what the engine and the page have to know."""
    plan = content.plan
    late = lags(plan) if is_stream(content) else {}
    names = {
        name: runtime.tensor_names(artifact) if runtime.tensor_names else {}
        for name, artifact in content.artifacts.items()
    }

    def tensors(model: str, ends: Sequence[CTensor]) -> list[dict[str, object]]:
        return [
            {
                "name": end.spec.name,
                "runtime_name": names[model].get(end.spec.name, end.spec.name),
                "dtype": end.spec.dtype,
                "shape": [size or 1 for size in end.spec.shape],
            }
            for end in ends
        ]

    return {
        "name": content.name,
        "version": content.version,
        "task": plan.specification.task,
        "runtime": {"name": runtime.title, "version": runtime.packages[0].version},
        "accelerators": list(chain),
        "function": f"{core.name}_processing",
        "hop": hop(content),
        "inputs": [
            {
                "name": row.name,
                "field": camel_case(row.name, "javascript"),
                "kind": row.kind,
                "dtype": plan.types[row.name].dtype,
                "order": plan.types[row.name].order,
                "rate_hz": plan.types[row.name].rate_hz,
                "shape": [size or 0 for size in plan.types[row.name].shape],
            }
            for row in plan.specification.inputs
        ],
        "models": [
            {
                "files": [
                    {"name": f"{ends.name}/{own}" if ends.name else own, "bytes": file.stat().st_size}
                    for own, file in _files(content.artifacts[ends.name])
                ],
                "inputs": tensors(ends.name, ends.inputs),
                "outputs": tensors(ends.name, ends.outputs),
            }
            for ends in core.program.models
        ],
        "results": [
            {
                "name": flow.name,
                "field": camel_case(flow.name, "javascript"),
                "kind": plan.results[flow.name].kind,
                "labels": list(flow.labels),
                "lag": late.get(flow.name, 0),
            }
            for flow in plan.specification.results
        ],
    }


def _files(artifact: Artifact) -> Iterable[tuple[str, Path]]:
    return zip(artifact.names, artifact.files, strict=True)


def _chain_of(options: Mapping[str, str]) -> tuple[str, ...]:
    wanted = options.get("accelerator", "wasm")
    if wanted not in CHAINS:
        raise UnknownNameError.of("accelerator of a web bundle", wanted, CHAINS)
    return CHAINS[wanted]


def _sizes(
    content: Content, folder: Path, runtime: WebRuntime, chain: Sequence[str], wasm: Path
) -> tuple[tuple[Size, ...], dict[str, tuple[int, int]]]:
    """Return a record for each accelerator, and for the README bytes of each part, as they are and with gzip."""
    model = _bytes([folder / "data" / "model" / name for name in content.model_files()])
    core = _bytes([wasm])
    runtimes = {name: _bytes([folder / "vendor" / file for file in runtime.loaded[name]]) for name in chain}
    sizes = tuple(
        Size(
            abi="wasm32" if name == "wasm" else f"wasm32 and {name}",
            model_bytes=model[0],
            runtime_bytes=packed_runtime[0],
            core_bytes=core[0],
            note="with gzip, as servers send them: "
            f"model {model[1]:,}, runtime {packed_runtime[1]:,}, processing {core[1]:,}",
        )
        for name, packed_runtime in sorted(runtimes.items(), key=lambda row: row[0] != "wasm")
    )
    titles = {name: "runtime" if len(chain) == 1 else f"runtime, {TITLES[name]}" for name in chain}
    return sizes, {
        "model": model,
        **{titles[name]: counts for name, counts in runtimes.items()},
        "processing": core,
    }


def _bytes(files: Sequence[Path]) -> tuple[int, int]:
    """Return the bytes of files, as they are and with gzip."""
    return sum(file.stat().st_size for file in files), sum(_gzip_bytes(file) for file in files)


def _gzip_bytes(file: Path) -> int:
    return len(gzip.compress(file.read_bytes(), compresslevel=6))


def _write_offline(module: str, folder: Path) -> None:
    """Write the list of all files, and the service worker that goes by it; update.py does the same again."""
    # The README is finished later, and no page asks for it.
    files = {name: sha256_of(folder / name) for name in list_files(folder) if name != README_NAME}
    write_json(folder / FILES_NAME, {"later": list(_KEPT_WHEN_USED), "files": files})
    values: dict[str, object] = {"prefix": f"{module}-", "digest": sha256_of(folder / FILES_NAME)[:16]}
    write_text(folder / "sw.js", render("web/sw.js.j2", values))


def _unlisted(folder: Path) -> list[str]:
    """Return what differs between files.json and the files."""
    files = read_json(folder / FILES_NAME).get("files")
    if not isinstance(files, dict):
        return [f"{FILES_NAME} holds no list of files"]
    problems = []
    for name, digest in files.items():
        path = folder / str(name)
        if not path.is_file() or sha256_of(path) != digest:
            problems.append(f"{name} is not the file that {FILES_NAME} describes")
    return problems
