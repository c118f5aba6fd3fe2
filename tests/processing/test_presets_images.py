"""Presets of images fit what they are for, give what their models' own code gives, and refuse the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import DataError, FormatMismatchError, RecipeError, UnknownNameError
from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.processing.boxes import JoinBoxes
from edgewright.processing.image_input import IMAGE as IMAGE_INPUT
from edgewright.processing.images import Normalize
from edgewright.processing.media import read_image
from edgewright.processing.nms import Nms
from edgewright.processing.preset_labels import COCO
from edgewright.processing.presets import Quantization, Subject, make
from edgewright.processing.processor import Processor, Signature, plan
from edgewright.processing.resize import Resize
from edgewright.processing.scores import TopK
from edgewright.processing.source import ToSource
from edgewright.processing.specification import (
    Flow,
    Model,
    RawInput,
    ResultFlow,
    Specification,
    read_specification,
    write_specification,
)
from edgewright.processing.tensors import Reshape

RNG = np.random.default_rng(2)
IMAGE = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)


def tensor(name: str, *shape: int | None, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


def subject(
    taken: TensorSpec, *given: TensorSpec, path: str = "m.onnx", **ends: tuple[float, int]
) -> Subject:
    quantization = {name: Quantization(scale=s, zero_point=z) for name, (s, z) in ends.items()}
    return Subject(
        path=Path(path), signature=Signature(inputs=(taken,), outputs=given), quantization=quantization
    )


def run(preset: str, model: Subject, given: Arrays, image: Array = IMAGE) -> tuple[dict[str, Array], Array]:
    """Return the results, and what the model was given."""
    seen: list[Array] = []

    def execute(name: str, inputs: Arrays) -> Arrays:
        seen.append(np.asarray(inputs[model.signature.inputs[0].name]))
        return given

    checked = plan(make(preset, {"": model}), model.signature)
    return Processor(checked).run({"image": image}, execute), seen[0]


def names(specification: Specification) -> list[str]:
    return [step.name for step in specification.tensors[0].steps]


def test_imagenet_is_torchvisions() -> None:
    model = subject(tensor("x", 1, 3, 224, 224), tensor("y", 1, 1000))
    logits = np.zeros((1, 1000), np.float32)
    logits[0, 7] = 5
    results, taken = run("imagenet", model, {"y": logits})
    # 60 x 80: the short side becomes 256, the long one 341; the centre is 224 x 224.
    from PIL import Image

    way = Image.Resampling.BILINEAR
    resized = np.asarray(Image.fromarray(IMAGE).resize((341, 60), way).resize((341, 256), way))
    want = (resized[16:240, 58:282] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(taken[0].transpose(1, 2, 0) - want).max() < 1e-5
    assert results["classes"][0] == pytest.approx([7, np.exp(5) / (np.exp(5) + 999)], rel=1e-5)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero", "steps"),
    [
        ("float32", 0.0, 0, ["crop", "resize", "normalize"]),
        ("uint8", 1 / 128, 128, ["crop", "resize"]),
        ("int8", 1 / 127.5, -1, ["crop", "resize", "normalize", "quantize"]),
        # A scale that does not make pixels of its integers.
        ("int8", 0.02, 3, ["crop", "resize", "normalize", "quantize"]),
    ],
)
def test_quantized_inputs_take_pixels(dtype: str, scale: float, zero: int, steps: list[str]) -> None:
    ends = {"x": (scale, zero)} if scale else {}
    model = subject(tensor("x", 1, 16, 16, 3, dtype=dtype), tensor("y", 1, 10), **ends)
    specification = make("mobilenet_v1", {"": model})
    assert names(specification) == steps
    _, taken = run("mobilenet_v1", model, {"y": np.zeros((1, 10), np.float32)})
    _, plain = run(
        "mobilenet_v1",
        subject(tensor("x", 1, 16, 16, 3), tensor("y", 1, 10)),
        {"y": np.zeros((1, 10), np.float32)},
    )
    meant = (taken.astype(np.float64) - zero) * scale if scale else taken
    low, high = ((np.array([-128, 127]) - zero) * scale) if dtype == "int8" else (-1.0, 1.0)
    assert np.abs(meant - np.clip(plain, low, high)).max() <= 1.01 * (scale or 1e-9)


def test_an_input_without_its_quantization_is_refused() -> None:
    model = subject(tensor("x", 1, 16, 16, 3, dtype="int8"), tensor("y", 1, 10))
    with pytest.raises(FormatMismatchError, match="does not say what they mean"):
        make("mobilenet_v1", {"": model})


def test_grey_people() -> None:
    model = subject(
        tensor("x", 1, 96, 96, 1, dtype="int8"), tensor("y", 1, 2, dtype="int8"), x=(0.0078431, -1), y=(1 / 256, -128)
    )  # fmt: skip
    results, taken = run("person_detect", model, {"y": np.array([[-128, 127]], np.int8)})
    assert results["classes"][0] == pytest.approx([1, 255 / 256])
    grey = (IMAGE @ [0.299, 0.587, 0.114]).mean() - 128
    assert taken.dtype == np.int8 and taken.mean() == pytest.approx(grey, abs=2)


def yolo_rows(count: int, place: int, row: Sequence[float]) -> Array:
    rows = np.zeros((count, len(row)), np.float32)
    rows[place] = row
    return rows


def test_heads_of_yolo_by_their_shape() -> None:
    taken = tensor("images", 1, 3, 64, 64)
    # 60 x 80 becomes 48 x 64, with borders of 8 above and below: back by 1.25, less 8.
    want = pytest.approx([30, 10, 50, 30, 0.8, 1], abs=1e-4)
    v8 = yolo_rows(84, 5, (32, 24, 16, 16, 0.1, 0.8, 0)).T[None]
    results, _ = run("yolo", subject(taken, tensor("o", 1, 7, 84)), {"o": v8})
    assert results["boxes"][0] == want
    v5 = yolo_rows(252, 5, (32, 24, 16, 16, 0.8, 0.1, 1, 0))[None]
    results, _ = run("yolo", subject(taken, tensor("o", 1, 252, 8)), {"o": v5})
    assert results["boxes"][0] == want
    end = yolo_rows(300, 5, (24, 16, 40, 32, 0.8, 1))[None]
    results, _ = run("yolo", subject(taken, tensor("o", 1, 300, 6)), {"o": end})
    assert results["boxes"][0] == want
    unit = v8 / np.array([64, 64, 64, 64, 1, 1, 1], np.float32)[:, None]
    litert = subject(tensor("images", 1, 64, 64, 3), tensor("o", 1, 7, 84), path="m.tflite")
    results, taken_pixels = run("yolo", litert, {"o": unit})
    assert results["boxes"][0] == want and taken_pixels[0, 0, 0] == pytest.approx(114 / 255)
    assert make("yolo", {"": subject(taken, tensor("o", 1, 84, 84))}).results[0].labels == COCO
    assert make("yolo", {"": subject(taken, tensor("o", 1, 252, 85))}).results[0].labels == COCO


def test_fastestdet_takes_blue_first() -> None:
    output = np.zeros((1, 7, 2, 2), np.float32)
    output[0, [0, 6], 1, 0] = 0.9, 1.0
    model = subject(tensor("x", 1, 3, 32, 32), tensor("o", 1, 7, 2, 2))
    results, taken = run("fastestdet", model, {"o": output})
    # Around the cell's corner at 0, 16 half of the image, 16 x 16; back by 2.5 and 1.875.
    assert results["boxes"][0] == pytest.approx([0, 15, 20, 45, 0.9**0.6, 1], abs=1e-4)
    assert taken[0].mean(axis=(1, 2)) == pytest.approx(IMAGE.mean(axis=(0, 1))[::-1] / 255, abs=0.02)


def test_outputs_of_ssd() -> None:
    outputs = (tensor("b", 1, 10, 4), tensor("c", 1, 10), tensor("s", 1, 10), tensor("n", 1))
    given = {
        "b": np.tile(np.array([0, 0.5, 0.5, 1], np.float32), (1, 10, 1)), "c": np.full((1, 10), 4, np.float32),
        "s": np.full((1, 10), 0.9, np.float32), "n": np.array([2], np.float32),
    }  # fmt: skip
    results, _ = run("ssd", subject(tensor("x", 1, 32, 32, 3), *outputs), given)
    assert results["boxes"].tolist() == [[40, 0, 80, 30, pytest.approx(0.9), 4]] * 2


def test_both_ultrafaces_give_the_same_face() -> None:
    taken = tensor("x", 1, 3, 240, 320)
    scores, boxes = np.zeros((1, 4420, 2), np.float32), np.zeros((1, 4420, 4), np.float32)
    scores[0, 4271] = 0.1, 0.9
    boxes[0, 4271] = 0.4, 0.2375, 0.7, 0.6375
    made, _ = run(
        "ultraface",
        subject(taken, tensor("s", 1, 4420, 2), tensor("b", 1, 4420, 4)),
        {"s": scores, "b": boxes},
    )
    raw, _ = run(
        "ultraface_raw",
        subject(taken, tensor("b", 1, None, 4), tensor("s", 1, None, 2)),
        {"s": scores, "b": np.zeros((1, 4420, 4), np.float32)},
    )
    assert made["boxes"][0] == pytest.approx([32, 14.25, 56, 38.25, 0.9, 0], abs=1e-3)
    # Anchor 4271 of 96 pixels, whose centre is at 176, 105.
    assert raw["boxes"][0] == pytest.approx([32, 14.25, 56, 38.25, 0.9, 0], abs=1e-3)


@pytest.mark.parametrize("first", [True, False])
def test_deeplab_from_scores(first: bool) -> None:
    scores = np.zeros((21, 8, 8) if first else (8, 8, 21), np.float32)
    scores[(3, slice(4), slice(8)) if first else (slice(4), slice(8), 3)] = 1
    model = subject(tensor("x", 1, 16, 16, 3), tensor("o", 1, *scores.shape))
    results, taken = run("deeplab", model, {"o": scores[None]})
    mask = results["mask"]
    # 60 x 80 is 12 x 16 at the top: rows 0..3 of 8 are the upper 40 of 60.
    assert mask.shape == (60, 80) and (mask[:40] == 3).all() and (mask[40:] == 0).all()
    assert np.abs(taken[0, 12:]).max() < 0.01


@pytest.mark.parametrize(
    ("preset", "model", "says"),
    [
        ("imagenet", subject(tensor("x", 1, 224, 224, 1), tensor("y", 1, 1000)), "three channels"),
        ("imagenet", subject(tensor("x", 1, 3, 224, 224), tensor("y", 1, 7, 7, 10)), "classes"),
        ("imagenet", subject(tensor("x", 1, 300), tensor("y", 1, 1000)), "an image"),
        ("imagenet", subject(tensor("x", 1, 3, 9, 3), tensor("y", 1, 1000)), "one of its axes"),
        ("cifar", subject(tensor("x", 1, 32, 32, 3), tensor("y", 1, 100)), "10 classes"),
        ("person_detect", subject(tensor("x", 1, 96, 96, 1), tensor("y", 1, 3)), "2 classes"),
        ("ssd", subject(tensor("x", 1, 300, 300, 3), tensor("y", 1, 1917, 4)), "outputs boxes"),
        ("yolo", subject(tensor("x", 1, 3, 64, 64), tensor("y", 1, 100, 8)), "252 rows"),
        ("yolo", subject(tensor("x", 1, 3, 64, 64), tensor("y", 1, 8)), r"\[1, channels, n\]"),
        ("fastestdet", subject(tensor("x", 1, 3, 64, 64), tensor("y", 1, 5, 4, 4)), "rows"),
        ("ultraface", subject(tensor("x", 1, 3, 240, 320), tensor("y", 1, 9, 4), tensor("z", 1, 9, 3)), "one"),
        ("ultraface_raw", subject(tensor("x", 1, 3, 240, 320), tensor("y", 1, 9, 4), tensor("z", 1, 9, 2)), "4420"),
        ("ultraface", subject(tensor("x", 1, 3, None, None), tensor("y", 1, 9, 4), tensor("z", 1, 9, 2)), "fixed size"),
        ("deeplab", subject(tensor("x", 1, 9, 9, 3), tensor("y", 1, 21)), "each pixel"),
    ],
)  # fmt: skip
def test_a_model_of_another_kind_is_refused(preset: str, model: Subject, says: str) -> None:
    with pytest.raises(FormatMismatchError, match=says):
        make(preset, {"": model})


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (7, 3), (16_384, 1)])
@pytest.mark.parametrize(
    ("preset", "shape"),
    [
        ("imagenet", (1, 3, 224, 224)), ("mobilenet_v1", (1, 128, 128, 3)),
        ("person_detect", (1, 96, 96, 1)), ("cifar", (1, 32, 32, 3)),
    ],
)  # fmt: skip
def test_images_of_odd_sizes(preset: str, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    count = {"person_detect": 2, "cifar": 10}.get(preset, 1000)
    model = subject(tensor("x", *shape), tensor("y", 1, count))
    image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    given = {"y": np.full((1, count), np.nan, np.float32)}
    if preset == "imagenet" and max(size) == 16_384:
        with pytest.raises(DataError, match="Crop it first"):
            run(preset, model, given, image)
        return
    if preset == "imagenet" and max(size) == 4000:
        with pytest.raises(DataError, match="1024000"):
            run(preset, model, given, image)
        return
    results, taken = run(preset, model, given, image)
    assert taken.shape == shape and np.isfinite(taken).all()
    assert len(results["classes"]) == min(5, count)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (7, 3), (16_384, 2)])
def test_boxes_of_odd_sizes_stay_inside(size: tuple[int, int]) -> None:
    model = subject(tensor("images", 1, 3, 64, 64), tensor("o", 1, 7, 84))
    output = RNG.uniform(0, 64, (1, 7, 84)).astype(np.float32)
    output[:, 4:] = RNG.uniform(0, 1, (1, 3, 84))
    output[0, :, 3], output[0, :, 7], output[0, 2, 9] = np.nan, np.inf, -np.inf
    results, taken = run("yolo", model, {"o": output}, RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    rows = results["boxes"]
    assert taken.shape == (1, 3, 64, 64) and np.isfinite(rows).all()
    assert (rows[:, :2] >= 0).all() and (rows[:, 2] <= size[1]).all() and (rows[:, 3] <= size[0]).all()
    assert (rows[:, 2:4] > rows[:, :2]).all()


def test_two_models_are_one_too_many() -> None:
    model = subject(tensor("x", 1, 3, 64, 64), tensor("y", 1, 252, 85))
    with pytest.raises(FormatMismatchError, match="one model"):
        make("yolo", {"a": model, "b": model})
    two = replace(model, signature=replace(model.signature, inputs=model.signature.inputs * 2))
    with pytest.raises(FormatMismatchError, match="one input"):
        make("yolo", {"": two})


def test_presets_survive_their_file(tmp_path: Path) -> None:
    model = subject(tensor("x", 1, 3, 240, 320), tensor("b", 1, None, 4), tensor("s", 1, None, 2))
    specification = make("ultraface_raw", {"": model})
    assert read_specification(write_specification(specification, tmp_path)) == specification


def test_deeplab_finds_the_bird(assets: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    path = assets / "models/coral/deeplabv3_mnv2_dm05_pascal_quant.tflite"
    interpreter = litert.Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    model = subject(
        tensor(taken["name"], 1, 513, 513, 3, dtype="uint8"), tensor(given["name"], 1, 513, 513, dtype="int64"),
        path=str(path), **{taken["name"]: (1 / 128, 128)},
    )  # fmt: skip

    def execute(name: str, inputs: Arrays) -> Arrays:
        interpreter.set_tensor(taken["index"], inputs[taken["name"]])
        interpreter.invoke()
        return {given["name"]: interpreter.get_tensor(given["index"])}

    folder = assets / "data/coral-images"
    processor = Processor(plan(make("deeplab", {"": model}), model.signature))
    mask = processor.run({"image": read_image(folder / "bird_segmentation.bmp")}, execute)["mask"]
    truth = read_image(folder / "bird_segmentation_mask.bmp", order="grey")[..., 0]
    assert (mask == truth).mean() > 0.955


def two_models(first: str, last: str) -> tuple[Specification, dict[str, Signature]]:
    """Return a detector and a classifier of one image; the results in this order."""
    boxes = tensor("b", 1, 9, 4), tensor("s", 1, 9, 1)
    signatures = {
        "faces": Signature(inputs=(tensor("x", 1, 8, 8, 3),), outputs=boxes),
        "moods": Signature(inputs=(tensor("x", 1, 4, 4, 3),), outputs=(tensor("y", 1, 5),)),
    }
    results = {
        "boxes": ResultFlow(
            name="boxes", sources=("faces.b", "faces.s"), steps=(JoinBoxes(), Nms(), ToSource())
        ),
        "count": ResultFlow(name="count", sources=("faces.s",), steps=(Reshape(shape=(9,)), TopK(k=1))),
        "mood": ResultFlow(name="mood", sources=("moods.y",), steps=(TopK(k=1),)),
    }
    order = (
        [results[first], results["mood"], results[last]]
        if last != "mood"
        else [results[first], results["mood"]]
    )
    return Specification(
        task="other",
        inputs=(IMAGE_INPUT,),
        models=(Model(name="faces"), Model(name="moods")),
        tensors=(
            Flow(name="faces.x", sources=("image",), steps=(Resize(height=8, width=8), Normalize())),
            Flow(name="moods.x", sources=("image",), steps=(Resize(height=4, width=4), Normalize())),
        ),
        results=tuple(order),
    ), signatures


def test_boxes_go_back_by_the_geometry_that_they_come_from() -> None:
    checked = plan(*two_models("boxes", "mood"))
    corners = np.tile(np.array([2, 2, 6, 6], np.float32), (1, 9, 1))

    def execute(name: str, inputs: Arrays) -> Arrays:
        scores = np.full((1, 9, 1), 0.9, np.float32)
        return {"b": corners, "s": scores} if name == "faces" else {"y": np.zeros((1, 5), np.float32)}

    made = Processor(checked).run({"image": IMAGE}, execute)["boxes"]
    assert made[0, :4].tolist() == [20, 15, 60, 45]
    # The other model's size would be taken.
    with pytest.raises(RecipeError, match=r"'moods.x' is prepared"):
        plan(*two_models("count", "boxes"))


def test_the_image_that_results_go_back_to_must_be_there() -> None:
    specification, signatures = two_models("boxes", "mood")
    (boxes, mood) = specification.results
    other = replace(boxes, steps=(JoinBoxes(), Nms(), ToSource(image="imago")))
    with pytest.raises(UnknownNameError, match="'image'"):
        plan(replace(specification, results=(other, mood)), signatures)
    points = RawInput(name="points", kind="tensor", shape=(8, 8, 3))
    flow = Flow(name="faces.x", sources=("points",))
    with pytest.raises(RecipeError, match="0 inputs are images"):
        plan(
            replace(
                specification, inputs=(points,), models=specification.models[:1], tensors=(flow,), results=(boxes,)
            ),
            {"faces": signatures["faces"]},
        )  # fmt: skip
