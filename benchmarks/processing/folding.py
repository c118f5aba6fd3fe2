"""Models with their processing inside: does the app get what it got before, from raw pixels, in every runtime?

Each model is converted twice for LiteRT, ONNX Runtime and OpenVINO: as it is, with its processing outside, and with
`--fold-processing`. Both run in the real runtime on the same images, and the final results are compared: the number of
boxes, their classes, coordinates and scores, the scores of classes, the pixels of masks. The first group takes
photographs of any size, and shows that the folded artifacts still give what MANIFEST.md knows. The second takes frames
of a camera of 480 x 640, whose resize goes inside, too. "apart" is the largest difference of a coordinate in pixels of
the frame or of a score; of masks, the share of the pixels.

A quantized source (DeepLab, MobileNet) computes in float once it is folded, with the same rounding; it is compared with
the same model made so without folding.

Prints what went inside, what stayed and why, the table, and HOLDS, or FAILS with what is below its bound; what a
runtime does not convert is listed. Times are not measured.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from precision import Found, average_precision, read_truth
from reporting import conditions, parser_for, print_table, write_json

from edgewright.backends.conversion import convert_all
from edgewright.bridges.crossing import to_pt2
from edgewright.core.artifact import Artifact
from edgewright.core.errors import EdgewrightError
from edgewright.core.files import work_folder
from edgewright.core.progress import silent
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, TensorSpec
from edgewright.pipeline import load_source, plan_processing
from edgewright.prediction import Predictor
from edgewright.processing.audio_files import read_audio
from edgewright.processing.choice import choose, rebind
from edgewright.processing.media import read_image
from edgewright.processing.nms import Nms
from edgewright.processing.planning import Plan, plan
from edgewright.processing.resampling import resample
from edgewright.processing.signature import Signature
from edgewright.processing.specification import Specification, write_specification
from edgewright.processing.step import floats
from edgewright.recipe import Recipe
from edgewright.workers.cache import Cache

RUNTIMES = ("litert", "onnxruntime", "openvino")
FRAME = (480, 640)

Results = Mapping[str, Array]  # of one input, by name
Raws = Mapping[str, Array]  # name of a file -> what is in it


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, what it runs on, and what is known of its results.

    Attributes:
        preset: of its processing, which `change` may change.
        known: (assets, file -> results) -> figure, the least that it may be, and what is known of it in words. Of the
            artifact with its processing outside it is the same.
    """

    name: str
    file: str
    preset: str
    raws: Callable[[Path], Raws]
    change: Callable[[Specification], Specification] = lambda specification: specification
    known: Callable[[Path, Mapping[str, Results]], tuple[float, float, str]] | None = None


@dataclass(kw_only=True)
class Comparison:
    """Results of the artifact with its processing inside beside those of the other."""

    same: int = 0
    things: int = 0
    apart: float = 0.0

    def add(self, want: Array, got: Array, kind: str) -> None:
        """Compare one result: boxes in order, the best class, a mask."""
        if kind == "mask":
            self.things += 1
            self.same += want.shape == got.shape
            self.apart = max(self.apart, float((want != got).mean()) if want.shape == got.shape else 1.0)
            return
        if kind == "classes":
            self.things += 1
            is_same = bool(want[0, 0] == got[0, 0])
            self.same += is_same
            self.apart = max(self.apart, float(abs(want[0, 1] - got[0, 1])) if is_same else 1.0)
            return
        self.things += max(len(want), len(got))
        for a, b in zip(want, got, strict=False):
            if a[5] == b[5]:
                self.same += 1
                self.apart = max(self.apart, float(np.abs(a - b).max()))


def photographs(*names: str) -> Callable[[Path], Raws]:
    """Return a function that reads the named Coral photographs."""
    return lambda assets: {name: read_image(assets / "data/coral-images" / name) for name in names}


def coco(assets: Path) -> Raws:
    """Return the 26 images of coco-mini."""
    return {path.name: read_image(path) for path in sorted((assets / "data/coco-mini/images").iterdir())}


