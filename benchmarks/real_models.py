"""Real models through `edgewright build`: does every ok row agree with the source, and is a good model ever called bad?

Builds the models of the assets for all runtimes in all precisions, on real data where there is some, and prints one
row per target. A row that is degraded or failed is a false alarm or a true one: the reason is printed. Keyword
spotting must reach the accuracy that the assets' manifest states for it.
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from reporting import conditions, parser_for, print_table, write_json

import edgewright

KWS_ACCURACY = 0.898  # of kws_dscnn_int8.tflite on these 400 clips, as the manifest of the assets states it
RUNTIMES = ("litert", "onnxruntime", "openvino")
PRECISIONS = ("fp32", "fp16", "w8", "w8a8")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model below models/, with its data; without any, parity on synthetic inputs is all there is."""

    path: str
    data: Path | None = None
    metric: str = ""
    values: dict[str, float] = field(default_factory=dict)


def main() -> int:
    """Return 0 when no target is degraded or failed and keyword spotting is as accurate as stated."""
    parser = parser_for(__doc__)
    parser.add_argument("--only", default="", help="build the models whose path holds this text")
    options = parser.parse_args()
    if not (options.assets / "models").is_dir():
        print(f"no assets in {options.assets}: nothing to do")
        return 0
    rows: list[list[object]] = []
    records: list[dict[str, object]] = []
    alarms: list[str] = []
    built_models = 0
    kws: float | None = None
    with tempfile.TemporaryDirectory(prefix="edgewright-models-") as folder:
        work = Path(folder)
        os.environ["EDGEWRIGHT_CACHE"] = str(work / "cache")
        for model in models_with_data(options.assets / "data", work):
            if options.only not in model.path:
                continue
            try:
                built = edgewright.build(
                    options.assets / "models" / model.path,
                    data=model.data,
                    metric=model.metric,
                    values=model.values,
                    to=RUNTIMES,
                    precision=PRECISIONS,
                    out=tempfile.mkdtemp(dir=work),
                )
            except Exception as err:  # a benchmark goes on, and shows what happened
                alarms.append(f"{model.path}: {type(err).__name__}: {err}")
                print(alarms[-1], flush=True)
                continue
            built_models += 1
            for r in built.results:
                records.append({"model": model.path} | r.to_json())
                if r.status == "unavailable":
                    continue
                if r.status != "ok":
                    alarms.append(f"{model.path} {r.id}: {r.status}: {r.reason}")
                if "kws_dscnn_int8" in model.path and r.id == "litert-w8a8-1t" and r.metric:
                    kws = r.metric.value
                rows.append(_row(model, r))
                print("  ".join(map(str, rows[-1])), flush=True)
    print()
    header = ["model", "target", "status", "on", "max abs", "cosine", "metric", "source", "kB", "p50 ms"]
    print_table(header, rows)
    ok = sum(row[2] == "ok" for row in rows)
    print(f"\n{built_models} models, {len(rows)} targets that can be made here, {ok} ok, {len(alarms)} not:")
    for alarm in alarms:
        print(f"  {alarm[:400]}")
    if kws is not None:
        print(f"keyword spotting: top-1 {kws:.4f}, stated {KWS_ACCURACY}")
    write_json(
        options.json, {"results": records, "alarms": alarms, "kws_top1": kws, "conditions": conditions()}
    )
    return 0 if not alarms and (kws is None or kws >= KWS_ACCURACY - 0.0025) else 1


def _row(model: Model, r: object) -> list[object]:
    from edgewright.core.result import Result

    assert isinstance(r, Result)
    parity, metric = r.parity, r.metric
    return [
        Path(model.path).name,
        r.id,
        str(r.status),
        "synthetic" if parity and parity.inputs == "synthetic" else "data",
        f"{parity.max_abs:.2g}" if parity and parity.max_abs is not None else "-",
        f"{parity.cosine:.6f}" if parity and parity.cosine is not None else "-",
        f"{metric.value:.4f}" if metric else "-",
        f"{metric.source:.4f}" if metric else "-",
        f"{r.size_bytes / 1e3:,.0f}" if r.size_bytes else "-",
        f"{r.latency_ms.p50:.4f}" if r.latency_ms else "-",
    ]


