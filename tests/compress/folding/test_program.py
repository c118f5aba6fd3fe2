"""Processing that moves into the model: the same results, from pixels as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.colour_model import SIZE, colour_specification, plain_image

from edgewright.core.errors import UsageError
from edgewright.core.program import Program
from edgewright.core.tensors import Array, Arrays
from edgewright.processing.processor import Plan, Processor, Signature, plan
from edgewright.processing.specification import Specification

torch = pytest.importorskip("torch")


class Small(torch.nn.Module):  # type: ignore[misc]
    """A padded convolution, so that a bias folded past the border would show."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.conv(pixels).amax((2, 3))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The exported model: pixels [n, 3, 8, 8] -> output [n, 3]."""
    from edgewright.sources.torch_export import export_module

    example = (torch.zeros(1, 3, SIZE, SIZE),)
    return export_module(Small().eval(), example, workdir=tmp_path_factory.mktemp("small"), origin="Small")


def checked(program: Program, specification: Specification) -> Plan:
    flow = replace(specification.results[0], sources=(program.outputs[0].name,))
    tensor = replace(specification.tensors[0], name=program.inputs[0].name)
    made = replace(specification, results=(flow,), tensors=(tensor,))
    return plan(made, Signature(inputs=program.inputs, outputs=program.outputs))


def run(one: Plan, model: Program, image: Array) -> dict[str, Array]:
    """Return the results of the processing `one` around `model`."""
    from edgewright.backends.vendor import load_exported

    network = load_exported(model).module()

    def execute(name: str, inputs: Arrays) -> Arrays:
        made = network(torch.from_numpy(np.ascontiguousarray(inputs[model.inputs[0].name])))
        made = made[0] if isinstance(made, tuple) else made
        return {model.outputs[0].name: made.detach().numpy()}

    return Processor(one).run({"image": image}, execute)


def test_steps_next_to_the_model_go_inside(program: Program, tmp_path: Path) -> None:
    from edgewright.compress.folding.program import fold_processing

    made = fold_processing(program, checked(program, colour_specification("bgr")), folder=tmp_path)
    assert made.program.inputs[0].dtype == "uint8"
    assert made.program.inputs[0].shape[1:] == (SIZE, SIZE, 3)
    assert [step.name for step in made.specification.tensors[0].steps] == ["resize"]
    assert [step.name for step in made.specification.results[0].steps] == ["top_k"]
    assert made.proof.outputs < 1e-5
    assert any("top_k" in text for text in made.outside)


def test_the_folded_model_gives_what_processing_and_model_gave_apart(
    program: Program, tmp_path: Path
) -> None:
    from edgewright.compress.folding.program import fold_processing

    given = colour_specification()
    sized = replace(given, inputs=(replace(given.inputs[0], height=31, width=45),))
    old = checked(program, sized)
    made = fold_processing(program, old, folder=tmp_path)
    assert not made.specification.tensors[0].steps  # the resize went inside, too
    new = plan(made.specification, Signature(inputs=made.program.inputs, outputs=made.program.outputs))
    image = plain_image(200, 40, 90, height=31, width=45)
    image[5:20, 9:30] = 250
    results = [run(one, model, image)["colours"] for one, model in ((old, program), (new, made.program))]
    assert results[0][:, 0].tolist() == results[1][:, 0].tolist()
    assert results[0][:, 1] == pytest.approx(results[1][:, 1], abs=5e-3)