def frames(assets: Path) -> Raws:
    """Return photographs as frames of a camera: all of one size."""
    wanted = dict(photographs("grace_hopper.bmp", "cat.bmp", "bird_segmentation.bmp", "parrot.jpg")(assets))
    wanted |= dict(list(coco(assets).items())[:8])
    return {
        name: resample(image, *FRAME, method="bilinear", antialias=True, corners="half_pixel")
        for name, image in wanted.items()
    }


def clips(assets: Path) -> Raws:
    """Return 24 clips of speech."""
    files = sorted((assets / "data/speech-commands").rglob("*.wav"))[::17][:24]
    return {path.name: read_audio(path, rate_hz=16_000) for path in files}


def sized(specification: Specification) -> Specification:
    """Return the specification for frames of the camera's size."""
    (row,) = specification.inputs
    return replace(specification, inputs=(replace(row, height=FRAME[0], width=FRAME[1]),))


def wide(specification: Specification) -> Specification:
    """Return the specification with boxes of low scores, of which average precision is made."""
    (result,) = specification.results
    steps = tuple(replace(s, score=0.01, limit=300) if isinstance(s, Nms) else s for s in result.steps)
    return replace(specification, results=(replace(result, steps=steps),))


def faces(assets: Path, found: Mapping[str, Results]) -> tuple[float, float, str]:
    """Return how many of the two photographs show as many faces as is known."""
    counts = {name: len(results["boxes"]) for name, results in found.items()}
    return (
        float(sum(counts[name] == n for name, n in (("grace_hopper.bmp", 1), ("cat.bmp", 0)))),
        2,
        "1, 0 faces",
    )


def precision(assets: Path, found: Mapping[str, Results]) -> tuple[float, float, str]:
    """Return the average precision on coco-mini; the same network gives 0.402 in ncnn, whose weights are fp16."""
    boxes = [
        Found(image=name, label=int(row[5]), score=float(row[4]), box=row[:4])
        for name, results in found.items()
        for row in results["boxes"]
    ]
    truth = {
        name: read_truth(assets / "data/coco-mini/images" / name, image.shape)
        for name, image in coco(assets).items()
    }
    return average_precision(boxes, truth), 0.3, "AP of at least 0.3"


def overlap(assets: Path, found: Mapping[str, Results]) -> tuple[float, float, str]:
    """Return the intersection over union of the bird and its mask."""
    mask = read_image(assets / "data/coral-images/bird_segmentation_mask.bmp", order="grey")[..., 0]
    truth, there = floats(mask) > 0, floats(found["bird_segmentation.bmp"]["mask"]) > 0
    return float((truth & there).sum() / (truth | there).sum()), 0.88, "IoU 0.893"


def people(assets: Path, found: Mapping[str, Results]) -> tuple[float, float, str]:
    """Return the share of the images of coco-mini of which the detector is right."""
    truth = {
        name: any(box.label == 0 for box in read_truth(assets / "data/coco-mini/images" / name, image.shape))
        for name, image in coco(assets).items()
    }
    right = sum((int(results["classes"][0, 0]) == 1) == truth[name] for name, results in found.items())
    return right / len(truth), 0.84, "84.6 %"


_FACES = "models/ultraface-slim/version-slim-320.onnx"
_FACES_RAW = "models/ultraface-slim/version-slim-320_without_postprocessing.tflite"
_FAST = "models/fastestdet/FastestDet.onnx"
_MASK = "models/coral/deeplabv3_mnv2_dm05_pascal_quant.tflite"
_PERSON = "models/mlperf-tiny/vww_mobilenet_96_fp32.tflite"
_SMALL = "models/coral/mobilenet_v1_0.25_128_quant.tflite"
_CLASSES = "models/coral/mobilenet_v2_1.0_224_quant.tflite"
_PORTRAITS = photographs("grace_hopper.bmp", "cat.bmp")