def models_with_data(data: Path, work: Path) -> list[Model]:
    """Return the models, those with data first."""
    mfcc = _mfcc(data / "speech-commands-mfcc-int8", work)
    person = _photos(data / "coco-mini" / "images", work / "person.npz", (96, 96), lambda p: p / 255)
    person_int8 = _photos(
        data / "coco-mini" / "images", work / "person8.npz", (96, 96), lambda p: p - 128, np.int8
    )
    cifar = write_crops(data / "coco-mini" / "images", work / "cifar.npz", np.float32, 0)
    cifar_int8 = write_crops(data / "coco-mini" / "images", work / "cifar8.npz", np.int8, 128)
    faces = _photos(
        data / "coco-mini" / "images", work / "faces.npz", (320, 240), lambda p: (p - 127) / 128, is_nchw=True
    )
    fast = _photos(
        data / "coco-mini" / "images", work / "fast.npz", (352, 352), lambda p: p / 255, is_nchw=True
    )
    return [
        Model(path="mlperf-tiny/kws_dscnn_int8.tflite", data=mfcc["int8"], metric="top1"),
        Model(path="mlperf-tiny/kws_dscnn_fp32.tflite", data=mfcc["float"], metric="top1"),
        Model(path="mlperf-tiny/ic_resnet8_fp32.tflite", data=cifar, metric="cosine"),
        Model(path="mlperf-tiny/ic_resnet8_int8.tflite", data=cifar_int8, metric="cosine"),
        Model(path="mlperf-tiny/vww_mobilenet_96_fp32.tflite", data=person, metric="cosine"),
        Model(path="mlperf-tiny/vww_mobilenet_96_int8.tflite", data=person_int8, metric="cosine"),
        Model(path="ultraface-slim/version-slim-320.onnx", data=faces, metric="cosine@scores"),
        Model(path="fastestdet/FastestDet.onnx", data=fast, metric="cosine"),
        Model(path="silero-vad/silero_vad.onnx", data=_speech(data, work), values={"sr": 16000}),
        Model(path="hand-gesture/keypoint_classifier.tflite", data=_poses(data, work), metric="top1"),
        Model(path="dtln/model_1.onnx"),
        Model(path="dtln/model_2.onnx"),
        Model(path="dtln/model_1.tflite"),
        Model(path="dtln/model_2.tflite"),
        Model(path="ultraface-slim/version-slim-320_without_postprocessing.tflite"),
        Model(path="tflite-micro/hello_world_float.tflite"),
        Model(path="tflite-micro/hello_world_int8.tflite"),
        Model(path="tflite-micro/trained_lstm.tflite"),
        Model(path="tflite-micro/micro_speech_quantized.tflite"),
        Model(path="coral/mobilenet_v1_0.25_128_quant.tflite"),
        Model(path="coral/mobilenet_v2_1.0_224_quant.tflite"),
    ]


def _mfcc(folder: Path, work: Path) -> dict[str, Path]:
    """Write the MFCC features, raw int8 and dequantized as the int8 model's input says; the label ends the name."""
    files = sorted(folder.glob("*.bin"))
    raw = np.stack([np.fromfile(file, np.int8).reshape(49, 10, 1) for file in files])
    labels = np.array([int(file.stem.rsplit("_", 1)[1]) for file in files])
    scale, zero = 0.5847029, 83  # of the int8 model's input
    np.savez(work / "mfcc8.npz", input_1=raw, labels=labels)
    np.savez(work / "mfcc.npz", input_1=((raw.astype(np.float32) - zero) * scale), labels=labels)
    return {"int8": work / "mfcc8.npz", "float": work / "mfcc.npz"}


def _pixels(folder: Path, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    images = [Image.open(file).convert("RGB").resize(size) for file in sorted(folder.glob("*.jpg"))]
    return np.stack([np.asarray(image, np.float32) for image in images])


def _photos(folder, path, size, scaled, dtype=np.float32, is_nchw=False):  # type: ignore[no-untyped-def]
    """Write the photographs at `size`, values by `scaled`."""
    pixels = scaled(_pixels(folder, size)).astype(dtype)
    np.savez(path, inputs=np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if is_nchw else pixels)
    return path


def write_crops(folder: Path, path: Path, dtype: type, minus: int) -> Path:
    """Write 32 x 32 crops of the photographs."""
    pixels = _pixels(folder, (128, 96))
    crops = [p[y : y + 32, x : x + 32] for p in pixels for y in (0, 32, 64) for x in (0, 32, 64, 96)]
    np.savez(path, inputs=(np.stack(crops) - minus).astype(dtype))
    return path


def _speech(data: Path, work: Path) -> Path:
    """Write frames of 512 samples of speech with a zero state, as Silero VAD takes them at 16 kHz."""
    with wave.open(str(data / "silero-audio" / "test.wav")) as file:
        audio = np.frombuffer(file.readframes(512 * 200), np.int16).astype(np.float32) / 32768
    frames = audio.reshape(-1, 512)
    np.savez(work / "speech.npz", input=frames, state=np.zeros((len(frames), 2, 1, 128), np.float32))
    return work / "speech.npz"


def _poses(data: Path, work: Path) -> Path:
    with (data / "hand-gesture" / "keypoint.csv").open(encoding="utf-8-sig") as file:
        rows = np.array([[float(value) for value in row] for row in csv.reader(file)], np.float32)
    np.savez(work / "poses.npz", inputs=rows[:, 1:], labels=rows[:, 0].astype(np.int64))
    return work / "poses.npz"


if __name__ == "__main__":
    sys.exit(main())
