"""Names of a specification that are words of a language, or of the projects themselves: the bundles still build."""

from __future__ import annotations

import keyword
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import RecipeError, UsageError
from edgewright.deploy.bundle import BundleRequest, make_bundle
from edgewright.deploy.cpp import PLATFORM as CPP
from edgewright.deploy.linux import PLATFORM as LINUX
from edgewright.deploy.names import KEYWORDS, camel_case, check_distinct, check_name, plain_name
from edgewright.prediction import specify
from edgewright.processing.registry import read_step
from edgewright.processing.specification import (
    Flow,
    RawInput,
    ResultFlow,
    Specification,
    read_specification,
    write_specification,
)

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
INPUTS = ("class", "self", "engine", "results")
RESULTS = ("arrays", "to_json", "int", "def")


def write_sums(path: Path) -> None:
    """Write an ONNX file: four inputs, int32 [1, 2] each -> four outputs, each the sum of an input and the next."""
    from onnx import TensorProto, helper, save

    def ends(names: tuple[str, ...]) -> list[object]:
        return [helper.make_tensor_value_info(f"{name}_t", TensorProto.INT32, [1, 2]) for name in names]

    nodes = [
        helper.make_node("Add", [f"{INPUTS[n]}_t", f"{INPUTS[n - 1]}_t"], [f"{RESULTS[n]}_t"])
        for n in range(4)
    ]
    graph = helper.make_graph(nodes, "sums", ends(INPUTS), ends(RESULTS))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save(model, str(path))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The model of sums with a specification whose every name is taken."""
    specification = Specification(
        task="series",
        inputs=tuple(RawInput(name=name, kind="tensor", shape=(2,), dtype="int32") for name in INPUTS),
        tensors=tuple(Flow(name=f"{name}_t", sources=(name,), steps=()) for name in INPUTS),
        results=tuple(ResultFlow(name=name, sources=(f"{name}_t",), steps=()) for name in RESULTS),
    )
    write_specification(specification, tmp_path)
    write_sums(tmp_path / "sums.onnx")
    return tmp_path / "sums.onnx"


def test_the_python_of_a_bundle_takes_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CPP, "write", lambda content, folder: None)
    bundle = make_bundle(BundleRequest(source=model, platform="linux", name="SumFinder"), tmp_path / "out")
    monkeypatch.syspath_prepend(str(bundle.folder / "src"))
    from sum_finder import SumFinder  # type: ignore[import-not-found]

    given = [np.array([n, 10 * n], dtype=np.int32) for n in range(4)]
    found = SumFinder()(*given)
    assert [getattr(found, name).tolist() for name in ("arrays_", "to_json_", "int", "def_")] == [
        [3, 30], [1, 10], [3, 30], [5, 50],
    ]  # fmt: skip
    assert found.to_json()["def_"] == [5, 50]


def test_the_c_plus_plus_of_a_bundle_takes_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler is installed")
    monkeypatch.setattr(CPP, "prove", lambda content, folder: ())
    folder = make_bundle(
        BundleRequest(source=model, platform="cpp", name="SumFinder"), tmp_path / "out"
    ).folder
    for source in ("src/sum_finder.cpp", "app/main.cpp"):
        command = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        command += [f"-I{folder / name}" for name in ("include", "core", "src")]
        done = subprocess.run([*command, str(folder / source)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    """A model that doubles its tensor x, int8 [1, 2], with an input of that name, float32."""
    from onnx import TensorProto, helper, save

    types = {"x": TensorProto.INT8, "y": TensorProto.INT32}
    ends = [helper.make_tensor_value_info(name, kind, [1, 2]) for name, kind in types.items()]
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Add", ["wide", "wide"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "double", ends[:1], ends[1:])
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        str(tmp_path / "twin.onnx"),
    )
    rounded = read_step({"step": "quantize", "scale": 1.0, "zero_point": 0}, what="test")
    specification = Specification(
        task="series",
        inputs=(RawInput(name="x", kind="tensor", shape=(2,)),),
        tensors=(Flow(name="x", sources=("x",), steps=(rounded,)),),
        results=(ResultFlow(name="doubled", sources=("y",), steps=()),),
    )
    write_specification(specification, tmp_path)
    return tmp_path / "twin.onnx"


def test_an_input_may_have_the_name_of_a_tensor(
    twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = specify(twin)
    assert (checked.types["x"].dtype, checked.tensors["x"].dtype) == ("float32", "int8")
    monkeypatch.setattr(CPP, "write", lambda content, folder: None)
    bundle = make_bundle(BundleRequest(source=twin, platform="linux", name="TwinFinder"), tmp_path / "out")
    monkeypatch.syspath_prepend(str(bundle.folder / "src"))
    from twin_finder import TwinFinder  # type: ignore[import-not-found]

    assert TwinFinder()(np.float32([3.0, -4.0])).doubled.tolist() == [6, -8]


def test_an_input_is_not_taken_for_its_tensor(twin: Path) -> None:
    specification = read_specification(twin.parent)
    again = ResultFlow(name="again", sources=("x",), steps=())
    with pytest.raises(RecipeError, match="a tensor of that name was made before"):
        specify(twin, processing=replace(specification, results=(*specification.results, again)))


def test_names_that_become_one_are_refused(model: Path, tmp_path: Path) -> None:
    text = (model.parent / "processing.toml").read_text()
    (model.parent / "processing.toml").write_text(text.replace('"engine"', '"Self"'))
    for platform in (LINUX.name, CPP.name):
        with pytest.raises(UsageError, match="'self' and 'Self'"):
            make_bundle(BundleRequest(source=model, platform=platform, name="SumFinder"), tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    "Class Import Json Std Numpy Label Results Core Linux ThreadLocal Char8T Foundation CoreML Camera Aux Test".split(),
)
def test_bundle_names_that_hide_something_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        check_name(name)


def test_taken_names_get_an_underscore() -> None:
    assert (plain_name("self", "python"), plain_name("results", "cpp")) == ("self_", "results_")
    assert plain_name("faces", "python") == "faces"
    check_distinct("inputs", ["a", "b"], ["a", "b"])


def test_every_word_of_python_is_known() -> None:
    assert {*keyword.kwlist, *keyword.softkwlist} - {"_"} <= KEYWORDS["python"]


@pytest.mark.parametrize("standard", ["gnu++17", "c++17", "c++20"])
def test_no_word_of_c_plus_plus_is_left_as_it_is(standard: str) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed")
    words = sorted(KEYWORDS["cpp"])
    fields = "".join(f"  int {plain_name(word, 'cpp')};\n" for word in words)
    source = f"#include <cassert>\n#include <cerrno>\n#include <cmath>\n#include <cstdio>\nstruct All {{\n{fields}}};\n"
    command = [compiler, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_word_of_javascript_is_left_as_it_is(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    names = ", ".join(camel_case(word, "javascript") for word in sorted(KEYWORDS["javascript"]))
    source = tmp_path / "names.mjs"
    source.write_text(f"export function run({{ {names} }}) {{ return {{ {names} }}; }}\n")
    done = subprocess.run([node, "--check", str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
