"""ncnn on the CPU, through pnnx: PyTorch, TorchScript and ONNX become `model.param` and `model.bin`.

ncnn's tensors ("Mat") have no batch axis and at most four others. pnnx tells which axis it took for the batch; the
shape that is left is declared in the Input layers, where a session (and a phone) reads it again.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from edgewright.backends import ncnn_file, onnx_graph, vendor
from edgewright.backends.external_tool import run_tool
from edgewright.backends.reference import ReferenceBackend
from edgewright.backends.signed import SignedSession
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Bridge, Calibration, LayerCost, Support
from edgewright.core.errors import ConversionError, FormatMismatchError, IntegrityError
from edgewright.core.files import sha256_of_files
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec, check_arrays

_PACKAGES = ("ncnn", "pnnx")
_FILE_NAMES = ("model.param", "model.bin")
# What pnnx calls an input type; ncnn computes in float32, and reads int32 where it looks up rows (Embed).
_TYPES = {"float32": "f32", "int64": "i64", "int32": "i32"}
_MAT_DTYPES = {"float32": "float32", "int64": "int32", "int32": "int32"}
_BATCH_AXIS = re.compile(r'ex\.input\("in(\d{1,4})", ncnn\.Mat\(.{0,80}?batch_index=(\d{1,3})\)')
_NO_BATCH = 233  # pnnx's spelling
# Lines with which pnnx gives up a part of the graph while it goes on (and may write a wrong file).
_GIVEN_UP = re.compile(r"not supported|unsupported|exceeds ncnn|fallback", re.IGNORECASE)
_LARGEST_SHARE = {Precision.FP32: 1e-3, Precision.FP16: 5e-2}
_SEED = 20261121
_NOTES = {
    Precision.FP32: "computed in float32: ncnn's own defaults, float16 or bfloat16 storage, are switched off",
    Precision.FP16: "float16 weights, and ncnn's default use of float16 while it computes, as far as the CPU has it",
}


class Mat(Protocol):
    """A tensor of ncnn."""

    def clone(self) -> Mat: ...


class Extractor(Protocol):
    """One inference."""

    def input(self, name: str, mat: Mat) -> int: ...
    def extract(self, name: str) -> tuple[int, Mat]: ...
    def set_light_mode(self, enable: bool) -> None: ...


class Options(Protocol):
    """How a net computes."""

    num_threads: int
    use_fp16_packed: bool
    use_fp16_storage: bool
    use_fp16_arithmetic: bool
    use_bf16_storage: bool
    use_bf16_packed: bool
    use_vulkan_compute: bool


class Net(Protocol):
    """A model."""

    opt: Options

    def load_param(self, path: str) -> int: ...
    def load_model(self, path: str) -> int: ...
    def create_extractor(self) -> Extractor: ...
    def clear(self) -> None: ...


class NcnnBackend:
    """Tencent's runtime for phones, run by its Python wheel; batch 1, float32 and float16."""

    name = "ncnn"
    environment = ""
    runtime_module = "ncnn"
    consumes: tuple[str, ...] = ("pt2", "torchscript", "onnx")
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16)

    def probe(self) -> Support:
        """Say whether the runtime and its converter are installed."""
        return vendor.support(_PACKAGES, extra="ncnn")

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision not in self.precisions:
            return (
                f"ncnn makes fp32 and fp16 here, not {target.precision}: its quantization tools (ncnn2table, "
                "ncnn2int8) are not in the Python packages"
            )
        for spec in program.inputs:
            if spec.dtype not in _TYPES:
                return f"ncnn takes {', '.join(_TYPES)} inputs, but {spec} is {spec.dtype}"
            if len(spec.shape) > ncnn_file.MAX_RANK + 1 or not spec.shape:
                return f"ncnn takes inputs of rank 1 to {ncnn_file.MAX_RANK} besides the batch, but there is {spec}"
        for spec in program.outputs:
            if spec.dtype != "float32":
                return f"ncnn gives float32 outputs, but {spec} is {spec.dtype}"
        return vendor.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return None: nothing is quantized."""
        return None

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.param` and `model.bin` into `workdir`; a dynamic batch becomes 1.

        Raises:
            FormatMismatchError: `refuses` gives a reason.
            ConversionError: pnnx failed, or left operators that ncnn does not have, all of them by name.
        """
        reason = self.refuses(program, target)
        if reason is not None:
            raise FormatMismatchError(f"{reason}.")
        workdir.mkdir(parents=True, exist_ok=True)
        if program.format == "pt2":
            return self._from_torch(program, target, workdir)
        return self._converted(program, target, workdir)

    def _from_torch(self, program: Program, target: Target, workdir: Path) -> Artifact:
        """Return the artifact of a PyTorch program through TorchScript, or through ONNX where that fails.

        Neither serves every model: pnnx reads attention better from a trace, and recurrent layers from ONNX alone.
        """
        from edgewright.bridges.torch_onnx import TorchToOnnx
        from edgewright.bridges.torchscript import TorchToTorchScript

        # pnnx takes a trace for the batch alone that it was made with.
        static = replace(program, inputs=_static(program.inputs), outputs=_static(program.outputs))
        bridges: list[Bridge] = [TorchToTorchScript(), TorchToOnnx()]
        reasons = []
        for bridge in bridges:
            with tempfile.TemporaryDirectory(prefix=".bridge-", dir=workdir) as name:
                try:
                    lowered = bridge.convert(static, Path(name))
                    made = self._converted(lowered, target, workdir)
                    _compare(program, made)
                except ConversionError as err:
                    reasons.append(f"through {bridge.writes}: {err}")
                    continue
            return replace(
                made,
                source_sha256=program.sha256,
                toolchain={**made.toolchain, **vendor.versions(["torch"])},
                notes=(*made.notes, *_batch_notes(program), f"converted through {bridge.writes}"),
            )
        raise ConversionError(" ".join(reasons))

    def _converted(self, program: Program, target: Target, workdir: Path) -> Artifact:
        shapes = [vendor.static_shape(spec) for spec in program.inputs]
        files = tuple(workdir / name for name in _FILE_NAMES)
        with tempfile.TemporaryDirectory(prefix=".pnnx-", dir=workdir) as name:
            _make(program, shapes, Path(name), files, is_half=target.precision is Precision.FP16)
        artifact = Artifact(
            files=files,
            target=target,
            inputs=_static(program.inputs),
            outputs=_static(program.outputs),
            sha256=sha256_of_files(files),
            source_sha256=program.sha256,
            toolchain=vendor.versions(_PACKAGES),
            notes=(_NOTES[target.precision], *_batch_notes(program)),
        )
        _try(artifact)
        return artifact

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> NcnnSession:
        """Load the artifact with the threads of `target`; ncnn has no profiler in Python, so `layers` is empty.

        Raises:
            IntegrityError: the `.param` file is damaged or belongs to another signature.
            ConversionError: ncnn refuses the file.
        """
        return NcnnSession(artifact, target)


