"""SavedModels and frozen graphs: signature, layers and unsafe operators, told without TensorFlow."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.sources.tensorflow_files import (
    DENSE,
    FLOAT,
    STRING,
    call,
    constant,
    dense_graph,
    function,
    graph,
    message,
    node,
    placeholder,
    signature,
    tensor,
    write_saved_model,
)

from edgewright.core.errors import (
    EdgewrightError,
    FormatMismatchError,
    IntegrityError,
    UnavailableError,
    UsageError,
)
from edgewright.sources.inspection import inspect_program
from edgewright.sources.load import inspect_artifact, load
from edgewright.sources.saved_model import read_frozen_graph, read_saved_model
from edgewright.workers.pool import Worker


def test_a_folder_tells_its_signature_layers_and_parameters(tmp_path: Path) -> None:
    folder = write_saved_model(tmp_path / "m", dense_graph(), DENSE)
    program = load(str(folder), workdir=tmp_path / "work")
    assert (program.format, program.signature) == ("saved_model", "serving_default")
    assert [str(spec) for spec in (*program.inputs, *program.outputs)] == [
        "x: float32[?, 4]",
        "y: float32[?, 3]",
    ]
    found = inspect_artifact(folder)
    assert (found.parameters, found.macs) == (12, 12)
    assert dict(found.operators) == {"MatMul": 1, "Relu": 1}
    assert load(str(folder / "saved_model.pb"), workdir=tmp_path / "work").sha256 == program.sha256


def test_the_real_one_has_the_published_size(assets: Path) -> None:
    folder = assets / "models/mlperf-tiny/kws_dscnn_savedmodel"
    found = inspect_program(read_saved_model(folder, spec="kws"))
    assert (found.parameters, found.macs) == (24_908, 2_656_768)  # MACs: the MLPerf Tiny reference figure


def test_the_digest_covers_every_file_and_the_signature(tmp_path: Path) -> None:
    signatures = {"a": DENSE["serving_default"], "b": DENSE["serving_default"]}
    folder = write_saved_model(tmp_path / "m", dense_graph(), signatures)
    one = read_saved_model(folder, spec="m", signature="a").sha256
    assert read_saved_model(folder, spec="m", signature="b").sha256 != one
    (folder / "variables").mkdir()
    (folder / "variables/variables.index").write_bytes(b"x")
    two = read_saved_model(folder, spec="m", signature="a").sha256
    (folder / "variables/variables.index").rename(folder / "variables/other")
    assert len({one, two, read_saved_model(folder, spec="m", signature="a").sha256}) == 3


def test_calls_are_followed_and_circles_refused(tmp_path: Path) -> None:
    inner = function("inner", ["a", "b"], {"out": "p:product:0"}, node("p", "MatMul", "a", "b", T=FLOAT))
    outer = function("outer", ["a", "b"], {"out": "c:output:0"}, call("c", "inner", "a", "b"))
    nodes = (placeholder("x", None, 4), constant("w", 4, 3), call("y", "outer", "x", "w"))
    folder = write_saved_model(tmp_path / "m", graph(*nodes, functions=[inner, outer]), DENSE)
    found = inspect_program(read_saved_model(folder, spec="m"))
    assert (found.parameters, dict(found.operators)) == (12, {"MatMul": 1})
    endless = function("inner", ["a", "b"], {"out": "c:output:0"}, call("c", "outer", "a", "b"))
    folder = write_saved_model(tmp_path / "n", graph(*nodes, functions=[endless, outer]), DENSE)
    with pytest.raises(IntegrityError, match="calls itself"):
        inspect_program(read_saved_model(folder, spec="n"))


@pytest.mark.parametrize("is_empty", [False, True])
def test_functions_that_grow_without_end_are_refused(is_empty: bool, tmp_path: Path) -> None:
    leaf = function("f0", ["a"], {"out": "r:activations:0"}, node("r", "Relu", "a"))
    if is_empty:
        leaf = function("f0", ["a"], {"out": "a"})
    doubling = [leaf] + [
        function(
            f"f{i}",
            ["a"],
            {"out": "d:output:0"},
            call("c", f"f{i - 1}", "a"),
            call("d", f"f{i - 1}", "c"),
        )
        for i in range(1, 40)
    ]
    content = graph(placeholder("x", None, 4), call("y", "f39", "x"), functions=doubling)
    program = read_saved_model(write_saved_model(tmp_path / "m", content, DENSE), spec="m")
    with pytest.raises(IntegrityError, match="over 50000 operators and calls"):
        inspect_program(program)


def test_several_signatures_are_named_and_one_must_be_meant(tmp_path: Path) -> None:
    many = {"first": DENSE["serving_default"], "second": DENSE["serving_default"]}
    folder = write_saved_model(tmp_path / "m", dense_graph(), many)
    with pytest.raises(UsageError, match=r"first, second\. Say which with --signature"):
        load(str(folder), workdir=tmp_path / "w")
    assert load(str(folder), workdir=tmp_path / "w", signature="second").signature == "second"
    with pytest.raises(UsageError, match="has no signature 'third'; it has: first, second"):
        load(str(folder), workdir=tmp_path / "w", signature="third")
    with pytest.raises(UsageError, match="has no signature, so"):
        read_saved_model(write_saved_model(tmp_path / "n", dense_graph(), {}), spec="n")


def test_outputs_are_in_natural_order(tmp_path: Path) -> None:
    outputs = {f"output_{i}": tensor("y:0", None, 3) for i in (10, 2, 0, 1)}
    folder = write_saved_model(
        tmp_path / "m", dense_graph(), {"serving_default": signature({"x": tensor("x:0", None, 4)}, outputs)}
    )
    names = [spec.name for spec in read_saved_model(folder, spec="m").outputs]
    assert names == ["output_0", "output_1", "output_2", "output_10"]


def test_strings_unknown_ranks_and_dynamic_sizes(tmp_path: Path) -> None:
    def made(name: str, given: bytes) -> Path:
        signatures = {"serving_default": signature({"x": given}, {"y": tensor("y:0", None, 3)})}
        return write_saved_model(tmp_path / name, dense_graph(), signatures)

    with pytest.raises(FormatMismatchError, match="'x' holds strings"):
        read_saved_model(made("s", tensor("x:0", None, dtype=7)), spec="s")
    ranks = made("r", message((1, "x:0"), (2, 1), (3, message((3, 1)))))
    with pytest.raises(UsageError, match=r"'x' has no rank.*--input-shape"):
        read_saved_model(ranks, spec="r")
    fixed = read_saved_model(ranks, spec="r", input_shapes=["1x4"])
    assert [str(spec) for spec in fixed.inputs] == ["x: float32[1, 4]"]
    dynamic = read_saved_model(made("d", tensor("x:0", None, None, 4)), spec="d")
    assert "dimension 1" in dynamic.notes[0]


@pytest.mark.parametrize(
    "operator",
    ["PyFunc", "EagerPyFunc", "ReadFile", "WriteFile", "PrintV2", "TextLineDatasetV2", "RpcCall", "SaveV2"],
)
def test_operators_beyond_arithmetic_are_named_and_refused_unless_trusted(
    operator: str, tmp_path: Path
) -> None:
    hidden = function("f", ["a"], {"out": "evil:out:0"}, node("evil", operator, "a"))
    content = graph(placeholder("x", None, 4), call("y", "f", "x"), functions=[hidden])
    folder = write_saved_model(tmp_path / "m", content, DENSE)
    with pytest.raises(UsageError, match=rf"{operator} \(evil\).*--trust"):
        load(str(folder), workdir=tmp_path / "w")
    program = load(str(folder), workdir=tmp_path / "w", trust=True)
    assert program.is_trusted
    assert operator in program.notes[0]
    (tmp_path / "g.pb").write_bytes(graph(placeholder("x", None, 4), node("y", operator, "x")))
    with pytest.raises(UsageError, match=operator):
        load(str(tmp_path / "g.pb"), workdir=tmp_path / "w")


def test_saving_and_restoring_variables_is_no_danger_but_anything_else_there_is(tmp_path: Path) -> None:
    savers = message((1, "name:0"), (2, "save:0"), (3, "restore"))

    def made(name: str, *more: bytes) -> Path:
        save = function("saver", ["n"], {"out": "s"}, node("s", "SaveV2", "n"), *more)
        extra = (
            placeholder("name", dtype=STRING),
            call("save", "saver", "name"),
            node("restore", "RestoreV2"),
        )
        nodes = (placeholder("x", None, 4), node("y", "Relu", "x"), *extra)
        return write_saved_model(tmp_path / name, graph(*nodes, functions=[save]), DENSE, savers=savers)

    assert read_saved_model(made("m"), spec="m").notes == ()
    with pytest.raises(UsageError, match=r"WriteFile \(w\)"):
        read_saved_model(made("n", node("w", "WriteFile", "n")), spec="n")


@pytest.mark.parametrize(
    "way", ["a signature gives what a saver names", "a signature calls what a saver calls"]
)
def test_what_a_signature_runs_is_no_savers_whatever_the_file_says(way: str, tmp_path: Path) -> None:
    save = function("saver", ["n"], {"out": "n"}, node("s", "SaveV2", "n"))
    is_named = way.startswith("a signature gives")
    nodes = [placeholder("x", None, 4)]
    nodes += [call("y", "saver", "x")] if is_named else [node("y", "Relu", "x"), call("save", "saver", "x")]
    folder = write_saved_model(
        tmp_path / "m",
        graph(*nodes, functions=[save]),
        DENSE,
        savers=message((1, "x:0"), (2, "y:0" if is_named else "save:0")),
        # TensorFlow 2 looks up the function of a signature in the object graph, not in the graph.
        objects=b"" if is_named else message((2, message((1, "saver")))),
    )
    with pytest.raises(UsageError, match=r"SaveV2 \(s\).*--trust"):
        read_saved_model(folder, spec="m")


def test_links_and_assets_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = write_saved_model(tmp_path / "m", dense_graph(), DENSE, assets=["../../etc/passwd"])
    with pytest.raises(IntegrityError, match="outside the model's folder"):
        read_saved_model(folder, spec="m")
    folder = write_saved_model(tmp_path / "n", dense_graph(), DENSE)
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(IntegrityError, match="no regular file"):
        read_saved_model(folder, spec="n")
    with pytest.raises(UsageError, match="not a file"):
        load(str(tmp_path), workdir=tmp_path / "w")


def test_a_frozen_graph_is_described_without_tensorflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TOOLCHAINS", str(tmp_path / "none"))
    path = tmp_path / "g.pb"
    path.write_bytes(dense_graph())
    found = inspect_artifact(path)
    assert (found.format, found.parameters, found.macs) == ("graph_def", 12, 12)
    assert [spec.name for spec in (*found.inputs, *found.outputs)] == ["x", "y"]
    with pytest.raises(UnavailableError, match="edgewright toolchain install tensorflow"):
        load(str(path), workdir=tmp_path)
    path.write_bytes(graph(placeholder("x", None, 4), node("v", "VarHandleOp"), node("y", "Relu", "x")))
    with pytest.raises(UsageError, match="Freeze the graph"):
        read_frozen_graph(path, spec="g")


def test_truncated_and_mutated_graphs_give_one_error_and_never_end_the_worker(
    tmp_path: Path, worker: Worker
) -> None:
    folder = write_saved_model(tmp_path / "m", dense_graph(), DENSE)
    path = folder / "saved_model.pb"
    content = path.read_bytes()
    source = random.Random(SEED)
    arguments: dict[str, object] = {"spec": "m", "path": str(folder), "format": "saved_model", "layout": None}
    worker.call("edgewright.sources.operations:read", arguments)
    pid = worker.pid
    for part in (0.02, 0.3, 0.6, 0.95):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises((IntegrityError, FormatMismatchError)):
            worker.call("edgewright.sources.operations:read", arguments)
    for _ in range(100):
        mutated = bytearray(content)
        for _ in range(source.choice([1, 4, 16])):
            mutated[source.randrange(len(mutated))] = source.randrange(256)
        path.write_bytes(mutated)
        error = _error_of(worker, arguments)
        assert error is None or type(error) in (IntegrityError, FormatMismatchError, UsageError), error
        assert "\n" not in str(error)
    assert worker.pid == pid


def _error_of(worker: Worker, arguments: dict[str, object]) -> EdgewrightError | None:
    try:
        record = worker.call("edgewright.sources.operations:read", arguments)
        worker.call("edgewright.sources.operations:inspect", record)
    except EdgewrightError as err:
        return err
    return None
