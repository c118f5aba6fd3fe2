"""The worker operation of explain: read the model, and cross our own bridges where a runtime needs another format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgewright.bridges import registry
from edgewright.core.contracts import Bridge
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
    graphs: dict[str, Graph] = {}
    refusals: dict[str, str] = {}
    if program.format in READERS:
        graphs[program.format] = graph_of(program)
    for route in routes:
        assert isinstance(route, list)
        here = program
        for name in route:
            bridge = registry.get(str(name))
            if bridge.writes in refusals:
                break
            if bridge.writes not in programs:
                workdir = Path(str(arguments["workdir"])) / bridge.name
                try:
                    programs[bridge.writes], graphs[bridge.writes] = _cross(bridge, here, workdir)
                except EdgewrightError as err:
                    refusals[bridge.writes] = str(err)
                    break
            here = programs[bridge.writes]
    return {
        "graphs": {name: graph.to_json() for name, graph in graphs.items()},
        "programs": {name: made.to_json() for name, made in programs.items()},
        "refusals": refusals,
    }


def _cross(bridge: Bridge, program: Program, workdir: Path) -> tuple[Program, Graph]:
    """Return the program on the other side of `bridge`, and its operators."""
    if bridge.name == "onnx-to-torch":
        from edgewright.explain.cross import traced_onnx
        from edgewright.explain.read_torch import torch_graph

        graph = torch_graph(traced_onnx(program), title=program.path.name)
        return replace(program, format=bridge.writes), graph
    workdir.mkdir(parents=True, exist_ok=True)
    made = bridge.convert(program, workdir)
    return made, graph_of(made)


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