class NcnnSession(SignedSession):
    """One loaded net; each inference has its own extractor."""

    def __init__(self, artifact: Artifact, target: Target) -> None:
        self._artifact = artifact
        self._shapes = _mat_shapes(artifact)
        self._net: Net | None = _load(artifact, target)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs of one sample.

        Raises:
            DataError: the arrays do not fit the signature.
            ConversionError: ncnn failed, or gave outputs of another size.
        """
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.name}")
        found = self._extract(inputs)
        results = {}
        for spec, array in zip(self.outputs, found, strict=True):
            shape = tuple(size or 1 for size in spec.shape)
            if array.size != int(np.prod(shape)):
                raise ConversionError(
                    f"ncnn gives output {spec.name!r} the shape {list(array.shape)}, but {spec} is expected. "
                    "Leave this runtime out."
                )
            results[spec.name] = array.reshape(shape)
        return results

    def _extract(self, inputs: Arrays) -> list[Array]:
        """Return copies of the outputs as ncnn shapes them."""
        import ncnn

        assert self._net is not None, "the session is closed"
        extractor = self._net.create_extractor()
        for number, (spec, shape) in enumerate(zip(self.inputs, self._shapes, strict=True)):
            array = np.ascontiguousarray(inputs[spec.name], dtype=_MAT_DTYPES[spec.dtype]).reshape(shape)
            # A Mat over an array neither keeps the array alive nor pads its channels as the kernels expect.
            if extractor.input(f"in{number}", cast(Mat, ncnn.Mat(array)).clone()) != 0:
                raise ConversionError(f"ncnn refuses input {spec.name!r} of shape {list(shape)}.")
        found = []
        for number, spec in enumerate(self.outputs):
            code, mat = extractor.extract(f"out{number}")
            if code != 0:
                raise ConversionError(
                    f"ncnn cannot compute output {spec.name!r} of {self._artifact.path.name} (code {code}). "
                    "Leave this runtime out."
                )
            found.append(np.array(mat, copy=True))
        return found

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: the wheel is built without ncnn's profiler."""
        return ()

    def close(self) -> None:
        """Free the model."""
        if self._net is not None:
            self._net.clear()
        self._net = None