SUBJECTS = (
    Subject(name="ultraface", file=_FACES, preset="ultraface", raws=_PORTRAITS, known=faces),
    Subject(name="ultraface_raw", file=_FACES_RAW, preset="ultraface_raw", raws=_PORTRAITS, known=faces),
    Subject(name="fastestdet", file=_FAST, preset="fastestdet", raws=coco, change=wide, known=precision),
    Subject(
        name="deeplab", file=_MASK, preset="deeplab", raws=photographs("bird_segmentation.bmp"), known=overlap
    ),
    Subject(name="person", file=_PERSON, preset="person_detect", raws=coco, known=people),
    Subject(name="keywords", file="models/mlperf-tiny/kws_dscnn_fp32.tflite", preset="kws_mfcc", raws=clips),
    Subject(name="ultraface 480x640", file=_FACES, preset="ultraface", raws=frames, change=sized),
    Subject(name="ultraface_raw 480x640", file=_FACES_RAW, preset="ultraface_raw", raws=frames, change=sized),
    Subject(name="fastestdet 480x640", file=_FAST, preset="fastestdet", raws=frames, change=sized),
    Subject(name="deeplab 480x640", file=_MASK, preset="deeplab", raws=frames, change=sized),
    Subject(name="person 480x640", file=_PERSON, preset="person_detect", raws=frames, change=sized),
    Subject(name="mobilenet_v1 480x640", file=_SMALL, preset="mobilenet_v1", raws=frames, change=sized),
    Subject(name="mobilenet_v2 480x640", file=_CLASSES, preset="mobilenet_v1", raws=frames, change=sized),
)
_APART = 2e-3  # of a score, of a pixel of the frame, of the pixels of a mask, of a figure


def main() -> int:
    """Print what went inside and the table; return 0 when each row keeps its bound."""
    parser = parser_for(__doc__)
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--only", choices=names, action="append", help="one model; may be given again")
    parser.add_argument("--to", choices=RUNTIMES, action="append", help="one runtime; may be given again")
    options = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    for subject in SUBJECTS:
        if not options.only or subject.name in options.only:
            rows += compare(subject, options.assets, options.to or RUNTIMES)
            print(
                f"{subject.name}: {', '.join(f'{r[1]} {r[-1]}' for r in rows if r[0] == subject.name)}",
                file=sys.stderr,
            )
    print()
    print_table(("model", "runtime", "same", "apart", "figure", "unfolded", "expected", ""), rows)
    header = ("model", "runtime", "same", "apart", "figure", "unfolded", "expected", "verdict")
    record: dict[str, object] = {
        "conditions": conditions(),
        "rows": [dict(zip(header, row, strict=True)) for row in rows],
    }
    write_json(options.json, record)
    failed = [f"{row[0]} in {row[1]}" for row in rows if row[-1] == "FAILS"]
    right = sum(row[-1] == "ok" for row in rows)
    if failed or not right:
        print(f"FAILS: {', '.join(failed) or 'nothing was converted'}")
        return 1
    print(
        f"HOLDS: the same results from inside and from outside in {right} of {len(rows)}, the rest not converted"
    )
    return 0


