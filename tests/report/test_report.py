"""The report: table, page, records, comparison and progress, on invented summaries."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.report import cells
from edgewright.report.compare import compare_results
from edgewright.report.html import render, write_report
from edgewright.report.progress import LiveProgress
from edgewright.report.records import read_results, write_results
from edgewright.report.table import to_html_table, to_text


def _load_summaries() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "report_summaries", Path(__file__).with_name("summaries.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


made = _load_summaries()


@pytest.mark.parametrize("width", [120, 100, 80])
def test_table_fits_and_keeps_what_matters(width: int) -> None:
    text = to_text(made.summary(), width)
    assert max(map(len, text.splitlines())) <= width
    assert re.search(r"^★ openvino +w8a8 +1 ok ", text, re.MULTILINE)
    assert "degraded: litert-w8a8-2t: over budget" in text
    assert "failed: onnxruntime-fp16-1t, onnxruntime-fp16-2t: the converter refused" in text
    assert "0.164!" in text and "latency not valid: openvino-fp16-2t" in text
    assert ("+0.21 [+0.08, +0.36]" in text) == (width >= 100)
    assert ("99" in text.splitlines()[0]) == (width == 120)


def test_hostile_names_reach_neither_terminal_nor_markup() -> None:
    text = to_text(made.hostile())
    assert "\x1b" not in text and "\u202e" not in text
    fragment = to_html_table(made.hostile())
    assert "<img" not in fragment and "<script" not in fragment


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.012345, "0.0123"),
        (9.996, "10.0"),
        (0.0, "0"),
        (1234.5, "1,234"),
        (99.96, "100"),
        (None, "-"),
        (1.5, "1.50"),
    ],
)
def test_three_significant_digits(value: float | None, text: str) -> None:
    assert cells.significant(value) == text


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_page_runs_only_our_scripts_and_loads_nothing() -> None:
    parser = _Tags()
    parser.feed(render(made.hostile()))
    assert [attrs for tag, attrs in parser.tags if tag == "script"] == [
        {"type": "application/json", "id": "figures"},
        {},
        {},
    ]
    assert not {tag for tag, _ in parser.tags} & {"img", "link", "iframe", "object", "base", "a"}
    assert not any(
        name.startswith("on") or name in ("src", "href") for _, attrs in parser.tags for name in attrs
    )
    policy = next(a["content"] or "" for t, a in parser.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_page_is_small_and_holds_figures_and_samples(tmp_path: Path) -> None:
    rows = [made.ok_result(r, p, t, n=9000) for r in made.RUNTIMES for p in made.PRECISIONS for t in (1, 2)]
    write_report(made.summary(rows), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 6_000_000
    figures = re.search(r'id="figures">(.*?)</script>', page)
    assert figures is not None
    assert set(json.loads(figures[1])) == {"tradeoff", "latency", "drop", "size"}
    assert "every 3th" not in page and "one in 3" in page
    assert "no per-layer times" in page


def test_page_of_a_build_without_results() -> None:
    page = render(made.summary([]))
    assert "Nothing is recommended" in page and "No figures: nothing was measured." in page


def test_records_come_back_and_stale_evidence_goes(tmp_path: Path) -> None:
    write_results(made.summary(), tmp_path)
    names = {path.name for path in (tmp_path / "evidence").iterdir()}
    assert "openvino-w8a8-1t.latency.json" in names
    assert not any("energy" in name or name.startswith("litert-w8-") for name in names)
    statement = json.loads(
        (tmp_path / "evidence" / "openvino-w8a8-1t.latency.json").read_text(encoding="utf-8")
    )
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert len(statement["predicate"]["samples"]["wall_ms"]) == statement["predicate"]["metrics"]["n"] == 400
    write_results(made.summary(made.rows((1,))), tmp_path)
    assert not list((tmp_path / "evidence").glob("*-2t.*"))
    assert [r.id for r in read_results(tmp_path).results] == [r.id for r in made.rows((1,))]


def test_hostile_ids_stay_in_the_evidence_folder(tmp_path: Path) -> None:
    result = replace(made.ok_result("litert", made.Precision.W8, n=5), id="../../escape")
    write_results(made.summary([result]), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["evidence", "results.json"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"status": "ok"', '"status": "great"'),
        ('"size_bytes": ', '"size_bytes": -'),
        ('"download_bytes": ', '"download_bytes": -'),
        ('"valid": true', '"valid": 1'),
        ('"p50": ', '"p50": 1e400, "x": '),
        ('"p50": ', '"p50": "fast", "x": '),
        ('"id": "litert-fp32-2t"', '"id": "litert-fp32-1t"'),
        ('"recommended": "openvino-w8a8-1t"', '"recommended": "nobody"'),
        ('"results": [', '"results": 3, "rest": ['),
    ],
)
def test_a_tampered_file_is_refused(tmp_path: Path, old: str, new: str) -> None:
    write_results(made.summary(), tmp_path)
    file = tmp_path / "results.json"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"results\.json"):
        read_results(file)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_results(tmp_path / "results.json")


def test_compare_finds_what_got_worse_and_never_judges_latency(tmp_path: Path) -> None:
    rows = made.rows((1,))
    write_results(made.summary(rows), tmp_path / "a")
    slow = [
        replace(r, latency_ms=replace(r.latency_ms, p50=2 * r.latency_ms.p50)) if r.latency_ms else r
        for r in rows
    ]
    write_results(made.summary(slow), tmp_path / "slow")
    same = compare_results(tmp_path / "a", tmp_path / "slow")
    assert not same.is_regression
    assert same.changes[0].latency_ratio == pytest.approx(2.0)

    first = replace(rows[0], size_bytes=2 * rows[0].size_bytes, download_bytes=3 * rows[0].download_bytes)
    lost = replace(rows[1].metric, drop_points=4.0, drop_ci95=(3.0, 5.0))
    write_results(made.summary([first, replace(rows[1], metric=lost), *rows[2:-1]]), tmp_path / "b")
    found = compare_results(tmp_path / "a", tmp_path / "b")
    assert found.is_regression
    assert [text.split(":")[0] for text in found.regressions] == [rows[0].id] * 2 + [rows[1].id, rows[-1].id]
    assert "download was" in found.regressions[0] and "size was" in found.regressions[1]
    back = compare_results(tmp_path / "b", tmp_path / "a")
    assert not back.is_regression

    from rich.console import Console

    stream = io.StringIO()
    found.render(Console(file=stream, width=120))
    assert "indicative only" in stream.getvalue() and "(missing)" in stream.getvalue()
    json.dumps(found.to_json(), allow_nan=False)


def test_progress_prints_one_line_per_finished_step() -> None:
    stream = io.StringIO()
    with LiveProgress(["litert-w8-1t"], stream=stream) as live:
        live("litert-w8", "convert", "running")
        live("litert-w8", "convert", "done")
        for turn in range(30):
            live("litert-w8-1t", f"round {turn + 1}/30", "running")
        live("litert-w8-1t", "time", "done")
    lines = stream.getvalue().splitlines()
    assert [line.partition("] ")[2] for line in lines] == [
        "litert-w8: convert: done",
        "litert-w8-1t: time: done",
    ]


def test_progress_on_a_terminal_takes_calls_from_many_threads() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    ids = [f"litert-w8-{n}t" for n in range(1, 9)]
    stream = Terminal()
    with LiveProgress(ids, stream=stream) as live:
        threads = [
            threading.Thread(target=lambda i=i: [live(i, "time", s) for s in ("running", "done")])
            for i in ids
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "8/8 targets" in stream.getvalue()


def test_report_imports_no_heavy_package() -> None:
    code = (
        "import sys, edgewright.report.table, edgewright.report.html, edgewright.report.progress\n"
        "print([m for m in ('plotly', 'jinja2', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
