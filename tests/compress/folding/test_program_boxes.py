"""A detector whose boxes are decoded and suppressed in its own graph: what is left, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewright.compress.folding.program import Folding, fold_processing
from edgewright.core.program import Program
from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.processing.planning import Plan, plan
from edgewright.processing.processor import Processor
from edgewright.processing.registry import read_step
from edgewright.processing.signature import Signature
from edgewright.processing.specification import Flow, RawInput, ResultFlow, Specification

torch = pytest.importorskip("torch")

SIDE = 16
NMS: Mapping[str, object] = {"step": "nms", "iou": 0.4, "score": 0.55, "limit": 6}


class Detector(torch.nn.Module):  # type: ignore[misc]
    """A box around each cell of 4 x 4, brighter ones with a higher score, and two classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = torch.nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cells = self.conv(pixels).flatten(2).permute(0, 2, 1)
        return torch.sigmoid(cells[..., :4]), cells[..., 4:] * 4


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The exported detector: pixels [1, 3, 16, 16] -> boxes [1, 16, 4], logits [1, 16, 2]."""
    from edgewright.sources.torch_export import export_module

    example = (torch.zeros(1, 3, SIDE, SIDE),)
    made = export_module(Detector().eval(), example, workdir=tmp_path_factory.mktemp("d"), origin="Detector")
    names = ("boxes", "logits")
    outputs = tuple(replace(spec, name=name) for spec, name in zip(made.outputs, names, strict=True))
    return replace(made, outputs=outputs, inputs=(replace(made.inputs[0], name="pixels"),))


def specification(nms: Mapping[str, object] = NMS, *, side: tuple[int, int] = (0, 0)) -> Specification:
    """Return the processing: scores through a value of their own, boxes back to the image."""
    before = (
        {"step": "letterbox", "height": SIDE, "width": SIDE, "fill": [20]},
        {"step": "normalize"},
        {"step": "layout", "layout": "chw"},
    )
    after = (
        {"step": "join_boxes", "format": "cxcywh", "height": SIDE, "width": SIDE},
        nms,
        {"step": "to_source"},
    )
    return Specification(
        task="detection",
        inputs=(RawInput(name="image", kind="image", height=side[0], width=side[1]),),
        tensors=(
            Flow(name="pixels", sources=("image",), steps=tuple(read_step(s, what="t") for s in before)),
        ),
        values=(Flow(name="scores", sources=("logits",), steps=(read_step({"step": "sigmoid"}, what="t"),)),),
        results=(
            ResultFlow(
                name="objects",
                sources=("boxes", "scores"),
                steps=tuple(read_step(s, what="t") for s in after),
            ),
        ),
    )


def fold(program: Program, given: Specification, folder: Path, **options: bool) -> tuple[Plan, Folding, Plan]:
    """Return the plan, what was made of it, and the plan that is left."""
    old = plan(given, Signature(inputs=program.inputs, outputs=program.outputs))
    made = fold_processing(program, old, folder=folder, **options)
    new = plan(made.specification, Signature(inputs=made.program.inputs, outputs=made.program.outputs))
    return old, made, new


def run(one: Plan, model: Program, image: Array) -> Array:
    """Return the boxes of the processing `one` around `model`."""
    from edgewright.backends.vendor import load_exported

    network = load_exported(model).module()

    def execute(name: str, inputs: Arrays) -> Arrays:
        given = torch.from_numpy(np.ascontiguousarray(inputs["pixels"]))
        made = network(given)
        made = made if isinstance(made, tuple) else (made,)
        return {spec.name: v.detach().numpy() for spec, v in zip(model.outputs, made, strict=True)}

    return Processor(one).run({"image": image}, execute)["objects"]


def photograph(seed: int, height: int, width: int) -> Array:
    """Return an image with a few bright rectangles."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 60, size=(height, width, 3)).astype(np.uint8)
    for _ in range(4):
        y, x = generator.integers(0, height - 6), generator.integers(0, width - 6)
        image[y : y + 8, x : x + 9] = generator.integers(120, 256, size=3)
    return image


def test_boxes_of_several_outputs_leave_the_graph_as_rows(program: Program, tmp_path: Path) -> None:
    old, made, new = fold(program, specification(), tmp_path)
    assert made.program.outputs == (TensorSpec(name="objects", shape=(1, 6, 6), dtype="float32"),)
    assert made.specification.values == ()
    assert [step.name for step in made.specification.results[0].steps] == ["decode_end_to_end", "to_source"]
    assert made.inside[-3:] == (
        "sigmoid behind logits", "join_boxes behind boxes and logits", "nms behind boxes and logits",
    )  # fmt: skip
    assert new.results["objects"].kind == old.results["objects"].kind == "boxes"
    assert made.proof.unlike == 0
    counts = []
    for seed in range(6):
        image = photograph(seed, 29, 41)
        want, got = run(old, program, image), run(new, made.program, image)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
        counts.append(len(want))
    assert max(counts) > 1


