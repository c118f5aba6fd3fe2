"""The specification: the same after a round trip, checked against its models, and run with states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import DataError, FormatMismatchError, RecipeError, UnknownNameError, UsageError
from edgewright.core.tensors import Arrays, TensorSpec
from edgewright.processing.boxes import DecodeEndToEnd
from edgewright.processing.grids import DecodeYolo
from edgewright.processing.nms import Nms
from edgewright.processing.processor import Processor, Signature, plan
from edgewright.processing.registry import STEPS, read_step, step_class
from edgewright.processing.results import Boxes, result_lines, typed_result
from edgewright.processing.scores import Softmax, TopK
from edgewright.processing.smoothing import Threshold
from edgewright.processing.specification import (
    Constant,
    Flow,
    RawInput,
    ResultFlow,
    Specification,
    State,
    read_labels,
    read_specification,
    write_specification,
)
from edgewright.processing.spectrum import Cut
from edgewright.processing.step import Step
from edgewright.processing.tensors import Quantize, Scale

POINTS = RawInput(name="points", kind="tensor", shape=(3,))
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", shape=(1, 3), dtype="float32"),),
    outputs=(TensorSpec(name="y", shape=(1, 3), dtype="float32"),),
)
CLASSES = ResultFlow(
    name="best",
    sources=("y",),
    steps=(Softmax(), TopK(k=2)),
    labels=("one", "two", "drei"),
    labels_file="l.txt",
)
SPECIFICATION = Specification(
    task="classification",
    inputs=(POINTS,),
    tensors=(Flow(name="x", sources=("points",), steps=(Scale(factor=(2.0,)),)),),
    results=(CLASSES,),
)


def same(model: str, inputs: Arrays) -> Arrays:
    return {"y": inputs["x"]}


def test_the_file_gives_the_same_specification(tmp_path: Path) -> None:
    file = write_specification(SPECIFICATION, tmp_path)
    assert read_specification(file) == SPECIFICATION
    assert read_specification(tmp_path) == SPECIFICATION


def test_a_run_gives_the_best_classes_first() -> None:
    best = Processor(plan(SPECIFICATION, SIGNATURE)).run({"points": np.array([0, 2, 1], np.float32)}, same)[
        "best"
    ]
    assert best[:, 0].tolist() == [1, 2]
    raised = np.exp(np.array([0.0, 4, 2]))
    assert best[:, 1] == pytest.approx(np.sort(raised / raised.sum())[:0:-1])


def test_every_row_of_the_registry_is_a_step_of_that_name() -> None:
    for name in STEPS:
        assert step_class(name).name == name


def test_a_state_holds_the_output_of_the_run_before() -> None:
    signature = Signature(
        inputs=(
            *SIGNATURE.inputs,
            TensorSpec(name="h", shape=(1, 3), dtype="float32"),
            TensorSpec(name="rate", shape=(), dtype="int64"),
        ),
        outputs=(*SIGNATURE.outputs, TensorSpec(name="h_out", shape=(1, 3), dtype="float32")),
    )
    specification = replace(
        SPECIFICATION,
        states=(State(tensor="h", source="h_out", initial=1.0),),
        constants=(Constant(tensor="rate", value=16000),),
    )

    def add(model: str, inputs: Arrays) -> Arrays:
        assert inputs["rate"] == 16000 and inputs["rate"].dtype == np.int64
        total = np.asarray(inputs["h"], dtype=np.float32) + np.asarray(inputs["x"], dtype=np.float32)
        return {"y": total, "h_out": total}

    processor = Processor(plan(specification, signature))
    raw = {"points": np.array([0, 0.5, 0], np.float32)}
    first, second = (processor.run(raw, add)["best"][0, 1] for _ in range(2))
    processor.reset()
    assert second > first
    assert processor.run(raw, add)["best"][0, 1] == first


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"tensors": (Flow(name="z", sources=("points",)),)}, UnknownNameError, "'z'"),
        ({"tensors": (Flow(name="x", sources=("pints",)),)}, UnknownNameError, "points"),
        ({"results": (replace(CLASSES, sources=("points",)),)}, RecipeError, "no result needs the model"),
        ({"inputs": (replace(POINTS, shape=(4,)),)}, FormatMismatchError, "'x' takes"),
        ({"inputs": (POINTS, replace(POINTS, name="more"))}, RecipeError, "nothing uses 'more'"),
        ({"tensors": (Flow(name="x", sources=("y",)),)}, RecipeError, "circle"),
        (
            {"tensors": (Flow(name="x", sources=("points",), steps=(Quantize(scale=1.0),)),)},
            FormatMismatchError,
            "int8",
        ),
        ({"results": (replace(CLASSES, steps=(Quantize(scale=0.5), Softmax())),)}, UsageError, "step 2"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    changed: dict[str, tuple[RawInput | Flow, ...]], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        plan(replace(SPECIFICATION, **changed), SIGNATURE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", RecipeError, "edgewright_processing"),
        ("edgewright_processing = 2", RecipeError, "2"),
        ("[[", RecipeError, "no TOML"),
        ("edgewright_processing = 1\ntusk = 'x'", UnknownNameError, "task"),
        ("edgewright_processing = 1\ntask = 'detecting'", RecipeError, "detection"),
        ("edgewright_processing = 1\ninputs = 3", RecipeError, "inputs"),
        ("edgewright_processing = 1\ninputs = [{ name = 'class!', kind = 'image' }]", RecipeError, "class!"),
        (
            "edgewright_processing = 1\nresults = [{ name = 'a', from = ['y'], labels = '../up.txt' }]",
            RecipeError,
            "up.txt",
        ),
        (
            "edgewright_processing = 1\nresults = [{ name = 'a', from = ['y'], steps = [{ step = 'topk' }] }]",
            UnknownNameError,
            "top_k",
        ),
        (
            "edgewright_processing = 1\nresults = [{ name = 'a', from = ['y'], steps = [{ step = 'top_k', n = 1 }] }]",
            UnknownNameError,
            "option",
        ),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, error: type[Exception], says: str) -> None:
    file = tmp_path / "processing.toml"
    file.write_text(text)
    with pytest.raises(error, match=says):
        read_specification(file)


@pytest.mark.parametrize(
    "value", [np.zeros(4, np.float32), np.zeros(3), np.array([1, np.nan, 0], np.float32), "text"]
)
def test_a_bad_raw_input_is_refused(value: np.ndarray[tuple[int], np.dtype[np.float32]] | str) -> None:
    with pytest.raises(DataError):
        Processor(plan(SPECIFICATION, SIGNATURE)).run({"points": value}, same)


def test_bad_labels_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    for content in (b"", b"a\x07b\n", b"\xff\xfe", b"x" * 300):
        file.write_bytes(content)
        with pytest.raises(RecipeError):
            read_labels(file)


@pytest.mark.parametrize(
    ("steps", "samples", "says"),
    [
        ((), 4, r"\[1, 4\] for tensor x"),
        # A frame for each sample would be 2 ** 32 numbers: refused before they are made.
        ((Cut(length=1 << 16, hop=1),), 1 << 17, "step 1.*at most"),
        ((Cut(length=8, hop=1),), 7, "step 1.*fit_length"),
    ],
)
def test_lengths_that_show_when_it_runs_are_checked_then(
    steps: tuple[Step, ...], samples: int, says: str
) -> None:
    shape = (1, None, steps[0].length) if steps and isinstance(steps[0], Cut) else (1, 3)
    signature = Signature(
        inputs=(TensorSpec(name="x", shape=shape, dtype="float32"),), outputs=SIGNATURE.outputs
    )
    sound = replace(
        SPECIFICATION,
        inputs=(RawInput(name="points", kind="audio"),),
        tensors=(Flow(name="x", sources=("points",), steps=steps),),
    )
    with pytest.raises(DataError, match=says):
        Processor(plan(sound, signature)).run({"points": np.zeros(samples, np.float32)}, same)


def test_results_with_other_labels_do_not_share_a_file() -> None:
    other = replace(CLASSES, name="second", labels=("a", "b", "c"))
    with pytest.raises(RecipeError, match=r"l\.txt"):
        replace(SPECIFICATION, results=(CLASSES, other))
    same = replace(SPECIFICATION, results=(CLASSES, replace(other, labels=CLASSES.labels)))
    assert len(same.results) == 2


def detector(steps: tuple[Step, ...], labels: int) -> tuple[Specification, Signature]:
    """Return a detector whose output "y" has 9 columns a row, and its signature."""
    signature = Signature(
        inputs=SIGNATURE.inputs, outputs=(TensorSpec(name="y", shape=(1, 4, 9), dtype="float32"),)
    )
    names = tuple(f"name {n}" for n in range(labels))
    result = ResultFlow(name="boxes", sources=("y",), steps=steps, labels=names)
    return replace(SPECIFICATION, results=(result,)), signature


def test_labels_of_boxes_are_one_a_class() -> None:
    steps = (DecodeYolo(layout="rows"), Nms(score=0.1))
    made = plan(*detector(steps, 5))
    assert made.results["boxes"].classes == 5
    for labels in (1, 4, 6, 80):
        with pytest.raises(FormatMismatchError, match=rf"5 classes, but labels\.txt has {labels} labels"):
            plan(*detector(steps, labels))
    spoken = replace(CLASSES, steps=(Threshold(),), labels=("speech",))
    with pytest.raises(FormatMismatchError, match="3 classes"):
        plan(replace(SPECIFICATION, results=(spoken,)), SIGNATURE)


def test_a_class_beyond_the_labels_goes_by_its_number() -> None:
    checked = plan(*detector((DecodeEndToEnd(score=0.1),), 3))
    rows = np.array([[0, 0, 4, 4, 0.9, index, 0, 0, 0] for index in (2, 3, 90)], np.float32)
    points = {"points": np.zeros(3, np.float32)}
    made = Processor(checked).run(points, lambda model, inputs: {"y": rows[None]})["boxes"]
    found = typed_result(made, checked.results["boxes"], checked.specification.results[0].labels)
    assert isinstance(found, Boxes)
    assert [(box.label.index, box.label.name) for box in found.boxes] == [(2, "name 2"), (3, ""), (90, "")]
    assert [line.split("  ")[0] for line in result_lines("boxes", found)] == ["name 2", "class 3", "class 90"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (".".join("a" * 50_000) + " = 1", "64 parts"),
        ("a = " + "[" * 50_000, "no TOML"),
        ("a = " + "[" * 40 + "]" * 40, "deeper than 16"),
        ("a = " + "{a.b=" * 30 + "1" + "}" * 30, "no TOML|deeper than 16"),
        ("a = " + "9" * 10_000, "no TOML"),
        ("a = 0x" + "f" * 10_000, "beyond 64 bits"),
        ("a = 9223372036854775808", "beyond 64 bits"),
        ("#" * ((1 << 20) + 1), "more than 1048576 bytes"),
    ],
)  # fmt: skip
def test_a_bomb_of_toml_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "processing.toml").write_text(text)
    with pytest.raises(RecipeError, match=says) as caught:
        read_specification(tmp_path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"step": "normalize", "mean": [0.0] * 3, "std": [1.0] * 4}, "3 numbers in mean and 4 in std"),
        ({"step": "scale", "factor": [1e39]}, "beyond float32"),
        ({"step": "quantize", "scale": 1e-46}, "above 0"),
        ({"step": "tokenize", "file": "a\0b"}, "a file beside"),
        ({"step": "tokenize", "file": ".."}, "a file beside"),
    ],
)
def test_options_that_no_step_can_use_are_refused(row: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_step(row, what="it")


@pytest.mark.parametrize(
    ("value", "says"),
    [(1e300, "int64 does not hold"), (0.5, "int64 does not hold"), ((1.0, 2.0, 3.0), "3 numbers")],
)
def test_a_constant_that_its_tensor_does_not_hold_is_refused(
    value: float | tuple[float, ...], says: str
) -> None:
    rate = TensorSpec(name="rate", shape=(2,), dtype="int64")
    signature = replace(SIGNATURE, inputs=(*SIGNATURE.inputs, rate))
    made = replace(SPECIFICATION, constants=(Constant(tensor="rate", value=value),))
    with pytest.raises(RecipeError, match=says):
        plan(made, signature)


def test_rows_of_boxes_are_not_changed_number_by_number() -> None:
    for step in (Softmax(), Scale(), Quantize(scale=1.0)):
        with pytest.raises(UsageError, match="got boxes"):
            plan(*detector((DecodeEndToEnd(), step), 0))


def test_a_value_of_many_axes_is_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="100000 axes"):
        RawInput(name="x", kind="tensor", shape=(4,) * 100_000).type.of()


def test_texts_of_a_model_are_no_result() -> None:
    texts = TensorSpec(name="y", shape=(1, 3), dtype="string")
    for steps, says in (((), "numbers are expected"), ((Scale(),), "got tensor string")):
        result = ResultFlow(name="names", sources=("y",), steps=steps)
        with pytest.raises(UsageError, match=says):
            plan(replace(SPECIFICATION, results=(result,)), replace(SIGNATURE, outputs=(texts,)))
