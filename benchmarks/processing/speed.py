"""The C core against OpenCV, Pillow and librosa: the same work, one thread each, in turns.

    python -m benchmarks.processing.speed [--rounds 200]

It needs a C compiler and, beside edgewright, opencv-python-headless, pillow and librosa; what is missing is left out.
A row is the median of all rounds; the ratio is the median of the rounds' ratios, as both take turns.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.core.tensors import Array, TensorSpec
from edgewright.processing.c_host import CProcessor
from edgewright.processing.c_program import COptions
from edgewright.processing.processor import Plan, Signature, plan
from edgewright.processing.registry import read_step
from edgewright.processing.specification import Flow, RawInput, ResultFlow, Specification

HEIGHT, WIDTH, SIDE = 1080, 1920, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATE_HZ, SECONDS = 16000, 10
FACTOR = (1.0 / (255.0 * np.array(STD))).astype(np.float32)
OFFSET = (-np.array(MEAN) / np.array(STD)).astype(np.float32)
Work = Callable[[], Array]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The same work by the core and by others."""

    title: str
    core: Work
    others: Mapping[str, Work]
    tolerance: float  # of the results, in the range of the core's


def preparing(raw: RawInput, rows: Sequence[Mapping[str, object]], shape: tuple[int, ...]) -> Plan:
    """Return a plan that makes a float32 tensor of `shape`."""
    signature = Signature(
        inputs=(TensorSpec(name="x", shape=(1, *shape), dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=(1, 1), dtype="float32"),),
    )
    steps = tuple(read_step(dict(row), what="benchmark") for row in rows)
    specification = Specification(
        task="other",
        inputs=(raw,),
        tensors=(Flow(name="x", sources=(raw.name,), steps=steps),),
        results=(ResultFlow(name="out", sources=("y",)),),
    )
    return plan(specification, signature)


