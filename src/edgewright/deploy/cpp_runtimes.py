"""The runtimes that C++ projects are built with: where they are on this machine, and what CMake is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from edgewright.bundle_tools import CPP, HEADERS_FIX, find_headers


@dataclass(frozen=True, kw_only=True)
class CppRuntime:
    """One runtime, as its Python package brings it.

    Attributes:
        package: on the index.
        module: its folder where it is installed.
        licence: an SPDX expression.
        purl: its package URL up to the version.
        parts: what one model on the CPU needs of the module's folder, as patterns.
        cmake_hint: what the README adds to `cmake -B build`.
        text: where CMake finds it, for the README.
        accelerator_text: which accelerators there are, for the README.
        sources: more files of the project, template or plain file by its place.
    """

    title: str
    package: str
    module: str
    licence: str
    purl: str
    parts: tuple[str, ...]
    cmake_hint: str
    text: str
    accelerator_text: str
    sources: Mapping[str, str]

    @property
    def version(self) -> str:
        """The version that is installed here, which projects are written against."""
        return metadata.version(self.package)

    @property
    def folder(self) -> Path | None:
        """Where the module lies on this machine; None where it is not installed."""
        spec = find_spec(self.module)
        places = spec.submodule_search_locations if spec is not None else None
        return Path(places[0]) if places else None

    def size_bytes(self) -> int | None:
        """Return the bytes of `parts` on this machine; None where they are not here."""
        folder = self.folder
        if folder is None:
            return None
        return sum(file.stat().st_size for pattern in self.parts for file in folder.glob(pattern)) or None


RUNTIMES: Mapping[str, CppRuntime] = {
    "onnxruntime": CppRuntime(
        title="ONNX Runtime",
        package="onnxruntime",
        module="onnxruntime",
        licence="MIT",
        purl="pkg:github/microsoft/onnxruntime@v",
        parts=("capi/libonnxruntime.so.*",),
        cmake_hint=" -DONNXRUNTIME_ROOT=DIR_OF_THE_RELEASE",
        text="`DIR_OF_THE_RELEASE` is an unpacked release of ONNX Runtime, with `include/` and `lib/`.",
        accelerator_text="`gpu` is CUDA, where your ONNX Runtime was built with it; it was not tried where this was "
        "made. There is no `npu`.",
        sources={},
    ),
    "openvino": CppRuntime(
        title="OpenVINO",
        package="openvino",
        module="openvino",
        licence="Apache-2.0",
        purl="pkg:github/openvinotoolkit/openvino@",
        parts=(
            "libs/libopenvino.so.*",
            "libs/libopenvino_intel_cpu_plugin.so",
            "libs/libopenvino_ir_frontend.so.*",
            "libs/libtbb.so.*",
            "libs/libhwloc.so.*",
        ),
        cmake_hint="",
        text="CMake finds OpenVINO in the Python package of `python3`; `-DOpenVINO_DIR=DIR_OF_OpenVINOConfig.cmake` "
        "names another.",
        accelerator_text="`gpu` and `npu` are those of Intel. Neither was tried where this was made.",
        sources={},
    ),
    "litert": CppRuntime(
        title="LiteRT",
        package="ai-edge-litert",
        module="ai_edge_litert",
        licence="Apache-2.0",
        purl="pkg:pypi/ai-edge-litert@",
        parts=("libLiteRt.so",),
        cmake_hint="",
        text="CMake finds `libLiteRt.so` in the package `ai-edge-litert` of `python3`; "
        "`-DLITERT_LIBRARY=.../libLiteRt.so` names another, such as that of the wheel for a board. `src/litert_c.h` "
        "declares what is called of its C API; `-DLITERT_INCLUDE=DIR` takes LiteRT's own headers instead, which was "
        "not tried where this was made.",
        accelerator_text="`gpu` and `npu` need LiteRT's libraries for them in `LD_LIBRARY_PATH`, for a GPU "
        "`libLiteRtWebGpuAccelerator.so` of the same wheel, and Vulkan. Neither ran where this was made.",
        sources={"src/litert_c.h": "litert_c.h"},
    ),
}


def refusal(name: str, models: Iterable[Path]) -> str:
    """Return why a project in C++ cannot open one of the models; empty where it can."""
    if name != "litert":
        return ""
    from edgewright.backends import litert_file

    for path in models:
        graphs = litert_file.read(path).subgraphs
        if any(tensor.isVariable for graph in graphs for tensor in graph.tensors):
            return (
                f"{path.name} has variable tensors, such as the state of an LSTM, and LiteRT's C API opens no such "
                "model. Give it its state as inputs and outputs, or convert it to another runtime"
            )
    return ""


def missing(name: str) -> str:
    """Return what is missing here to build with the runtime; empty where nothing is."""
    if CPP.missing:
        return f"{', '.join(CPP.missing)} missing (Debian: {CPP.fix})"
    runtime = RUNTIMES[name]
    if runtime.folder is None:
        return f"the package {runtime.package} is missing"
    if name == "onnxruntime" and find_headers() is None:
        return f"no C++ headers of ONNX Runtime: {HEADERS_FIX}"
    return ""


def cmake_flags(name: str) -> list[str]:
    """Return what tells CMake where the runtime of this Python is; nothing may be `missing`."""
    folder = RUNTIMES[name].folder
    assert folder is not None, "asked for before it was known to be here"
    if name == "openvino":
        return [f"-DOpenVINO_DIR={folder / 'cmake'}"]
    if name == "litert":
        return [f"-DLITERT_LIBRARY={folder / 'libLiteRt.so'}"]
    library = next(folder.glob("capi/libonnxruntime.so.*"))
    return [f"-DONNXRUNTIME_INCLUDE={find_headers()}", f"-DONNXRUNTIME_LIBRARY={library}"]
