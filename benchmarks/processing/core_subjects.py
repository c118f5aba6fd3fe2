"""Real models whose processing the C core is compared in: opened by their runtimes in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.core.tensors import Arrays, TensorSpec
from edgewright.processing.audio_files import read_audio
from edgewright.processing.media import read_image
from edgewright.processing.presets import Quantization, Subject, make
from edgewright.processing.processor import Execute, Plan, Raw, Signature, plan
from edgewright.sources.tflite import end_quantization

Raws = Sequence[Mapping[str, Raw]]
_IMAGES, _CLIPS, _HOPS = 30, 100, 200
_ORT_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}


@dataclass(frozen=True, kw_only=True)
class RealModel:
    """A preset with its models, and the raw inputs that go through.

    Attributes:
        files: name of the model -> file in the assets.
        is_stream: states live from one run to the next.
    """

    name: str
    preset: str
    files: Mapping[str, str]
    raws: Callable[[Path, Plan], Raws]
    is_stream: bool = False

    def open(self, assets: Path) -> tuple[Plan, Execute] | None:
        """Return the checked preset and what runs its models; None where a runtime is not installed."""
        try:
            opened = {name: _open(assets / file) for name, file in self.files.items()}
        except ImportError:
            return None
        signatures = {name: signature for name, (signature, _) in opened.items()}
        subjects = {
            name: Subject(
                path=assets / file, signature=signatures[name], quantization=_quantization(assets / file)
            )
            for name, file in self.files.items()
        }
        specification = make(self.preset, subjects)
        names = {model.name for model in specification.models} or {""}
        assert names == set(opened), f"{self.preset} calls its models {sorted(names)}"

        def execute(model: str, inputs: Arrays) -> Arrays:
            return opened[model][1](inputs)

        return plan(specification, signatures), execute


def _quantization(path: Path) -> dict[str, Quantization]:
    if path.suffix != ".tflite":
        return {}
    return {n: Quantization(scale=s, zero_point=z) for n, (s, z) in end_quantization(path).items()}


def _open(path: Path) -> tuple[Signature, Callable[[Arrays], Arrays]]:
    return _open_litert(path) if path.suffix == ".tflite" else _open_onnx(path)


def _open_litert(path: Path) -> tuple[Signature, Callable[[Arrays], Arrays]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()  # some shapes are known after a run only
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def specs(details: list[dict[str, object]]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                name=str(d["name"]),
                shape=tuple(int(n) for n in np.asarray(d["shape"])),
                dtype=str(np.dtype(d["dtype"])),  # type: ignore[call-overload]
            )
            for d in details
        )

    def run(given: Arrays) -> Arrays:
        for detail in inputs:
            interpreter.set_tensor(detail["index"], np.asarray(given[detail["name"]]))
        interpreter.invoke()
        return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in outputs}

    return Signature(inputs=specs(inputs), outputs=specs(outputs)), run


def _open_onnx(path: Path) -> tuple[Signature, Callable[[Arrays], Arrays]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def specs(values: Sequence[object]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                name=v.name,  # type: ignore[attr-defined]
                shape=tuple(n if isinstance(n, int) else None for n in v.shape),  # type: ignore[attr-defined]
                dtype=_ORT_DTYPES[v.type],  # type: ignore[attr-defined]
            )
            for v in values
        )

    def run(given: Arrays) -> Arrays:
        names = [value.name for value in session.get_outputs()]
        made = session.run(names, {name: np.asarray(array) for name, array in given.items()})
        return dict(zip(names, made, strict=True))

    return Signature(inputs=specs(session.get_inputs()), outputs=specs(session.get_outputs())), run


def photographs(assets: Path, checked: Plan) -> Raws:
    """Return photographs as the only input."""
    folders = (assets / "data/coco-mini/images", assets / "data/coral-images")
    files = [p for f in folders for p in sorted(f.iterdir()) if p.suffix in (".jpg", ".bmp")][-_IMAGES:]
    return [{checked.specification.inputs[0].name: read_image(path)} for path in files]


def clips(assets: Path, checked: Plan) -> Raws:
    """Return clips as the only input."""
    files = sorted((assets / "data/speech-commands").rglob("*.wav"))[:_CLIPS]
    return [{checked.specification.inputs[0].name: read_audio(path, rate_hz=16_000)} for path in files]


def hops(assets: Path, checked: Plan) -> Raws:
    """Return the hops of a stream of speech."""
    row = checked.specification.inputs[0]
    files = sorted((assets / "data/speech-commands").rglob("*.wav"))[:8]
    sound = np.concatenate([read_audio(path, rate_hz=16_000) for path in files])
    count = min(len(sound) // row.samples, _HOPS)
    return [{row.name: hop} for hop in sound[: count * row.samples].reshape(count, row.samples)]


SUBJECTS: tuple[RealModel, ...] = (
    RealModel(
        name="mobilenet_v2", preset="mobilenet_v1", raws=photographs,
        files={"": "models/coral/mobilenet_v2_1.0_224_quant.tflite"},
    ),
    RealModel(
        name="person", preset="person_detect", raws=photographs,
        files={"": "models/mlperf-tiny/vww_mobilenet_96_fp32.tflite"},
    ),
    RealModel(
        name="ultraface", preset="ultraface", raws=photographs,
        files={"": "models/ultraface-slim/version-slim-320.onnx"},
    ),
    RealModel(
        name="ultraface_raw", preset="ultraface_raw", raws=photographs,
        files={"": "models/ultraface-slim/version-slim-320_without_postprocessing.tflite"},
    ),
    RealModel(
        name="fastestdet", preset="fastestdet", raws=photographs, files={"": "models/fastestdet/FastestDet.onnx"}
    ),
    RealModel(
        name="deeplab", preset="deeplab", raws=photographs,
        files={"": "models/coral/deeplabv3_mnv2_dm05_pascal_quant.tflite"},
    ),
    RealModel(
        name="keywords", preset="kws_mfcc", raws=clips, files={"": "models/mlperf-tiny/kws_dscnn_fp32.tflite"}
    ),
    RealModel(
        name="silero_vad", preset="silero_vad", raws=hops, files={"": "models/silero-vad/silero_vad.onnx"},
        is_stream=True,
    ),
    RealModel(
        name="dtln", preset="dtln", raws=hops, is_stream=True,
        files={"first": "models/dtln/model_1.onnx", "second": "models/dtln/model_2.onnx"},
    ),
)  # fmt: skip
