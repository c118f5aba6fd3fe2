"""Presets for whole images: classes and masks."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright.core.tensors import TensorSpec
from edgewright.processing.image_input import HALF, IMAGE, ImageInput, image_input, misfit, pixels_to
from edgewright.processing.images import Crop
from edgewright.processing.masks import Argmax, Mask
from edgewright.processing.metadata import labels_inside
from edgewright.processing.preset_labels import CIFAR_10, PASCAL_VOC, PERSON
from edgewright.processing.presets import Subject, from_tensor, only
from edgewright.processing.resize import Letterbox, Resize, ShortSide
from edgewright.processing.scores import Softmax, TopK
from edgewright.processing.source import ToSource
from edgewright.processing.specification import Flow, ResultFlow, Specification
from edgewright.processing.step import Step
from edgewright.processing.tensors import Reshape

_IMAGENET_SIDE = 224


def imagenet(models: Mapping[str, Subject]) -> Specification:
    """Classes of ImageNet from logits, as torchvision and timm train: short side 256, centre 224, mean and std.

    A model of another size has its short side at size * 256 / 224. Mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225
    of the channels R, G, B; resized bilinearly with antialias, as by Pillow.

    Raises:
        FormatMismatchError: the model takes no RGB image, or gives no score for each class.
    """
    subject = only("imagenet", models)
    image = _coloured("imagenet", image_input("imagenet", subject.signature, side=_IMAGENET_SIDE))
    short = (min(image.height, image.width) * 256 + _IMAGENET_SIDE // 2) // _IMAGENET_SIDE
    moves: tuple[Step, ...] = (
        ShortSide(size=max(short, image.height, image.width), antialias=True),
        Crop(height=image.height, width=image.width),
    )
    flow = pixels_to(subject, image, moves, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return _classes("imagenet", subject, flow, Softmax())


def mobilenet_v1(models: Mapping[str, Subject]) -> Specification:
    """Classes of a MobileNet of TensorFlow, with its softmax inside: the centre, -1..1.

    87.5 % of both sides are kept, as by TF-slim's evaluation, and stretched to the model's size: bilinearly with
    antialias, for a large photograph would else be sampled in a few places.

    Raises:
        FormatMismatchError: the model takes no RGB image, or gives no score for each class.
    """
    subject = only("mobilenet_v1", models)
    image = _coloured("mobilenet_v1", image_input("mobilenet_v1", subject.signature, side=_IMAGENET_SIDE))
    moves = (
        Crop(fraction=0.875),
        Resize(height=image.height, width=image.width, antialias=True),
    )
    return _classes("mobilenet_v1", subject, pixels_to(subject, image, moves, mean=HALF, std=HALF))


def person_detect(models: Mapping[str, Subject]) -> Specification:
    """Person or no person in 96x96 pixels: Visual Wake Words of MLPerf Tiny (RGB, 0..1) and of TFLM (grey, -1..1).

    Raises:
        FormatMismatchError: the model takes no image, or does not give two scores.
    """
    subject = only("person_detect", models)
    image = image_input("person_detect", subject.signature, side=96)
    moves = (Resize(height=image.height, width=image.width, antialias=True),)
    numbers = HALF if image.channels == 1 else (0.0,)
    flow = pixels_to(subject, image, moves, mean=numbers, std=HALF if image.channels == 1 else (1.0,))
    return _classes("person_detect", subject, flow, labels=PERSON)


def cifar(models: Mapping[str, Subject]) -> Specification:
    """Classes of CIFAR-10 in 32x32 pixels 0..255, as MLPerf Tiny's ResNet-8 takes them, with its softmax inside.

    Raises:
        FormatMismatchError: the model takes no RGB image, or does not give ten scores.
    """
    subject = only("cifar", models)
    image = _coloured("cifar", image_input("cifar", subject.signature, side=32))
    moves = (Resize(height=image.height, width=image.width, antialias=True),)
    return _classes("cifar", subject, pixels_to(subject, image, moves, divisor=1.0), labels=CIFAR_10)


def deeplab(models: Mapping[str, Subject]) -> Specification:
    """A mask of the 21 classes of PASCAL VOC from DeepLab v3, on the source's pixels: letterbox at the top left, -1..1.

    Raises:
        FormatMismatchError: the model takes no RGB image, or gives neither indices nor scores for each pixel.
    """
    subject = only("deeplab", models)
    image = _coloured("deeplab", image_input("deeplab", subject.signature, side=513))
    moves = (
        Letterbox(height=image.height, width=image.width, fill=(127,), anchor="top_left", antialias=True),
    )
    output = _one_output("deeplab", subject)
    sizes = output.shape[1:]
    labels: tuple[str, ...] = labels_inside(subject)
    steps: tuple[Step, ...]
    if len(sizes) == 2 and output.dtype in ("int64", "int32", "uint8"):
        steps = (Mask(),)
        labels = labels or PASCAL_VOC
    elif len(sizes) == 3:
        ends = sizes[0] or 0, sizes[2] or 0
        is_first = ends[0] == len(PASCAL_VOC) if len(PASCAL_VOC) in ends else ends[0] < ends[1]
        steps = (*from_tensor(subject, output), Argmax(axis="first" if is_first else "last"))
        labels = labels or (PASCAL_VOC if sizes[0 if is_first else 2] == len(PASCAL_VOC) else ())
    else:
        raise misfit("deeplab", output, expected="an index or scores for each pixel")
    return Specification(
        task="segmentation",
        inputs=(IMAGE,),
        tensors=(pixels_to(subject, image, moves, mean=HALF, std=HALF),),
        results=(ResultFlow(name="mask", sources=(output.name,), steps=(*steps, ToSource()), labels=labels),),
    )


def _classes(
    preset: str, subject: Subject, flow: Flow, *steps: Step, labels: tuple[str, ...] = ()
) -> Specification:
    """Return the specification of a classifier, whose scores go through `steps`.

    Args:
        labels: for a model with as many classes, that names none; none of them fits any number of classes.
    """
    output = _one_output(preset, subject)
    sizes = [size for size in output.shape[1:] if size != 1]
    if len(sizes) != 1 or (labels and sizes[0] != len(labels)):
        raise misfit(preset, output, expected=f"a score for each of {len(labels) or 'its'} classes")
    count = sizes[0]
    inside = labels_inside(subject)
    return Specification(
        task="classification",
        inputs=(IMAGE,),
        tensors=(flow,),
        results=(
            ResultFlow(
                name="classes",
                sources=(output.name,),
                steps=(
                    *from_tensor(subject, output),
                    *(() if len(output.shape) == 2 else (Reshape(shape=(-1,)),)),
                    *steps,
                    TopK(k=min(5, count or 5)),
                ),
                labels=inside if len(inside) == count else labels,
            ),
        ),
    )


def _one_output(preset: str, subject: Subject) -> TensorSpec:
    outputs = subject.signature.outputs
    if len(outputs) != 1:
        raise misfit(preset, *outputs, expected="one output")
    return outputs[0]


def _coloured(preset: str, image: ImageInput) -> ImageInput:
    if image.channels != 3:
        raise misfit(preset, image.tensor, expected="an image of three channels")
    return image
