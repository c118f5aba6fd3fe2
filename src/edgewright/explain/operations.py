"""The worker operation of explain: read the model, and cross our own bridges where a runtime needs another format."""

from __future__ import annotations

from pathlib import Path

from edgewright.bridges import registry
from edgewright.core.errors import EdgewrightError
from edgewright.core.program import Program
from edgewright.explain.graph import Graph


def read(arguments: dict[str, object]) -> dict[str, object]:
    """Return the graphs of a program, in its own format and after each bridge.

    Args:
        arguments: {"program": Program, "bridges": list of routes, each a list of names, "workdir": folder}.
    Returns:
        {"graphs": {format: Graph}, "programs": {format: Program}, "refusals": {format: why it is not reached}}
    """
    record, routes = arguments["program"], arguments["bridges"]
    assert isinstance(record, dict)
    assert isinstance(routes, list)
    program = Program.from_json(record)
    programs = {program.format: program}
    refusals: dict[str, str] = {}
    for route in routes:
        assert isinstance(route, list)
        here = program
        for name in route:
            bridge = registry.get(str(name))
            if bridge.writes in refusals:
                break
            if bridge.writes not in programs:
                workdir = Path(str(arguments["workdir"])) / bridge.name
                workdir.mkdir(parents=True, exist_ok=True)
                try:
                    programs[bridge.writes] = bridge.convert(here, workdir)
                except EdgewrightError as err:
                    refusals[bridge.writes] = str(err)
                    break
            here = programs[bridge.writes]
    graphs = {name: graph_of(made) for name, made in programs.items() if name in READERS}
    return {
        "graphs": {name: graph.to_json() for name, graph in graphs.items()},
        "programs": {name: made.to_json() for name, made in programs.items()},
        "refusals": refusals,
    }


READERS = ("onnx", "pt2", "tflite")


def graph_of(program: Program) -> Graph:
    """Return the operators of `program`, which is in one of the formats of READERS."""
    if program.format == "onnx":
        from edgewright.explain.read_onnx import read_onnx_graph

        return read_onnx_graph(program.path)
    if program.format == "tflite":
        from edgewright.explain.read_tflite import read_tflite_graph

        return read_tflite_graph(program.path)
    from edgewright.explain.read_torch import read_torch_graph

    return read_torch_graph(program.path)
