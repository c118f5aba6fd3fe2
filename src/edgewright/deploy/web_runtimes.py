"""The runtimes that a web bundle ships: which files of which packages, and how their tensors are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edgewright.core.artifact import Artifact
from edgewright.core.files import write_aside
from edgewright.deploy.writing import package_licence
from edgewright.workers.npm_packages import NpmPackage, locked, read_files, require

TOOLCHAIN = "web"
_LOCKED = locked(TOOLCHAIN)
ONNXRUNTIME_WEB = _LOCKED["onnxruntime-web"]
LITERTJS_CORE = _LOCKED["@litertjs/core"]
LITERTJS_WASM_UTILS = _LOCKED["@litertjs/wasm-utils"]


@dataclass(frozen=True, kw_only=True)
class WebRuntime:
    """One runtime.

    Attributes:
        files: package -> path in it -> path under `vendor`.
        loaded: accelerator -> what of these one visit loads.
        edits: path under `vendor` -> (text, its replacement), where a file cannot be used as it is.
        changes: what was edited, in words; empty where nothing was.
        refusal: artifact -> why it cannot run one, as a sentence and what to do; empty where it can.
        tensor_names: name of a tensor in the artifact -> as the runtime calls it; None: the same.
    """

    title: str
    files: Mapping[NpmPackage, Mapping[str, str]]
    loaded: Mapping[str, tuple[str, ...]]
    licence_of: tuple[str, str]
    edits: Mapping[str, tuple[str, str]]
    changes: str = ""
    refusal: Callable[[Artifact], str] | None = None
    tensor_names: Callable[[Artifact], Mapping[str, str]] | None = None

    @property
    def packages(self) -> tuple[NpmPackage, ...]:
        """What is shipped."""
        return tuple(self.files)

    def write(self, folder: Path, chain: Sequence[str]) -> None:
        """Write the files into `folder`, without those that only accelerators outside of `chain` load.

        Raises:
            UnavailableError, IntegrityError: a package cannot be had, or is not the published one.
        """
        require(TOOLCHAIN, self.files)
        needed = {name for accelerator in chain for name in self.loaded[accelerator]}
        foreign = {name for names in self.loaded.values() for name in names} - needed
        for package, files in self.files.items():
            wanted = {path: name for path, name in files.items() if name not in foreign}
            for name, content in read_files(package, wanted).items():
                if name in self.edits:
                    old, new = self.edits[name]
                    content = content.replace(old.encode(), new.encode())
                with write_aside(folder / name) as aside:
                    aside.write_bytes(content)

    def licences(self) -> dict[str, str]:
        """Return the texts for LICENSES; the packages themselves hold none, so those of their Python twins."""
        name, twin = self.licence_of
        text = package_licence(twin) or _texts_beside(twin)
        return {name: text} if text else {}


def _texts_beside(package: str) -> str:
    """Return LICENSE and the notices that lie in the folder of an installed package, whose metadata names none."""
    spec = find_spec(package)
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    files = [place / name for place in places for name in ("LICENSE", "ThirdPartyNotices.txt")]
    return "\n\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())


def _litert_names(artifact: Artifact) -> dict[str, str]:
    """Return what the first signature calls the inputs and outputs; without one the runtime takes their own names."""
    from edgewright.backends import litert_file

    model = litert_file.read(artifact.path)
    graph = model.subgraphs[0]
    found: dict[str, str] = {}
    for signature in (model.signatureDefs or [])[:1]:
        for entry in (*(signature.inputs or ()), *(signature.outputs or ())):
            name = entry.name.decode("utf-8", "replace") if isinstance(entry.name, bytes) else str(entry.name)
            found[litert_file.tensor_name(graph, entry.tensorIndex)] = name
    return found


def _litert_refusal(artifact: Artifact) -> str:
    """Return why LiteRT.js cannot load a file: it counts the elements of a signature's tensors; none may be open."""
    is_open = [spec for spec in (*artifact.inputs, *artifact.outputs) if None in spec.shape]
    if not is_open or not _litert_names(artifact):
        return ""
    return (
        f"LiteRT.js loads no file with a signature of open sizes, as {artifact.path.name} has one: {is_open[0]}. "
        "Make the batch 1: edgewright convert MODEL --to litert, with --precision w8a8 for a quantized one."
    )


_LITERT_VARIANTS = ("litert_wasm_internal", "litert_wasm_compat_internal", "litert_wasm_threaded_internal")

_LITERT_LOADED = (
    "litertjs/core/dist/index.js",
    "litertjs/wasm-utils/dist/index.js",
    *(f"litertjs/core/wasm/litert_wasm_threaded_internal.{kind}" for kind in ("js", "wasm")),
)
# The build for the GPU stops and goes on within WebAssembly, which every browser with WebGPU can do with this one.
_ORT_BUILDS = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": (
        "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
    ),
}  # fmt: skip

RUNTIMES: Mapping[str, WebRuntime] = {
    "onnxruntime": WebRuntime(
        title="ONNX Runtime Web",
        files={
            ONNXRUNTIME_WEB: {
                f"dist/{name}": f"onnxruntime-web/{name}"
                for names in _ORT_BUILDS.values()
                for name in names
            }
        },
        loaded={
            accelerator: tuple(f"onnxruntime-web/{name}" for name in names)
            for accelerator, names in _ORT_BUILDS.items()
        },
        licence_of=("onnxruntime-web", "onnxruntime"),
        edits={},
    ),
    "litert": WebRuntime(
        title="LiteRT.js",
        files={
            LITERTJS_CORE: {
                "dist/index.js": "litertjs/core/dist/index.js",
                **{
                    f"wasm/{name}.{kind}": f"litertjs/core/wasm/{name}.{kind}"
                    for name in _LITERT_VARIANTS
                    for kind in ("js", "wasm")
                },
            },
            LITERTJS_WASM_UTILS: {"dist/index.js": "litertjs/wasm-utils/dist/index.js"},
        },
        # Its build for the CPU knows WebGPU too.
        loaded={"wasm": _LITERT_LOADED, "webgpu": _LITERT_LOADED},
        licence_of=("litertjs", "ai-edge-litert"),
        # A page needs no import map then, which a strict content security policy would have to allow.
        edits={"litertjs/core/dist/index.js": ('"@litertjs/wasm-utils"', '"../../wasm-utils/dist/index.js"')},
        changes="Changed: `vendor/litertjs/core/dist/index.js` imports its neighbour by a relative path.",
        refusal=_litert_refusal,
        tensor_names=_litert_names,
    ),
}  # fmt: skip