def compare(subject: Subject, assets: Path, runtimes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the subject's row for each runtime."""
    raws = subject.raws(assets)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        work = Path(folder)
        apart = artifacts(subject, assets, runtimes, work / "apart", is_folded=False)
        inside = artifacts(subject, assets, runtimes, work / "inside", is_folded=True)
        return [row(subject, assets, raws, name, apart[name], inside[name]) for name in runtimes]


def row(
    subject: Subject,
    assets: Path,
    raws: Raws,
    runtime: str,
    apart: tuple[Plan, Artifact] | str,
    inside: tuple[Plan, Artifact] | str,
) -> tuple[str, ...]:
    """Return the row of one runtime: run both artifacts, and compare."""
    for made in (apart, inside):
        if isinstance(made, str):
            return subject.name, runtime, "-", "-", "-", "-", "", "not converted"
    assert not isinstance(apart, str) and not isinstance(inside, str)
    found = [results(*made, raws) for made in (apart, inside)]
    compared = Comparison()
    for name in raws:
        for result, kind in apart[0].results.items():
            compared.add(found[0][name][result], found[1][name][result], kind.kind)
    got, least, asked = subject.known(assets, found[1]) if subject.known else (0.0, 0.0, "")
    outside = subject.known(assets, found[0])[0] if subject.known else 0.0
    is_right = compared.same == compared.things and compared.apart <= _APART
    is_right &= got >= least and abs(got - outside) <= _APART
    figures = (f"{got:.3g}", f"{outside:.3g}") if subject.known else ("", "")
    return (
        subject.name, runtime, f"{compared.same} of {compared.things}", f"{compared.apart:.1e}", *figures, asked,
        "ok" if is_right else "FAILS",
    )  # fmt: skip


def artifacts(
    subject: Subject, assets: Path, runtimes: Sequence[str], work: Path, *, is_folded: bool
) -> dict[str, tuple[Plan, Artifact] | str]:
    """Return runtime -> the plan and the artifact that it made, or why there is none."""
    path = assets / subject.file
    recipe = Recipe(model=str(path), runtimes=("onnxruntime",), precisions=("fp32",))
    try:
        source = load_source(recipe, work / "source", layout=None)
        signature = Signature(inputs=source.inputs, outputs=source.outputs)
        specification = subject.change(choose(subject.preset, {"": path}, {"": signature}))
        written = write_specification(specification, work / "processing")
        own = replace(recipe, processing=str(written), fold_processing=is_folded)
        program, checked = plan_processing(own, source, work / "own")
        if not is_folded and checked is not None and source.precision != "fp32":
            # Folded it rounds as the integer model does, but in float: what folding changes shows beside the same.
            bridged = to_pt2(source, work / "float", what="comparison")
            own_signature = Signature(inputs=bridged.inputs, outputs=bridged.outputs)
            checked = plan(rebind(checked.specification, signature, own_signature), own_signature)
            program = replace(bridged, precision="fp32")
    except EdgewrightError as err:
        print(f"{subject.name} {'folded' if is_folded else 'apart'}: {err}", flush=True)
        return dict.fromkeys(runtimes, str(err))
    assert checked is not None
    if is_folded:
        print(f"{subject.name}", *program.notes, sep="\n    ", flush=True)
    targets = [Target(runtime=runtime, precision=Precision(program.precision)) for runtime in runtimes]
    made = convert_all(program, targets, None, workdir=work / "made", cache=Cache(root=None), progress=silent)
    found: dict[str, tuple[Plan, Artifact] | str] = {}
    for target in targets:
        conversion = made[target.artifact_id]
        if conversion.artifact is None:
            found[target.runtime] = str(conversion.error)
            print(f"{subject.name} in {target.runtime} is not converted: {conversion.error}", flush=True)
            continue
        given = Signature(inputs=program.inputs, outputs=program.outputs)
        # Names are the artifact's; its file may say less of the sizes than the program does.
        taken = Signature(
            inputs=renamed(given.inputs, conversion.artifact.inputs),
            outputs=renamed(given.outputs, conversion.artifact.outputs),
        )
        fitted = plan(rebind(checked.specification, given, taken), taken)
        artifact = replace(conversion.artifact, inputs=taken.inputs, outputs=taken.outputs)
        found[target.runtime] = fitted, artifact
    return found


def renamed(specs: Sequence[TensorSpec], named: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return `specs` with the names of `named`."""
    return tuple(replace(spec, name=own.name) for spec, own in zip(specs, named, strict=True))


def results(checked: Plan, artifact: Artifact, raws: Raws) -> dict[str, Results]:
    """Return file -> the results of running it."""
    (row,) = checked.specification.inputs
    with work_folder(), Predictor(checked, {"": artifact}) as predictor:
        return {name: predictor.arrays({row.name: raw}) for name, raw in raws.items()}


if __name__ == "__main__":
    raise SystemExit(main())
