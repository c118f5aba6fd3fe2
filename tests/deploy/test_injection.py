"""Texts of a model and of its user are texts in every file of every bundle: they never become code."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.colour_model import SIZE, colour_specification
from tests.deploy.code_lexer import code, shell, structure

from edgewright.bundle_files import read_manifest
from edgewright.core.errors import UnavailableError, UsageError
from edgewright.deploy import registry
from edgewright.deploy.bundle import BundleRequest, make_bundle
from edgewright.deploy.manifest import list_files
from edgewright.deploy.templates import text_literal
from edgewright.processing.specification import Flow, write_specification

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
HOSTILE = (
    '"', "'", "\\", '\\"', '"); evil(); //', "'); evil(); //", "${evil()}", "$evil", "\\(evil())", "`evil`",
    "$(evil)", '"""', "'''", "*/ evil(); /*", "/* evil", "// evil", "<script>evil()</script>", "<!--", "-->", "]]>",
    "--", "{{ evil }}", "{% raw %}", "{# evil", "%n%s%d", "#include <evil>", "; evil", "??/", "??'", "\\u0022",
    "\\x22", "&quot;<", "é日本😀", "a" * 200, "a=b", "[evil]", "```", "# evil", "\\N{DIGIT ONE}", "null",
    "$$", "@evil", "~", "*", "..",
)  # fmt: skip
# As the end of a tensor's name: a $ is refused.
END = "".join(text for text in HOSTILE if "$" not in text and len(text) < 20)
FILE = "m'(evil)`;\"{x}%sé.onnx"


def write_model(path: Path, tensors: Mapping[str, str], classes: int) -> Path:
    """Write an ONNX file: pixels float32 [1, 3, 8, 8] -> means float32 [1, classes], tensors of the given names."""
    from onnx import TensorProto, helper, numpy_helper, save

    pixels = helper.make_tensor_value_info(tensors["in"], TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    means = helper.make_tensor_value_info(tensors["out"], TensorProto.FLOAT, [1, classes])
    weights = numpy_helper.from_array(np.linspace(-1, 1, 3 * classes, dtype=np.float32).reshape(3, -1), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", [tensors["in"]], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], [tensors["out"]]),
    ]
    graph = helper.make_graph(nodes, "colours", [pixels], [means], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save(model, str(path))
    return path


def make(folder: Path, platform: str, *, labels: tuple[str, ...], end: str, file: str, licence: str) -> Path:
    """Return the bundle of a model whose labels, tensors and file are called so."""
    folder.mkdir()
    known = colour_specification()
    (tensor,), (result,) = known.tensors, known.results
    specification = replace(
        known,
        tensors=(Flow(name=f"in{end}", sources=tensor.sources, steps=tensor.steps),),
        results=(replace(result, sources=(f"out{end}",), labels=labels),),
    )
    write_specification(specification, folder)
    model = write_model(folder / file, {"in": f"in{end}", "out": f"out{end}"}, len(labels))
    request = BundleRequest(source=model, platform=platform, name="ColourFinder", licence=licence)
    try:
        return make_bundle(request, folder / "bundle").folder
    except UnavailableError as err:
        pytest.skip(str(err))


@pytest.mark.parametrize("platform", registry.names())
def test_hostile_texts_change_no_code(platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(registry.platform(platform)), "prove", lambda self, content, folder: ())
    plain = tuple(f"label {number}" for number in range(len(HOSTILE)))
    one = make(tmp_path / "a", platform, labels=plain, end="put", file="model.onnx", licence="MIT")
    two = make(tmp_path / "b", platform, labels=HOSTILE, end=END, file=FILE, licence=HOSTILE[4])
    assert read_manifest(two).files
    compared = 0
    for name in list_files(one):
        path = two / name
        if Path(name).suffix in (".onnx", ".bin", ".wasm", ".so", ".jar") or "vendor" in Path(name).parts:
            continue
        # Labels are a line each, and the library that writes bom.json has its own words for an unknown licence.
        if "labels" in name or name == "bom.json":
            continue
        assert structure(path) == structure(one / name), name
        compared += 1
    assert compared > 15


def test_a_name_that_no_literal_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Rename"):
        make(tmp_path / "a", "ios", labels=("a", "b", "c"), end="$x", file="model.onnx", licence="")


@given(st.text(st.sampled_from("ab \\\"'$`{}()[]<>/*#%\n\u2028é日") | st.characters(), max_size=24))
def test_a_literal_is_its_text_in_every_language_or_refused(text: str) -> None:
    try:
        literal = text_literal(text)
    except UsageError:
        assert "$" in text or not text.isprintable()
        return
    assert ast.literal_eval(literal) == json.loads(literal) == text
    for suffix in (".kt", ".swift", ".js"):
        assert code(literal, suffix) == "S"


def test_the_lexer_sees_what_gets_out() -> None:
    assert code('f("a"); // b', ".c") == code('f("c\\"d"); // e', ".c")
    assert code('f("a");', ".c") != code('f(""); evil();', ".c")
    assert code('f("a")', ".kt") != code('f("${evil}")', ".kt")
    assert code('f("a")', ".swift") != code('f("\\(evil)")', ".swift")
    assert code("/* a */ x", ".js") != code("/* */ evil /* */ x", ".js")
    assert shell('a "b"') == shell('a "c\\$d"')
    assert shell('a "b"') != shell('a "$(evil)"')
    for broken in ('f("', "/* a"):
        with pytest.raises(ValueError):
            code(broken, ".c")
