"""Tasks that bundles are made of: real models, what goes around them, and a change that their self-tests must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.artifact_files import RECORD_NAME, read_artifact
from edgewright.core.errors import ConversionError
from edgewright.core.files import copy_files
from edgewright.core.result import Status
from edgewright.prediction import specify
from edgewright.processing.registry import read_step
from edgewright.processing.specification import Flow, Specification, write_specification
from edgewright.processing.spectrum import Cut
from edgewright.recipe import Recipe
from edgewright.single import convert

Change = Callable[[Specification], Specification]
_SUFFIXES = {".tflite": "litert", ".onnx": "onnxruntime"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one bundle is about; paths are relative to the assets.

    Attributes:
        name: of the bundle.
        samples: become golden cases.
        precision: of the model; a conversion keeps it.
        change: makes the processing wrong; `change_text` says how.
    """

    name: str
    models: tuple[str, ...]
    preset: str
    samples: tuple[str, ...]
    change: Change
    change_text: str
    precision: str = "fp32"
    labels: str = ""

    @property
    def runtime(self) -> str:
        """What runs the models as they are."""
        return _SUFFIXES[Path(self.models[0]).suffix]


def swap_colours(specification: Specification) -> Specification:
    """Return the specification with red and blue changed about in each tensor of an image."""
    swap = read_step({"step": "channels", "order": "bgr"}, what="benchmark")
    return replace(
        specification, tensors=tuple(replace(f, steps=(swap, *f.steps)) for f in specification.tensors)
    )


def change_window(specification: Specification) -> Specification:
    """Return the specification with a Hamming window where its frames have another."""

    def changed(flow: Flow) -> Flow:
        steps = tuple(replace(s, window="hamming") if isinstance(s, Cut) else s for s in flow.steps)
        return replace(flow, steps=steps)

    made = replace(specification, tensors=tuple(map(changed, specification.tensors)))
    assert made != specification, "no step has frames"
    return made


def emphasise(specification: Specification) -> Specification:
    """Return the specification with a pre-emphasis in front of its first steps on sound."""
    step = read_step({"step": "pre_emphasis"}, what="benchmark")
    if specification.values:
        first, *rest = specification.values
        return replace(specification, values=(replace(first, steps=(step, *first.steps)), *rest))
    first_tensor, *others = specification.tensors
    return replace(specification, tensors=(replace(first_tensor, steps=(step, *first_tensor.steps)), *others))


TASKS: tuple[Task, ...] = (
    Task(
        name="Objects",
        models=("models/coral/mobilenet_v2_1.0_224_quant.tflite",),
        preset="mobilenet_v1",
        labels="models/coral/imagenet_labels.txt",
        samples=("data/coral-images/cat.bmp", "data/coral-images/sunflower.bmp"),
        precision="w8a8",
        change=swap_colours,
        change_text="red and blue swapped",
    ),
    Task(
        name="Keywords",
        models=("models/mlperf-tiny/kws_dscnn_int8.tflite",),
        preset="kws_mfcc",
        samples=("data/micro-speech/yes_1000ms.wav", "data/micro-speech/no_1000ms.wav"),
        precision="w8a8",
        change=change_window,
        change_text="Hamming for Hann window",
    ),
    Task(
        name="Faces",
        models=("models/ultraface-slim/version-slim-320.onnx",),
        preset="ultraface",
        samples=("data/coral-images/grace_hopper.bmp", "data/coral-images/cat.bmp"),
        change=swap_colours,
        change_text="red and blue swapped",
    ),
    Task(
        name="Voice",
        models=("models/silero-vad/silero_vad.onnx",),
        preset="silero_vad",
        samples=("data/silero-audio/test.wav",),
        change=emphasise,
        change_text="a pre-emphasis added",
    ),
    Task(
        name="Birds",
        models=("models/coral/deeplabv3_mnv2_dm05_pascal_quant.tflite",),
        preset="deeplab",
        samples=("data/coral-images/bird_segmentation.bmp",),
        precision="w8a8",
        change=swap_colours,
        change_text="red and blue swapped",
    ),
    Task(
        name="Denoiser",
        models=("models/dtln/model_1.onnx", "models/dtln/model_2.onnx"),
        preset="dtln",
        samples=("data/silero-audio/test.wav",),
        change=emphasise,
        change_text="a pre-emphasis added",
    ),
)


class Sources:
    """The models of tasks for the runtimes of platforms: as they are, or converted once."""

    def __init__(self, assets: Path, work: Path) -> None:
        self._assets = assets
        self._work = work
        self._made: dict[tuple[str, str], Path | str] = {}

    def find(self, task: Task, runtimes: tuple[str, ...]) -> tuple[Path, str]:
        """Return the folder of the task's models for one of `runtimes`, the processing beside them, and the runtime.

        Raises:
            ConversionError: they run on none of them, and cannot be converted.
        """
        order = sorted(runtimes, key=lambda runtime: runtime != task.runtime)
        reasons = []
        for runtime in order:
            made = self._made.get((task.name, runtime))
            if made is None:
                made = self._made[task.name, runtime] = self._make(task, runtime)
            if isinstance(made, Path):
                return made, runtime
            reasons.append(f"{runtime}: {made}")
        raise ConversionError(f"{task.name} fits none of {', '.join(runtimes)}: {'; '.join(reasons)}")

    def _make(self, task: Task, runtime: str) -> Path | str:
        """Return the folder for one runtime, or why there is none."""
        own = self._work / "own" / task.name
        if not own.is_dir():
            files = {Path(model).name: self._assets / model for model in task.models}
            copy_files(files, own)
            labels = self._assets / task.labels if task.labels else None
            checked = specify([own / name for name in files], processing=task.preset, labels=labels)
            write_specification(checked.specification, own)
        if runtime == task.runtime:
            return own if len(task.models) > 1 else own / Path(task.models[0]).name
        if len(task.models) > 1:
            return "several models are not converted at once"
        recipe = Recipe(
            model=str(own / Path(task.models[0]).name),
            runtimes=(runtime,),
            precisions=(task.precision,),
            processing=str(own),
        )
        out = self._work / f"{task.name}-{runtime}"
        made = convert(recipe, out=out)
        # Nothing here runs Core ML: an interpreter of ours ran the written file.
        if made.artifact is None or made.result.status not in (Status.OK, Status.INTERPRETED):
            return f"{made.result.status}: {made.result.reason}"
        folder = made.artifact.shown_path.parent
        assert (folder / RECORD_NAME).is_file() and read_artifact(folder).target.runtime == runtime
        return folder
