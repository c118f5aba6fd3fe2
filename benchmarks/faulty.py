"""Backends with one real fault each: a built-in one, wrapped. Named as runtimes, `faulty:Class`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends.litert import LiteRTBackend
from edgewright.backends.onnxruntime import OnnxRuntimeBackend
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, LayerCost, Session
from edgewright.core.files import sha256_of_files
from edgewright.core.program import Program
from edgewright.core.target import Target
from edgewright.core.tensors import Array, Arrays, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto

Feed = Callable[[Array], Array]


class FedWrong:
    """A session whose first input is changed on its way in, as wrong preprocessing does."""

    def __init__(self, inner: Session, change: Feed) -> None:
        self._inner = inner
        self._change = change

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._inner.outputs

    def run(self, inputs: Arrays) -> Arrays:
        first = self.inputs[0].name
        changed = self._change(inputs[first]).astype(inputs[first].dtype)
        return self._inner.run({**inputs, first: np.ascontiguousarray(changed)})

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        return self._inner.layers(inputs)

    def close(self) -> None:
        self._inner.close()


class _LiteRtFed(LiteRTBackend):
    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        return FedWrong(super().open(artifact, target, profile=profile), self.change)

    def change(self, array: Array) -> Array:
        raise NotImplementedError


class SwappedChannels(_LiteRtFed):
    """Fed BGR instead of RGB."""

    def change(self, array: Array) -> Array:
        return array[..., ::-1]


class WrongLayout(_LiteRtFed):
    """Fed the bytes of NCHW where NHWC is expected."""

    def change(self, array: Array) -> Array:
        return array.transpose(0, 3, 1, 2).reshape(array.shape)


class _OrtFed(OnnxRuntimeBackend):
    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        return FedWrong(super().open(artifact, target, profile=profile), self.change)

    def change(self, array: Array) -> Array:
        raise NotImplementedError


class WrongMean(_OrtFed):
    """Fed images with a mean taken off that the model never saw."""

    def change(self, array: Array) -> Array:
        return array - 0.5


class WrongScale(_OrtFed):
    """Fed 0..255 where 0..1 is expected."""

    def change(self, array: Array) -> Array:
        return array * 255


class OneSampleLate(_OrtFed):
    """Answers with the previous call's input: a buffer that is refilled too late."""

    _last: Array | None = None

    def change(self, array: Array) -> Array:
        late = self._last if self._last is not None and self._last.shape == array.shape else array
        self._last = array.copy()
        return late


class _OrtRewritten(OnnxRuntimeBackend):
    """Writes a sound file of a wrong model, with the right digest."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        import onnx

        made = super().convert(program, target, calibration, workdir)
        model = onnx.load(made.path)
        self.rewrite(model)
        onnx.save(model, made.path)
        return replace(made, sha256=sha256_of_files(made.files))

    def rewrite(self, model: ModelProto) -> None:
        raise NotImplementedError


def change_weights(model: ModelProto, change: Feed, *, rank: int) -> None:
    """Apply `change` to the largest float initialiser of this rank; raises ValueError where there is none."""
    from onnx import numpy_helper

    found = [(t, numpy_helper.to_array(t)) for t in model.graph.initializer]
    fitting = [(t, a) for t, a in found if a.ndim == rank and a.dtype.kind == "f" and a.size > 1]
    if not fitting:
        raise ValueError(f"no float weights of rank {rank}")
    tensor, array = max(fitting, key=lambda pair: pair[1].size)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(array)), tensor.name))


class ZeroedLayer(_OrtRewritten):
    """The weights of one convolution are zero."""

    def rewrite(self, model: ModelProto) -> None:
        change_weights(model, np.zeros_like, rank=4)


class PermutedLayer(_OrtRewritten):
    """The output channels of one convolution are in another order."""

    def rewrite(self, model: ModelProto) -> None:
        change_weights(model, lambda a: np.roll(a, 1, axis=0), rank=4)


class FlippedBias(_OrtRewritten):
    """The biases of one layer have the other sign."""

    def rewrite(self, model: ModelProto) -> None:
        change_weights(model, np.negative, rank=1)


class ShiftedScales(_OrtRewritten):
    """The per-channel scales of one quantized layer are those of the neighbouring channels."""

    def rewrite(self, model: ModelProto) -> None:
        from onnx import numpy_helper

        arrays = {t.name: t for t in model.graph.initializer}
        names = {n.input[1] for n in model.graph.node if n.op_type == "DequantizeLinear"}
        scales = [arrays[n] for n in names if n in arrays and numpy_helper.to_array(arrays[n]).size > 1]
        if not scales:
            raise ValueError("no per-channel scales")
        for tensor in scales:
            rolled = np.roll(numpy_helper.to_array(tensor), 1)
            tensor.CopyFrom(numpy_helper.from_array(rolled, tensor.name))


class DroppedActivation(_OrtRewritten):
    """The last softmax is gone."""

    def rewrite(self, model: ModelProto) -> None:
        (node,) = [n for n in model.graph.node if n.op_type == "Softmax"]
        node.op_type = "Identity"
        del node.attribute[:]


class SwappedOutputs(OnnxRuntimeBackend):
    """Two outputs of one shape are returned in the other order."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        made = super().convert(program, target, calibration, workdir)
        first, second, *others = made.outputs
        return replace(made, outputs=(second, first, *others))


class OtherModel(_OrtRewritten):
    """The artifact of another training run of the same network."""

    def rewrite(self, model: ModelProto) -> None:
        from onnx import numpy_helper

        random = np.random.default_rng(1)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype.kind == "f" and array.ndim >= 2:
                drawn = random.normal(0, array.std(), array.shape).astype(array.dtype)
                tensor.CopyFrom(numpy_helper.from_array(drawn, tensor.name))


class _OrtCalibrated(OnnxRuntimeBackend):
    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        assert calibration is not None
        with np.load(calibration.path) as file:
            arrays = {name: self.change(file[name]) for name in file.files}
        path = workdir / "wrong_calibration.npz"
        np.savez(path, **arrays)
        return super().convert(program, target, replace(calibration, path=path), workdir)

    def change(self, array: Array) -> Array:
        raise NotImplementedError


class RandomCalibration(_OrtCalibrated):
    """Calibrated on normal random numbers instead of images."""

    def change(self, array: Array) -> Array:
        return np.random.default_rng(0).normal(0, 1, array.shape).astype(array.dtype)


class CalibrationTimes255(_OrtCalibrated):
    """Calibrated on 0..255 where the model is fed 0..1."""

    def change(self, array: Array) -> Array:
        return array * np.asarray(255, array.dtype)


class Truncated(OnnxRuntimeBackend):
    """Half a file, with the digest of the half."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        made = super().convert(program, target, calibration, workdir)
        made.path.write_bytes(made.path.read_bytes()[: made.size_bytes // 2])
        return replace(made, sha256=sha256_of_files(made.files))


class ModifiedAfterwards(OnnxRuntimeBackend):
    """One byte is added after the digest was taken."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        made = super().convert(program, target, calibration, workdir)
        made.path.write_bytes(made.path.read_bytes() + b"\x00")
        return made


class Crashes(OnnxRuntimeBackend):
    """Dies of a segmentation fault while it converts."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("the signal did not end the process")


class Hangs(OnnxRuntimeBackend):
    """Never comes back from a conversion."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        while True:
            time.sleep(60)


class FloodsAndExits(OnnxRuntimeBackend):
    """Prints 16 MiB, then ends the process with status 0."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        for _ in range(16):
            os.write(1, b"noise 16 bytes..." * (1 << 16))
        os._exit(0)