def _load(artifact: Artifact, target: Target) -> Net:
    import ncnn

    net = cast(Net, ncnn.Net())
    is_half = target.precision is Precision.FP16
    net.opt.num_threads = target.threads
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = is_half
    net.opt.use_bf16_storage = net.opt.use_bf16_packed = False
    param, weights = artifact.files
    if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
        raise ConversionError(
            f"ncnn cannot load {param.name} with {weights.name}: a layer that it does not have, or too few "
            "weights. Build it again, or leave this runtime out."
        )
    return net


def _mat_shapes(artifact: Artifact) -> list[tuple[int, ...]]:
    """Return the shapes without a batch that the Input layers declare, in the order of the inputs."""
    layers = ncnn_file.read_param(artifact.path)
    _refuse_unknown(layers, artifact.path.name, "")
    declared = {name: layer.shape for layer in ncnn_file.inputs_of(layers) for name in layer.outputs}
    shapes = []
    for number, spec in enumerate(artifact.inputs):
        shape = declared.get(f"in{number}", ())
        if not shape or int(np.prod(shape)) != int(np.prod([size or 1 for size in spec.shape])):
            raise IntegrityError(
                f"{artifact.path.name} declares in{number} as {list(shape)}, but {spec} is expected. Build it again."
            )
        shapes.append(shape)
    return shapes


def _static(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(spec, shape=(1, *spec.shape[1:]) if spec.has_dynamic_batch else spec.shape) for spec in specs
    )


def _try(artifact: Artifact) -> None:
    """Run the artifact once on zeros.

    Raises:
        ConversionError: ncnn does not load or run it, or an output has another size than the source's.
    """
    dynamic = [str(spec) for spec in artifact.outputs if not spec.is_static]
    if dynamic:
        raise ConversionError(
            f"output {dynamic[0]} has a dynamic dimension besides the batch, but ncnn's outputs have no shape to "
            "check it by. Export the model with fixed sizes."
        )
    session = NcnnSession(artifact, artifact.target)
    session.run({spec.name: np.zeros(vendor.static_shape(spec), spec.dtype) for spec in artifact.inputs})
    session.close()


def _batch_notes(program: Program) -> tuple[str, ...]:
    is_dynamic = any(spec.has_dynamic_batch for spec in program.inputs)
    return ("batch made static: 1, for ncnn has no batch axis",) if is_dynamic else ()


def _compare(program: Program, artifact: Artifact) -> None:
    """Check the artifact against torch on random inputs: what pnnx makes may be wrong though it converts.

    Raises:
        ConversionError: they differ by more than a share of the largest value.
    """
    plain = Target(runtime="reference")
    backend = ReferenceBackend()
    source = backend.open(backend.convert(program, plain, None, artifact.path.parent), plain)
    session = NcnnSession(artifact, artifact.target)
    draw = np.random.default_rng(_SEED)
    inputs = {
        spec.name: (
            draw.random(vendor.static_shape(spec))
            if spec.dtype == "float32"
            else np.zeros(vendor.static_shape(spec))
        ).astype(spec.dtype)
        for spec in program.inputs
    }
    expected, got = source.run(inputs), session.run(inputs)
    source.close()
    session.close()
    for spec in program.outputs:
        want = np.asarray(expected[spec.name], dtype=np.float64)
        error = np.abs(np.asarray(got[spec.name], dtype=np.float64) - want).max(initial=0.0)
        limit = _LARGEST_SHARE[artifact.target.precision] * np.abs(want).max(initial=0.0) + 1e-6
        if not error <= limit:
            raise ConversionError(
                f"output {spec.name!r} of the ncnn files differs from torch by {error:.3g} on random inputs; at most "
                f"{limit:.3g} is expected."
            )


