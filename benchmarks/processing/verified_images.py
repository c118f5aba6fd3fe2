"""Images from raw files through their presets: do the figures of MANIFEST.md come out?

Models in LiteRT and ONNX run by `edgewright.load`, as an app would use it: image files in, typed results out.
FastestDet runs in ncnn and TFLM's person detector, which LiteRT refuses, as C made by Edgewright, both between the
steps of their specification.

    classes    MobileNet v1 and v2 on the Coral photographs, by the preset and by the model's own metadata
    people     the person detectors, on TFLM's two images and on photographs with and without people
    faces      UltraFace with and without its decoding inside, on a portrait and on a cat
    boxes      FastestDet on the 26 images of coco-mini: average precision at IoU 0.5, mean of the classes present
    mask       DeepLab v3 on the bird: intersection over union, and pixels that agree

Prints a table and HOLDS, or FAILS with what is below its bound. Times are not measured.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from figures import Figure, report
from precision import Found, average_precision, iou, read_truth
from reporting import parser_for

from edgewright.backends.c import CBackend
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.prediction import Predictor, load
from edgewright.processing.media import read_image
from edgewright.processing.nms import Nms
from edgewright.processing.presets import Quantization, Subject, make
from edgewright.processing.processor import Execute, Processor, Signature, plan
from edgewright.processing.results import Boxes, Classes, Label, Mask
from edgewright.processing.specification import Specification
from edgewright.sources.tflite import end_quantization, read_tflite

# photograph -> (word in its label, the score that MANIFEST.md gives for MobileNet v2)
_PHOTOGRAPHS = {
    "parrot.jpg": ("macaw", 1.00),
    "cat.bmp": ("cat", 0.76),
    "hot_dog.jpg": ("hot dog", 0.94),
    "grace_hopper.bmp": ("uniform", 0.89),
}
_PERSON = 0  # in COCO


def main() -> int:
    """Print all figures; return 0 when each keeps its bound."""
    parts = {part.__name__: part for part in (classes, people, faces, boxes, mask)}
    parser = parser_for(__doc__)
    parser.add_argument("--only", choices=parts, action="append", help="one part; may be given again")
    options = parser.parse_args()
    figures: list[Figure] = []
    for name in options.only or parts:
        figures += parts[name](options.assets)
        print(f"{name}: done", file=sys.stderr, flush=True)
    return report(figures, options.json)


def classes(assets: Path) -> list[Figure]:
    """Return the scores of MobileNet v2 for what the photographs show, and how many v1 knows."""
    figures = []
    folder, models = assets / "data/coral-images", assets / "models/coral"
    v2 = models / "mobilenet_v2_1.0_224_quant.tflite"
    for preset in (None, "mobilenet_v1"):
        with load(v2, processing=preset) as predictor:
            for name, (word, score) in _PHOTOGRAPHS.items():
                best = first(predictor, folder / name)
                # MANIFEST.md's scores are of the whole photograph, stretched; the preset takes its centre.
                asked, least = ("", 0.3) if preset else (f"{score:.2f}", score - 0.01)
                how = f"preset {preset}" if preset else "its metadata"
                figures.append(
                    Figure(
                        what=f"MobileNet v2, {how}: {name}, {best.name.split(',')[0]}",
                        got=best.score if word in best.name else 0.0,
                        least=least,
                        asked=asked,
                    )
                )
    with load(models / "mobilenet_v1_0.25_128_quant.tflite") as predictor:
        right = sum(word in first(predictor, folder / name).name for name, (word, _) in _PHOTOGRAPHS.items())
    figures.append(Figure(what="MobileNet v1 0.25, its metadata: right of 4", got=right, least=2))
    return figures


def people(assets: Path) -> list[Figure]:
    """Return how often the detectors of people are right."""
    figures = []
    images = sorted((assets / "data/coco-mini/images").iterdir())
    truth = [_PERSON in {box.label for box in read_truth(image, read_image(image).shape)} for image in images]
    for precision in ("fp32", "int8"):
        path = assets / f"models/mlperf-tiny/vww_mobilenet_96_{precision}.tflite"
        with load(path, processing="person_detect") as predictor:
            right = sum(
                (first(predictor, image).index == 1) == is_there
                for image, is_there in zip(images, truth, strict=True)
            )
        figures.append(
            Figure(
                what=f"Visual Wake Words, {precision}: right of 26 images of coco-mini ({sum(truth)} with people)",
                got=right / len(images),
                least=0.75,
                asked="0.867 (n=120)",
            )
        )
    model = assets / "models/tflite-micro/person_detect.tflite"
    with made_c(model) as (signature, execute):
        ends = {name: Quantization(scale=s, zero_point=z) for name, (s, z) in end_quantization(model).items()}
        subject = Subject(path=model, signature=signature, quantization=ends)
        processor = Processor(plan(make("person_detect", {"": subject}), signature))
        for name, index in (("person", 1), ("no_person", 0)):
            image = read_image(assets / f"data/person-detect/{name}.bmp")
            if name == "person":
                # The file holds the model's int8 numbers as they lie in memory: 128 is black, 127 white.
                image = image ^ np.uint8(128)
            found = processor.run({"image": image}, execute)["classes"]
            figures.append(
                Figure(
                    what=f"TFLM's person detector in C, {name}.bmp: score of the right class",
                    got=float(found[found[:, 0] == index, 1][0]),
                    least=0.5,
                )
            )
    return figures


def faces(assets: Path) -> list[Figure]:
    """Return the numbers of faces, and how the two models of the same weights agree."""
    folder = assets / "data/coral-images"
    figures = []
    portraits: list[Boxes] = []
    for file, preset in (
        ("version-slim-320.onnx", "ultraface"),
        ("version-slim-320_without_postprocessing.tflite", "ultraface_raw"),
    ):
        with load(assets / "models/ultraface-slim" / file, processing=preset) as predictor:
            for name, count in (("grace_hopper.bmp", 1), ("cat.bmp", 0)):
                result = predictor(folder / name)["boxes"]
                assert isinstance(result, Boxes)
                if count:
                    portraits.append(result)
                figures.append(
                    Figure(
                        what=f"faces, {preset}: {name}", got=len(result.boxes),
                        least=count, most=count, asked=str(count),
                    )
                )  # fmt: skip
    corners = [np.array([b.x0, b.y0, b.x1, b.y1]) for result in portraits for b in result.boxes[:1]]
    both = iou(corners[0], corners[1]) if len(corners) == 2 else 0.0
    figures.append(Figure(what="faces: IoU of the boxes of both", got=both, least=0.95))
    return figures


def boxes(assets: Path) -> list[Figure]:
    """Return FastestDet's average precision, with its preset and with the colours swapped."""
    figures = []
    images = sorted((assets / "data/coco-mini/images").iterdir())
    folder = assets / "models/fastestdet"
    with ncnn_net(folder / "FastestDet.param", "input.1", "758", (85, 22, 22)) as (signature, execute):
        specification = make(
            "fastestdet", {"": Subject(path=folder / "FastestDet.param", signature=signature)}
        )
        for what, used, least in (
            ("FastestDet, coco-mini: AP at IoU 0.5", wide(specification), 0.3),
            ("the same, red and blue swapped", swapped(wide(specification)), 0.0),
        ):
            processor = Processor(plan(used, signature))
            found = []
            for image in images:
                rows = processor.run({"image": read_image(image)}, execute)["boxes"]
                found += [
                    Found(image=image.name, label=int(row[5]), score=float(row[4]), box=row[:4])
                    for row in rows
                ]
            truth = {image.name: read_truth(image, read_image(image).shape) for image in images}
            figures.append(Figure(what=what, got=average_precision(found, truth), least=least))
    return figures