def test_an_image_of_known_size_goes_in_as_it_is(program: Program, tmp_path: Path) -> None:
    old, made, new = fold(program, specification(side=(29, 41)), tmp_path)
    assert made.program.inputs == (
        TensorSpec(name="pixels", shape=(1, 29, 41, 3), dtype="uint8", layout="nhwc"),
    )
    assert not made.specification.tensors[0].steps
    assert "to_source behind boxes and logits" in made.inside
    assert made.outside == (
        "to_source of objects stays outside: it clips boxes, and how many are left shows only when it runs",
    )
    found = 0
    for seed in range(6):
        image = photograph(seed, 29, 41)
        want, got = run(old, program, image), run(new, made.program, image)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
        found += len(want)
    assert found > 6


def test_a_model_that_is_to_be_quantized_keeps_its_boxes_outside(program: Program, tmp_path: Path) -> None:
    _, made, _ = fold(program, specification(), tmp_path, is_float=False)
    assert [spec.name for spec in made.program.outputs] == ["boxes", "logits"]
    assert [flow.name for flow in made.specification.values] == ["scores"]
    assert any("of objects stay outside: join_boxes: the model is to be quantized" in t for t in made.outside)


def test_soft_suppression_stays_outside_with_what_it_takes(program: Program, tmp_path: Path) -> None:
    _, made, _ = fold(program, specification({**NMS, "mode": "linear"}), tmp_path)
    (flow,) = made.specification.results
    assert [step.name for step in flow.steps] == ["join_boxes", "nms", "to_source"]
    text = next(text for text in made.outside if "of objects stay" in text)
    assert "its candidates would leave the graph before nms" in text and "mode is 'linear'" in text


def test_what_is_read_elsewhere_stays_an_output(program: Program, tmp_path: Path) -> None:
    given = specification()
    steps = (
        read_step({"step": "reshape", "shape": [32]}, what="t"),
        read_step({"step": "top_k", "k": 1}, what="t"),
    )
    more = ResultFlow(name="best", sources=("logits",), steps=steps)
    _, made, new = fold(program, replace(given, results=(*given.results, more)), tmp_path)
    assert [spec.name for spec in made.program.outputs] == ["objects", "logits"]
    assert new.results["best"].kind == "classes"
    assert [step.name for step in made.specification.results[1].steps] == ["top_k"]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert", "openvino"])
def test_the_runtimes_pick_the_same_boxes(program: Program, tmp_path: Path, runtime: str) -> None:
    from edgewright.backends import registry
    from edgewright.core.target import Precision, Target

    backend = registry.get(runtime)
    if not backend.probe().is_available:
        pytest.skip(f"{runtime} is not installed")
    _, made, new = fold(program, specification(side=(29, 41)), tmp_path / "folded")
    target = Target(runtime=runtime, precision=Precision.FP32)
    artifact = backend.convert(made.program, target, None, tmp_path / runtime)
    session = backend.open(artifact, target)
    for seed in range(6):
        image = photograph(seed, 29, 41)
        want = run(new, made.program, image)
        rows = next(iter(session.run({artifact.inputs[0].name: image[None]}).values()))
        got = Processor(new).run({"image": image}, lambda name, inputs, rows=rows: {"objects": rows})[
            "objects"
        ]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
    session.close()


@pytest.mark.slow
@pytest.mark.parametrize("precisions", [("fp32",), ("fp32", "w8")])
def test_a_folded_artifact_is_verified_as_it_was_folded(
    program: Program, tmp_path: Path, precisions: tuple[str, ...]
) -> None:
    from edgewright.pipeline import run_recipe
    from edgewright.processing.choice import rebind
    from edgewright.processing.specification import read_specification, write_specification
    from edgewright.recipe import Recipe
    from edgewright.single import verify
    from edgewright.sources import load

    pytest.importorskip("onnxruntime")
    source = load(str(program.path), workdir=tmp_path / "source")
    own = Signature(inputs=source.inputs, outputs=source.outputs)
    given = rebind(specification(), Signature(inputs=program.inputs, outputs=program.outputs), own)
    recipe = Recipe(
        model=str(program.path),
        runtimes=("onnxruntime",),
        precisions=precisions,
        processing=str(write_specification(given, tmp_path / "processing")),
        fold_processing=True,
    )
    built = run_recipe(recipe, out=tmp_path / "out", use_cache=False)
    assert built.results[0].status == "ok"
    folder = tmp_path / "out" / "artifacts" / "onnxruntime-fp32"
    steps = [step.name for step in read_specification(folder).results[0].steps]
    assert ("nms" in steps) == (len(precisions) > 1)  # a quantized model keeps its boxes outside
    verification = verify(folder, replace(recipe, precisions=("fp32",)))
    assert verification.result.status == "ok"
    assert len(verification.artifact.outputs if verification.artifact else ()) == len(precisions)