def _make(
    program: Program, shapes: Sequence[tuple[int, ...]], folder: Path, files: Sequence[Path], *, is_half: bool
) -> None:
    """Run pnnx in `folder` and leave the two files of ncnn at `files`; its Python files are read, never run."""
    if program.format == "onnx":
        source = folder / "model.onnx"
        model = onnx_graph.load(program.path)  # with the data of other files
        onnx_graph.drop_listed_initialisers(model)
        onnx_graph.save(model, source)
    else:
        source = folder / "model.pt"
        shutil.copyfile(program.path, source)
    spelled = ",".join(
        f"[{','.join(map(str, shape))}]{_TYPES[spec.dtype]}"
        for shape, spec in zip(shapes, program.inputs, strict=True)
    )
    log = _run_pnnx([source.name, f"inputshape={spelled}", f"fp16={int(is_half)}"], folder, program.path.name)
    param, weights, script = (
        folder / name for name in ("model.ncnn.param", "model.ncnn.bin", "model_ncnn.py")
    )
    vendor.require_file(param)
    layers = ncnn_file.read_param(param)
    _refuse_unknown(layers, program.path.name, log)
    batch_axes = {int(number): int(axis) for number, axis in _BATCH_AXIS.findall(script.read_text("utf-8"))}
    mats = [
        _without_batch(spec, shape, batch_axes.get(number))
        for number, (spec, shape) in enumerate(zip(program.inputs, shapes, strict=True))
    ]
    _check_ends(layers, program)
    declared = {f"in{number}": mat for number, mat in enumerate(mats)}
    layers = [
        ncnn_file.with_shape(layer, declared[layer.outputs[0]]) if layer.operator == "Input" else layer
        for layer in layers
    ]
    ncnn_file.write_param(layers, files[0])
    weights.replace(files[1])


def _run_pnnx(arguments: Sequence[str], folder: Path, what: str) -> str:
    """Return what pnnx printed.

    Raises:
        ConversionError: it is not here, failed, crashed, or took too long.
    """
    found = importlib.util.find_spec("pnnx")  # looks for the package, and does not import it
    if found is None or not found.submodule_search_locations:
        raise ConversionError("pnnx is not installed; run: pip install 'edgewright[ncnn]'.")
    suffix = ".exe" if sys.platform == "win32" else ""
    program = Path(found.submodule_search_locations[0]) / f"pnnx{suffix}"
    return run_tool([str(program), *arguments], folder, tool="pnnx", what=what)


def _refuse_unknown(layers: Sequence[ncnn_file.ParamLayer], what: str, log: str) -> None:
    """Check that ncnn has every layer.

    Raises:
        ConversionError: pnnx left operators of torch or of its own, or said that it gave something up.
    """
    import ncnn

    unknown = {layer.operator for layer in layers if ncnn.layer_to_index(layer.operator) < 0}
    # Expressions are what is left around an operator that was not converted: they say nothing by themselves.
    named = sorted(name for name in unknown if name != "pnnx.Expression") or sorted(unknown)
    given_up = sorted({line.strip()[:160] for line in log.splitlines() if _GIVEN_UP.search(line)})
    if named or given_up:
        said = f" pnnx said: {'; '.join(given_up[:5])}." if given_up else ""
        operators = (
            f"ncnn has no operator for {', '.join(named)}" if named else "a part of it cannot be converted"
        )
        raise ConversionError(
            f"{what} cannot become ncnn: {operators}.{said} Replace it in the model, or leave this runtime out."
        )


def _without_batch(spec: TensorSpec, shape: tuple[int, ...], batch_axis: int | None) -> tuple[int, ...]:
    """Return the shape of the Mat that pnnx made of input `spec`.

    Raises:
        ConversionError: its batch is not 1, or nothing is known about it.
    """
    if batch_axis is None:
        raise ConversionError(
            f"pnnx tells nothing about input {spec.name!r}: it is not used, or this pnnx writes other files. "
            "Remove the input, or install the pnnx that `edgewright doctor` names."
        )
    if batch_axis != _NO_BATCH:
        if batch_axis >= len(shape) or shape[batch_axis] != 1:
            raise ConversionError(
                f"input {spec} has axis {batch_axis} as its batch; ncnn has none, so it must be 1. "
                "Export the model with batch 1."
            )
        shape = (*shape[:batch_axis], *shape[batch_axis + 1 :])
    if not 1 <= len(shape) <= ncnn_file.MAX_RANK:
        raise ConversionError(
            f"input {spec} has {len(shape)} axes besides the batch; ncnn has 1 to {ncnn_file.MAX_RANK}."
        )
    return shape


def _check_ends(layers: Sequence[ncnn_file.ParamLayer], program: Program) -> None:
    written = {name for layer in layers for name in layer.outputs}
    inputs = {name for layer in ncnn_file.inputs_of(layers) for name in layer.outputs}
    lost = [spec.name for number, spec in enumerate(program.inputs) if f"in{number}" not in inputs]
    lost += [spec.name for number, spec in enumerate(program.outputs) if f"out{number}" not in written]
    extra = inputs - {f"in{number}" for number in range(len(program.inputs))}
    if lost or extra:
        raise ConversionError(
            f"pnnx kept other inputs or outputs of {program.path.name}: lost {lost}, added {sorted(extra)}. "
            "Remove unused inputs and outputs that are inputs from the model."
        )