def mask(assets: Path) -> list[Figure]:
    """Return how well DeepLab's mask of the bird agrees with the one that comes with it."""
    folder = assets / "data/coral-images"
    path = assets / "models/coral/deeplabv3_mnv2_dm05_pascal_quant.tflite"
    with load(path, processing="deeplab") as predictor:
        result = predictor(folder / "bird_segmentation.bmp")["mask"]
    assert isinstance(result, Mask)
    truth = read_image(folder / "bird_segmentation_mask.bmp", order="grey")[..., 0]
    there, found = truth > 0, result.classes > 0
    return [
        Figure(
            what="DeepLab, bird: IoU of what is no background",
            got=float((there & found).sum() / (there | found).sum()),
            least=0.88,
            asked="0.893",
        ),
        Figure(
            what="DeepLab, bird: pixels of the same class",
            got=float((truth == result.classes).mean()),
            least=0.955,
            asked="0.961",
        ),
    ]


def first(predictor: Predictor, image: Path) -> Label:
    """Return the best class of `image`."""
    result = predictor(image)["classes"]
    assert isinstance(result, Classes)
    return result.labels[0]


def wide(specification: Specification) -> Specification:
    """Return the specification with boxes of low scores, of which average precision is made."""
    (result,) = specification.results
    steps = tuple(replace(s, score=0.01, limit=300) if isinstance(s, Nms) else s for s in result.steps)
    return replace(specification, results=(replace(result, steps=steps),))


def swapped(specification: Specification) -> Specification:
    """Return the specification for a model that would take red first."""
    (tensor,) = specification.tensors
    steps = tuple(step for step in tensor.steps if step.name != "channels")
    return replace(specification, tensors=(replace(tensor, steps=steps),))


@contextmanager
def ncnn_net(
    param: Path, taken: str, given: str, shape: tuple[int, ...]
) -> Iterator[tuple[Signature, Execute]]:
    """Open a net of ncnn's own files; its blobs go by their names."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    net.load_param(str(param))
    net.load_model(str(param.with_suffix(".bin")))

    def execute(model: str, inputs: Arrays) -> Arrays:
        extractor = net.create_extractor()
        extractor.input(taken, ncnn.Mat(np.ascontiguousarray(inputs[taken][0])).clone())
        return {given: np.array(extractor.extract(given)[1])[None]}

    side = 352
    yield (
        Signature(
            inputs=(TensorSpec(name=taken, shape=(1, 3, side, side), dtype="float32"),),
            outputs=(TensorSpec(name=given, shape=(1, *shape), dtype="float32"),),
        ),
        execute,
    )
    net.clear()


@contextmanager
def made_c(path: Path) -> Iterator[tuple[Signature, Execute]]:
    """Make C of a quantized LiteRT model, and open it."""
    program = read_tflite(path, spec=str(path))
    target = Target(runtime="c", precision=Precision(program.precision))
    with tempfile.TemporaryDirectory() as folder:
        session = CBackend().open(CBackend().convert(program, target, None, Path(folder)), target)

        def execute(model: str, inputs: Arrays) -> dict[str, Array]:
            return dict(session.run(inputs))

        yield Signature(inputs=tuple(program.inputs), outputs=tuple(program.outputs)), execute
        session.close()


if __name__ == "__main__":
    raise SystemExit(main())
