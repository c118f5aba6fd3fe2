"""The table and the page of a compression, from invented figures: what they show, leave out and never let through."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report import summaries as made

from edgewright.core.compression import CompressionSummary, Row, StepRecord, StepState
from edgewright.core.result import Status
from edgewright.core.target import Precision
from edgewright.report.compression import to_text, write_report, write_results
from edgewright.report.compression_page import render, to_html_table


def step(number: int, name: str, **changes: object) -> StepRecord:
    record = StepRecord(
        number=number,
        name=name,
        options={"macs": 0.5},
        program=f"steps/{number:02d}-{name}/model.pt2",
        sha256="ab" * 32,
        precision="fp32",
        parameters=1_234_567 // (number + 1),
        macs=7_200_000 // (number + 1),
        sparsity=0.25 * number,
        seconds=12.5,
        seed=0,
        facts={"layers": 8, "share": 0.512, "chosen": "l2"} if number else {},
        tables={
            "Per layer": [{"layer": "stem", "zeros": 12, "share": 0.5}, {"layer": "head", "note": "kept"}]
        }
        if number
        else {},
        notes=("LiteRT does not skip zeros.",) if number else (),
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def row(of: StepRecord, runtime: str, *, size_bytes: int, p50_ratio: float) -> Row:
    result = made.ok_result(runtime, Precision.FP32)
    result = replace(
        result, id=f"{of.id}.{runtime}", size_bytes=size_bytes, speed_up=p50_ratio, artifact=None
    )
    return Row(step=of.id, runtime=runtime, result=result, download_bytes=size_bytes)


def summary(name: str = "prune") -> CompressionSummary:
    steps = (step(0, "original"), step(1, name), step(2, "qat"))
    rows = [
        row(one, runtime, size_bytes=400_000 // (one.number + 1), p50_ratio=1.0 + one.number)
        for one in steps
        for runtime in ("litert", "onnxruntime")
    ]
    rows[3] = replace(
        rows[3],
        download_bytes=None,
        result=replace(
            rows[3].result, status=Status.FAILED, reason="no kernel", size_bytes=None, latency_ms=None,
            metric=None, memory_bytes=None, speed_up=None, latency_samples_ms=(), error="ConversionError",
        ),
    )  # fmt: skip
    return CompressionSummary(
        source={"path": "net.onnx", "format": "onnx", "sha256": "cd" * 32},
        steps=steps,
        rows=tuple(rows),
        conditions={"seed": 0, "host": {"cores": 2}},
        commands={one.id: f"edgewright build out/{one.program} --to litert" for one in steps[1:]},
        warnings=("train_data and data are the same samples",),
    )


def test_the_table_has_a_group_per_step_and_what_each_says() -> None:
    text = to_text(summary())
    lines = text.splitlines()
    assert (
        sum(line.startswith("01-prune") for line in lines[:9]) == 1
    )  # the step stands in its first row alone
    assert re.search(r"^original +7.20 +1,235", text, re.MULTILINE)
    assert re.search(r"^02-qat .*3.00", text, re.MULTILINE)
    assert "01-prune: layers 8, share 0.512, chosen l2" in text
    assert "01-prune: LiteRT does not skip zeros." in text
    assert "failed: 01-prune.onnxruntime: no kernel" in text
    assert "warning: train_data and data are the same samples" in text
    assert "  edgewright build out/steps/02-qat/model.pt2 --to litert" in lines


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_the_table_fits_its_width(width: int) -> None:
    shown = to_text(summary(), width)
    table = shown.partition("\n\n")[0].splitlines()
    assert all(len(line) <= width for line in table)
    for heading in ("step", "runtime", "download", "speed"):
        assert heading in shown
    assert ("[95 % interval]" in shown) == (width >= 100)


def test_a_chain_that_ended_early_says_so() -> None:
    failed = replace(summary(), failure="step 03-cluster failed: no room")
    assert "the chain ended early: step 03-cluster failed: no room" in to_text(failed)
    assert "The chain ended early: step 03-cluster failed: no room" in render(failed)
    assert failed.to_json()["failure"] == "step 03-cluster failed: no room"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_runs_only_our_scripts_and_loads_nothing() -> None:
    hostile = summary()
    bad = replace(
        hostile.steps[1],
        notes=(made.HOSTILE,),
        facts={made.HOSTILE: made.HOSTILE},
        tables={made.HOSTILE: [{made.HOSTILE: made.HOSTILE}]},
        options={made.HOSTILE: made.HOSTILE},
    )
    hostile = replace(
        hostile,
        source={"path": made.HOSTILE, "format": made.HOSTILE},
        steps=(hostile.steps[0], bad, hostile.steps[2]),
        warnings=(made.HOSTILE,),
        failure=made.HOSTILE,
    )
    parser = _Tags()
    parser.feed(render(hostile))
    scripts = [attrs for tag, attrs in parser.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "figures"}, {}, {}]
    assert not {tag for tag, _ in parser.tags} & {"img", "link", "iframe", "object", "base", "a"}
    assert not any(
        name.startswith("on") or name in ("src", "href") for _, attrs in parser.tags for name in attrs
    )
    assert "<img" not in to_html_table(hostile)
    assert "\x1b" not in to_text(hostile) and "\u202e" not in to_text(hostile)


def test_the_page_holds_figures_and_tables_of_passes(tmp_path: Path) -> None:
    write_report(summary(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    figures = re.search(r'id="figures">(.*?)</script>', page)
    assert figures is not None
    found = json.loads(figures[1])
    assert set(found) == {"tradeoff", "download", "drop", "latency", "ram"}
    downloads = {trace["name"]: trace for trace in found["download"]["data"]}
    assert downloads["litert"]["y"] == [400.0, 200.0, 133.333]
    assert downloads["onnxruntime"]["x"] == ["original", "02-qat"]
    assert "Per layer" in page and "stem" in page
    assert page.count("edgewright build") == 2


def test_the_record_says_what_is_download_disk_packed_and_ram(tmp_path: Path) -> None:
    write_results(summary(), tmp_path)
    record = json.loads((tmp_path / "results.json").read_text())
    first = record["results"][0]
    assert first["id"] == "original/litert"
    assert {"download_bytes", "disk_bytes", "packed_bytes", "ram_bytes"} <= set(first)
    assert first["disk_bytes"] == first["download_bytes"] == 400_000
    assert first["packed_bytes"] != first["disk_bytes"]
    assert (tmp_path / "evidence" / "02-qat.litert.latency.json").is_file()
    assert StepRecord.from_json(record["steps"][1]) == summary().steps[1]


def test_a_step_comes_back_from_its_record() -> None:
    one = step(3, "cluster", macs=None, sparsity=None, state=StepState.RESUMED)
    assert StepRecord.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert one.id == "03-cluster"
    assert replace(one, name="pkg.passes:MINE").id == "03-mine"