class Pixels(torch.nn.Module):  # type: ignore[misc]
    """Scores of two classes for each pixel: whether the first colour is above the second."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([pixels[:, 1:2] - pixels[:, 0:1], pixels[:, 0:1] - pixels[:, 1:2]], dim=1)


@pytest.mark.parametrize("is_sized", [True, False])
def test_a_mask_goes_back_to_the_pixels_of_its_source(tmp_path: Path, is_sized: bool) -> None:
    from edgewright.compress.folding.program import fold_processing
    from edgewright.processing.registry import read_step
    from edgewright.sources.torch_export import export_module

    example = (torch.zeros(1, 3, SIZE, SIZE),)
    source = export_module(Pixels().eval(), example, workdir=tmp_path, origin="Pixels")
    given = colour_specification()
    steps = tuple(
        read_step(step, what="test") for step in ({"step": "argmax", "axis": "first"}, {"step": "to_source"})
    )
    old = checked(
        source,
        replace(
            given,
            task="segmentation",
            inputs=(replace(given.inputs[0], height=32, width=64),) if is_sized else given.inputs,
            results=(replace(given.results[0], name="mask", steps=steps, labels=()),),
        ),
    )
    made = fold_processing(source, old, folder=tmp_path / "folded")
    new = plan(made.specification, Signature(inputs=made.program.inputs, outputs=made.program.outputs))
    # Where the size of the source is open, only the resize knows where a pixel of the mask lies in it.
    before = [step.name for step in made.specification.tensors[0].steps]
    after = [step.name for step in made.specification.results[0].steps]
    assert (before, after) == (([], ["mask"]) if is_sized else (["resize"], ["mask", "to_source"]))
    assert is_sized or any("resize of" in text and "a size is open" in text for text in made.outside)
    assert new.results["mask"].kind == old.results["mask"].kind == "mask"
    image = plain_image(40, 200, 90, height=32, width=64)
    image[:16, 32:] = (200, 40, 90)
    masks = [run(one, model, image)["mask"] for one, model in ((old, source), (new, made.program))]
    assert masks[0].shape == (32, 64)
    assert masks[0][:12, 40:].min() == 1 and masks[0][20:].max() == 0
    np.testing.assert_array_equal(masks[0], masks[1])


def test_two_results_of_one_output_are_made_inside_once(program: Program, tmp_path: Path) -> None:
    from edgewright.compress.folding.program import fold_processing

    given = colour_specification()
    again = replace(given.results[0], name="again", sources=(program.outputs[0].name,))
    old = checked(program, given)
    twice = plan(replace(old.specification, results=(*old.specification.results, again)), old.signatures[""])
    made = fold_processing(program, twice, folder=tmp_path)
    assert [spec.name for spec in made.program.outputs] == [program.outputs[0].name]
    assert [[step.name for step in flow.steps] for flow in made.specification.results] == [["top_k"]] * 2
    assert {f"top_k of {name}" for name in ("colours", "again")} <= {
        text.partition(" stays")[0] for text in made.outside
    }


def test_sums_of_pixels_are_not_quantized(program: Program, tmp_path: Path) -> None:
    from edgewright.backends.vendor import load_exported
    from edgewright.compress.folding.program import fold_processing
    from edgewright.compress.int8_quantizer import annotate, layer_names, schemes

    given = colour_specification()
    sized = replace(given, inputs=(replace(given.inputs[0], height=31, width=45),))
    made = fold_processing(program, checked(program, sized), folder=tmp_path, is_float=False)
    assert any(text.startswith("resize into") for text in made.inside)
    graph = load_exported(made.program).module(check_guards=False)
    annotate(graph, schemes(), {})
    marked = [str(n.target) for n in graph.graph.nodes if "quantization_annotation" in n.meta]
    assert marked == ["aten.conv2d.default"]
    assert len(layer_names(graph)) == 1


def test_what_has_nothing_to_fold_is_refused(program: Program, tmp_path: Path) -> None:
    from edgewright.compress.folding.program import fold_processing

    bare = colour_specification()
    only_floats = replace(
        bare,
        inputs=(replace(bare.inputs[0], kind="tensor", order="", shape=(3, SIZE, SIZE)),),
        tensors=(replace(bare.tensors[0], steps=()),),
        results=(replace(bare.results[0], steps=bare.results[0].steps[1:]),),
    )
    with pytest.raises(UsageError, match="top_k"):
        fold_processing(program, checked(program, only_floats), folder=tmp_path)
