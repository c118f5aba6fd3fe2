"""Sound, landmarks and series from raw files through their presets: do the figures of MANIFEST.md come out?

Each model runs by `edgewright.load`, as an app would use it: WAV files and raw numbers in, typed results out.

    keywords   400 clips of Speech Commands, MLPerf Tiny's DS-CNN in int8 and float
    yes_or_no  the four clips of micro_speech
    gestures   4450 hands; the file's relative landmarks, and the same laid back to a place and a size in a picture
    voices     Silero VAD over 60 s of speech, and over white noise
    denoising  DTLN, in ONNX and in LiteRT: speech with white noise at 5 dB, scale-invariant signal to noise after it
    motion     a small network, trained here on BasicMotions' 40 training series, on its 40 test series

Prints a table and HOLDS, or FAILS with what is below its bound. Times are not measured.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from figures import Figure, report
from reporting import parser_for

from edgewright.prediction import load
from edgewright.processing.audio_files import read_audio, wav_bytes
from edgewright.processing.results import Classes, Values, Waveform
from edgewright.processing.step import Floats

RATE_HZ = 16_000
SEED = 0


def main() -> int:
    """Print all figures; return 0 when each keeps its bound."""
    parts = {part.__name__: part for part in (keywords, yes_or_no, gestures, voices, denoising, motion)}
    parser = parser_for(__doc__)
    parser.add_argument("--only", choices=parts, action="append", help="one part; may be given again")
    options = parser.parse_args()
    figures: list[Figure] = []
    for name in options.only or parts:
        figures += parts[name](options.assets)
        print(f"{name}: done", file=sys.stderr, flush=True)
    return report(figures, options.json)


def keywords(assets: Path) -> list[Figure]:
    """Return the share of keyword clips whose best class is theirs."""
    folder = assets / "data/speech-commands"
    with (folder / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    figures = []
    for precision, least in (("int8", 0.91), ("fp32", 0.90)):
        with load(
            assets / f"models/mlperf-tiny/kws_dscnn_{precision}.tflite", processing="kws_mfcc"
        ) as predictor:
            right = sum(
                best(predictor(folder / row["file"])["keyword"]) == int(row["label_index"]) for row in rows
            )
        what = f"keywords, {precision}: right of {len(rows)} clips"
        asked = "0.912" if precision == "int8" else ""
        figures.append(Figure(what=what, got=right / len(rows), least=least, asked=asked))
    return figures


def yes_or_no(assets: Path) -> list[Figure]:
    """Return how many of the four clips of micro_speech are understood: yes, no, and silence twice."""
    with load(
        assets / "models/tflite-micro/micro_speech_quantized.tflite", processing="micro_speech"
    ) as predictor:
        right = sum(
            best(predictor(assets / f"data/micro-speech/{clip}_1000ms.wav")["keyword"]) == wanted
            for clip, wanted in (("yes", 2), ("no", 3), ("noise", 0), ("silence", 0))
        )
    return [Figure(what="yes or no: right of 4 clips", got=right, least=4, asked="(loads)")]


def gestures(assets: Path) -> list[Figure]:
    """Return the share of hands whose best class is theirs: from the file, and from places in a picture."""
    table = np.loadtxt(assets / "data/hand-gesture/keypoint.csv", delimiter=",")
    labels, hands = table[:, 0].astype(int), table[:, 1:].reshape(-1, 21, 2)
    rng = np.random.default_rng(SEED)
    sizes, places = rng.uniform(60, 400, (len(hands), 1, 1)), rng.uniform(0, 640, (len(hands), 1, 2))
    figures = []
    with load(assets / "models/hand-gesture/keypoint_classifier.tflite", processing="gesture") as predictor:
        for what, points in (
            ("as they are", hands),
            # A detector gives whole pixels.
            ("in whole pixels of a picture", np.round(hands * sizes + places)),
        ):
            right = sum(
                best(predictor(hand)["gesture"]) == label
                for hand, label in zip(points.astype(np.float32), labels, strict=True)
            )
            figures.append(
                Figure(
                    what=f"gestures, {what}: right of {len(hands)}",
                    got=right / len(hands),
                    least=0.96,
                    asked="0.965",
                )
            )
    return figures


def voices(assets: Path) -> list[Figure]:
    """Return how much of a recording is speech, and how sure the model is of it in white noise."""
    noise = np.random.default_rng(SEED).standard_normal(20 * RATE_HZ).astype(np.float32) * np.float32(0.1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "noise.wav"
        file.write_bytes(wav_bytes(noise, RATE_HZ))
        with load(assets / "models/silero-vad/silero_vad.onnx", processing="silero_vad") as predictor:
            speech = array(predictor(assets / "data/silero-audio/test.wav")["speech"])
            hiss = array(predictor(file)["speech"])
    return [
        Figure(what="voices: runs of 512 samples", got=len(speech), least=1875, most=1875, asked="1875"),
        Figure(
            what="voices: share at 0.5 or above",
            got=float((speech >= 0.5).mean()),
            least=0.772,
            most=0.776,
            asked="0.774",
        ),
        Figure(
            what="voices: largest score in white noise",
            got=float(hiss.max()),
            least=0,
            most=0.1,
            asked="0.035 (other noise)",
        ),
    ]


def denoising(assets: Path) -> list[Figure]:
    """Return the scale-invariant ratio of signal to noise before and after DTLN, in dB."""
    clean = read_audio(assets / "data/silero-audio/test.wav", rate_hz=RATE_HZ)[: 12 * RATE_HZ]
    noise = np.random.default_rng(SEED).standard_normal(len(clean))
    noise *= np.linalg.norm(clean) / np.linalg.norm(noise) * 10 ** (-5 / 20)
    noisy = (clean + noise).astype(np.float32)
    before = ratio_db(clean, noisy)
    figures = [Figure(what="noise: dB before", got=before, least=4.8, most=5.2, asked="5.0")]
    with tempfile.TemporaryDirectory() as folder:
        # The samples of the file are those that are compared: the file's steps of 1 / 32768 are part of the noise.
        file = Path(folder) / "noisy.wav"
        file.write_bytes(wav_bytes(noisy, RATE_HZ))
        for suffix in ("onnx", "tflite"):
            paths = [assets / f"models/dtln/model_{n}.{suffix}" for n in (1, 2)]
            with load(paths, processing="dtln") as predictor:
                result = predictor(file)["clean"]
            assert isinstance(result, Waveform)
            after = ratio_db(clean, np.asarray(result.samples, dtype=np.float32))
            figures.append(Figure(what=f"noise: dB after, {suffix}", got=after, least=14.8, asked="15.2"))
    return figures


def motion(assets: Path) -> list[Figure]:
    """Return the share of test series whose best class is theirs, by a network that is trained here."""
    from motion_network import read_series, write_network

    folder = assets / "data/basic-motions"
    series, labels = read_series(folder / "BasicMotions_TEST.ts")
    with tempfile.TemporaryDirectory() as made:
        model = write_network(folder / "BasicMotions_TRAIN.ts", Path(made), seed=SEED)
        with load(model, processing="motion") as predictor:
            right = sum(
                best(predictor(one)["activity"]) == label for one, label in zip(series, labels, strict=True)
            )
    return [
        Figure(
            what=f"motion: right of {len(series)} test series",
            got=right / len(series),
            least=0.9,
            asked="(no model there)",
        )
    ]


def best(result: object) -> int:
    """Return the index of the best class."""
    assert isinstance(result, Classes)
    return result.labels[0].index


def array(result: object) -> npt.NDArray[np.float32]:
    """Return the numbers of a result."""
    assert isinstance(result, Values)
    return np.asarray(result.array, dtype=np.float32)


def ratio_db(clean: Floats, made: Floats) -> float:
    """Return the scale-invariant ratio of signal to distortion (SI-SDR, Le Roux et al. 2019), means taken off."""
    signal, estimate = (np.asarray(x, dtype=np.float64) - np.mean(x, dtype=np.float64) for x in (clean, made))
    target = signal * (estimate @ signal) / (signal @ signal)
    return float(10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target))))


if __name__ == "__main__":
    sys.exit(main())