def frame() -> Array:
    """Return a 1080p frame with detail at all scales."""
    generator = np.random.default_rng(0)
    total = np.zeros((HEIGHT, WIDTH, 3))
    for cells in (8, 40, 216, 1080):
        coarse = generator.uniform(-1, 1, (cells + 1, cells * 2 + 1, 3)) * 40
        total += np.kron(coarse, np.ones((-(-HEIGHT // cells), -(-WIDTH // (2 * cells)), 1)))[:HEIGHT, :WIDTH]
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def core_of(checked: Plan, raw: Array, folder: Path, name: str) -> Work:
    """Return the work of the core on `raw`, input and output where they lie."""
    processor = CProcessor(
        checked, folder, name=name, options=COptions(max_side=2048, max_rows=RATE_HZ * SECONDS)
    )
    processor.set_inputs({checked.specification.inputs[0].name: raw})
    made = processor.tensor(0, 0)

    def work() -> Array:
        processor.compute()
        return made

    return work


def image_contests(folder: Path) -> list[Contest]:
    """Return resize and normalization of a frame, plain and with antialias, channels last and first."""
    raw, pixels = RawInput(name="image", kind="image"), frame()
    made = []
    for antialias in (False, True):
        for layout in ("hwc", "chw"):
            rows: list[Mapping[str, object]] = [
                {"step": "resize", "height": SIDE, "width": SIDE, "antialias": antialias},
                {"step": "normalize", "mean": list(MEAN), "std": list(STD)},
                {"step": "layout", "layout": layout},
            ]
            shape = (SIDE, SIDE, 3) if layout == "hwc" else (3, SIDE, SIDE)
            work = core_of(preparing(raw, rows, shape), pixels, folder, f"image_{int(antialias)}_{layout}")
            others = {} if antialias else opencv_works(pixels, layout)
            if antialias:
                others |= pillow_works(pixels, layout)
            title = (
                f"1080p to {SIDE}x{SIDE}, {'antialiased ' if antialias else ''}bilinear, normalized, {layout}"
            )
            made.append(Contest(title=title, core=work, others=others, tolerance=0.02))
    return made


def normalized(small: Array, layout: str) -> Array:
    """Return `small` normalized by numpy, in place where it can be."""
    values = np.multiply(small, FACTOR, dtype=np.float32)
    values += OFFSET
    return np.ascontiguousarray(values.transpose(2, 0, 1)) if layout == "chw" else values


def opencv_works(pixels: Array, layout: str) -> dict[str, Work]:
    """Return the same by OpenCV: normalized by numpy, and by its own functions."""
    try:
        import cv2
    except ImportError:
        return {}
    cv2.setNumThreads(1)

    def with_numpy() -> Array:
        return normalized(cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), layout)

    def with_opencv() -> Array:
        small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        planes = [
            cv2.addWeighted(plane, float(FACTOR[c]), plane, 0.0, float(OFFSET[c]), dtype=cv2.CV_32F)
            for c, plane in enumerate(cv2.split(small))
        ]
        return np.stack(planes) if layout == "chw" else np.asarray(cv2.merge(planes))

    return {f"OpenCV {cv2.__version__} + numpy": with_numpy, f"OpenCV {cv2.__version__} alone": with_opencv}


def pillow_works(pixels: Array, layout: str) -> dict[str, Work]:
    """Return the same by Pillow; the image is a Pillow image already."""
    try:
        import PIL
        from PIL import Image
    except ImportError:
        return {}
    image = Image.fromarray(pixels)

    def work() -> Array:
        return normalized(np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)), layout)

    return {f"Pillow {PIL.__version__} + numpy": work}


def sound_contests(folder: Path) -> list[Contest]:
    """Return the MFCC of ten seconds."""
    generator = np.random.default_rng(1)
    samples = (generator.standard_normal(RATE_HZ * SECONDS) * 0.1).astype(np.float32)
    raw = RawInput(name="clip", kind="audio", rate_hz=RATE_HZ, samples=len(samples))
    rows: list[Mapping[str, object]] = [
        {"step": "frame", "length": 512, "hop": 160, "window": "hann", "centre": True},
        {"step": "fft", "size": 512},
        {"step": "magnitude", "power": 2},
        {"step": "mel", "bins": 40, "scale": "slaney", "norm": "slaney"},
        {"step": "log", "scale": "db", "span": 80.0},
        {"step": "dct", "coefficients": 13},
    ]
    work = core_of(preparing(raw, rows, (1 + len(samples) // 160, 13)), samples, folder, "mfcc")
    others: dict[str, Work] = {}
    try:
        import librosa

        def mfcc() -> Array:
            made = librosa.feature.mfcc(
                y=samples, sr=RATE_HZ, n_mfcc=13, n_fft=512, hop_length=160, n_mels=40, pad_mode="constant"
            )
            return np.asarray(made.T)

        others[f"librosa {librosa.__version__}"] = mfcc
    except ImportError:
        pass
    return [Contest(title=f"MFCC of {SECONDS} s at {RATE_HZ} Hz", core=work, others=others, tolerance=1e-3)]


def run(contest: Contest, rounds: int) -> None:
    """Print the medians of `rounds` rounds; the contestants take turns, the first one another each round."""
    works = {"edgewright C": contest.core, **contest.others}
    results = {name: np.array(work(), dtype=np.float64) for name, work in works.items()}
    wanted = results["edgewright C"]
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begin = time.perf_counter()
            works[name]()
            times[name].append(time.perf_counter() - begin)
    print(contest.title)
    for name in names:
        away = float(np.abs(results[name] - wanted).max() / np.ptp(wanted))
        assert away <= contest.tolerance, f"{name} computes something else: {away}"
        ratio = float(np.median(np.array(times[name]) / np.array(times["edgewright C"])))
        print(
            f"  {name:32} {np.median(times[name]) * 1e6:9.0f} us   {ratio:5.2f} x   away {away:.1e} of the range"
        )


def main() -> None:
    """Run every contest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        for contest in (*image_contests(Path(folder)), *sound_contests(Path(folder))):
            run(contest, rounds)


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    main()
