"""Every source of the assets on LiteRT, ONNX Runtime and OpenVINO, against the framework that it was made with.

Builds each model as it is (fp32; a quantized file keeps its own precision) for the three runtimes, over whatever
bridges lie between, and compares the outputs with those of the source run by its own framework: Keras and SavedModel
by TensorFlow, TorchScript and factories by PyTorch, ONNX by ONNX Runtime, `.tflite` by LiteRT's reference kernels.
A float row must agree within 1e-4, absolutely, or fail with the operator that is in the way. The rows of quantized
files are shown beside them in steps of their own output.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import real_models
from reporting import REPOSITORY, conditions, parser_for, print_table, write_json

import edgewright
from edgewright.core.errors import EdgewrightError
from edgewright.core.result import Result

RUNTIMES = ("litert", "onnxruntime", "openvino")
MAX_ABS = 1e-4
SOURCE_FAILED = "source failed"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model below models/, or a factory with the weights there."""

    path: str
    precision: str = "fp32"
    factory: str = ""
    input_shapes: tuple[str, ...] = ()
    data: Path | None = None
    values: dict[str, float] = field(default_factory=dict)


def main() -> int:
    """Return 0 when every float row agrees within 1e-4 or names the operator that fails."""
    parser = parser_for(__doc__)
    parser.add_argument("--only", default="", help="take the models whose path holds this text")
    options = parser.parse_args()
    if not (options.assets / "models").is_dir():
        print(f"no assets in {options.assets}: nothing to do")
        return 0
    rows: list[list[object]] = []
    records: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="edgewright-sources-") as folder:
        work = Path(folder)
        os.environ["EDGEWRIGHT_CACHE"] = str(work / "cache")
        sys.path.insert(0, str(REPOSITORY / "benchmarks"))  # where the factory is
        for source in _sources(options.assets / "data", work):
            if options.only not in source.path:
                continue
            for name, status, max_abs, reason in _build(source, options.assets / "models", work):
                is_float = source.precision == "fp32"
                verdict = _verdict(status, max_abs) if is_float else ""
                shown = "-" if max_abs is None else f"{max_abs:.2g}"
                rows.append([source.path, name, source.precision, status, shown, verdict, reason[:160]])
                record = dict(zip(("model", "runtime", "precision", "status"), rows[-1], strict=False))
                records.append(record | {"max_abs": max_abs, "verdict": verdict, "reason": reason})
                print("  ".join(map(str, rows[-1])), flush=True)
    print()
    print_table(["model", "runtime", "prec.", "status", "max abs", "verdict", "reason"], rows)
    judged = [row for row in rows if row[5]]
    held = sum(row[5] == "within 1e-4" for row in judged)
    refused = sum(row[5] == "refused" for row in judged)
    print(
        f"\n{len(judged)} float rows: {held} within {MAX_ABS:g}, {refused} refused by name, "
        f"{len(judged) - held - refused} neither (over, or a source that its own framework did not run)"
    )
    write_json(options.json, {"rows": records, "conditions": conditions()})
    return 0 if held + refused == len(judged) else 1


def _verdict(status: str, max_abs: float | None) -> str:
    if max_abs is not None:
        return "within 1e-4" if max_abs <= MAX_ABS else "OVER 1e-4"
    return "refused" if status in ("failed", "unavailable") else "NOT COMPARED"


def _build(source: Source, models: Path, work: Path) -> list[tuple[str, str, float | None, str]]:
    """Return (runtime, status, max abs difference, reason) per runtime."""
    path = models / source.path
    try:
        built = edgewright.build(
            source.factory or path,
            weights=path if source.factory else None,
            input_shapes=source.input_shapes,
            data=source.data,
            metric="cosine" if source.data is not None else "",
            values=source.values,
            to=RUNTIMES,
            precision=(source.precision,),
            out=tempfile.mkdtemp(dir=work),
        )
    except EdgewrightError as err:  # the source itself cannot be read or run: three rows say so
        return [(runtime, SOURCE_FAILED, None, f"{type(err).__name__}: {err}") for runtime in RUNTIMES]
    return [(r.target.runtime, str(r.status), _max_abs(r), r.reason) for r in built.results]


def _max_abs(result: Result) -> float | None:
    return None if result.parity is None else result.parity.max_abs


def _sources(data: Path, work: Path) -> list[Source]:
    with_data = {model.path: model for model in real_models.models_with_data(data, work)}

    def known(path: str, **changes: object) -> Source:
        model = with_data[path]
        return Source(path=path, data=model.data, values=model.values, **changes)  # type: ignore[arg-type]

    resnet = with_data["mlperf-tiny/ic_resnet8_fp32.tflite"].data
    person = with_data["mlperf-tiny/vww_mobilenet_96_fp32.tflite"].data
    mfcc = with_data["mlperf-tiny/kws_dscnn_fp32.tflite"].data
    poses = with_data["hand-gesture/keypoint_classifier.tflite"].data
    crops = real_models.write_crops(data / "coco-mini" / "images", work / "crops.npz", np.float32, 0)
    assert resnet is not None
    with np.load(crops) as archive:
        pixels = archive["inputs"].transpose(0, 3, 1, 2) / 255
    mean, std = (
        np.array([0.485, 0.456, 0.406]),
        np.array([0.229, 0.224, 0.225]),
    )  # of ImageNet, as it was trained
    normalised = (pixels - mean[:, None, None]) / std[:, None, None]
    np.savez(work / "normalised.npz", inputs=np.ascontiguousarray(normalised, np.float32))
    return [
        Source(path="mlperf-tiny/ic_resnet8.h5", data=resnet),
        Source(path="mlperf-tiny/vww_mobilenet_96.h5", data=person),
        Source(path="mlperf-tiny/kws_dscnn_savedmodel", data=mfcc),
        Source(path="hand-gesture/keypoint_classifier.hdf5", data=poses),
        known("mlperf-tiny/ic_resnet8_fp32.tflite"),
        known("mlperf-tiny/ic_resnet8_int8.tflite", precision="w8a8"),
        known("mlperf-tiny/vww_mobilenet_96_fp32.tflite"),
        known("mlperf-tiny/vww_mobilenet_96_int8.tflite", precision="w8a8"),
        known("mlperf-tiny/kws_dscnn_fp32.tflite", precision="w8"),
        known("mlperf-tiny/kws_dscnn_int8.tflite", precision="w8a8"),
        known("hand-gesture/keypoint_classifier.tflite"),
        Source(path="dtln/model_1.onnx"),
        Source(path="dtln/model_2.onnx"),
        Source(path="dtln/model_1.tflite"),
        Source(path="dtln/model_2.tflite"),
        known("silero-vad/silero_vad.onnx"),
        Source(path="silero-vad/silero_vad.jit", input_shapes=("1x512", "1:int64"), data=None),
        known("fastestdet/FastestDet.onnx"),
        known("ultraface-slim/version-slim-320.onnx"),
        Source(path="ultraface-slim/version-slim-320_without_postprocessing.tflite"),
        Source(
            path="cifar-resnet/resnet20-12fca82f.th",
            factory="resnet20:resnet20",
            input_shapes=("1x3x32x32",),
            data=work / "normalised.npz",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
