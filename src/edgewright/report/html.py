"""The report: one HTML page that needs nothing besides itself."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgewright.core.files import write_text
from edgewright.core.result import Result, Status, Summary
from edgewright.report.cells import reasons, significant, timing_remarks
from edgewright.report.plots import plots
from edgewright.report.table import columns_of

_EMBEDDED_SAMPLES = 500


def write_report(summary: Summary, path: Path) -> None:
    """Write the page of `summary` to `path`, atomically."""
    write_text(path, render(summary))


def render(summary: Summary) -> str:
    """Return the page. Every text in it is escaped: names of layers and files may come from anywhere."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgewright.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["zip"] = zip
    figures = plots(summary)
    layers = [plot for plot in figures if plot.id.startswith("layers-")]
    shown = [column for column in columns_of(summary) if column.is_full]
    counts = {status: sum(r.status is status for r in summary.results) for status in Status}
    return environment.get_template("report.html.j2").render(
        summary=summary,
        best=next((r for r in summary.results if r.id == summary.recommended), None),
        best_facts=_facts(summary),
        counts={str(status): count for status, count in counts.items() if count},
        columns=[{"heading": c.heading, "is_number": c.is_number} for c in shown],
        rows=[
            {
                "id": r.id,
                "mark": _mark(r, summary),
                "status": str(r.status),
                "cells": [c.cell(r) for c in shown],
                "is_best": r.id == summary.recommended,
            }
            for r in summary.results
        ],
        reasons=[(", ".join(ids), str(status), why) for status, why, ids in reasons(summary.results)],
        notes=_notes(summary),
        plots=[plot for plot in figures if plot not in layers],
        layers=layers,
        figures=_script_json({plot.id: plot.figure for plot in figures if plot.figure is not None}),
        conditions=_flat(summary.conditions),
        source=_flat(summary.source),
        details=[_detail(r) for r in summary.results],
        plotly=_plotly(),
    )


def _mark(result: Result, summary: Summary) -> str:
    """★ for the recommended row, · for the others on the Pareto front."""
    if result.id == summary.recommended:
        return "★"
    return "·" if result.id in summary.pareto else ""


def _notes(summary: Summary) -> list[tuple[str, str]]:
    """Return (ids, note) with equal notes together, those on timing included."""
    groups: dict[str, list[str]] = {}
    for result in summary.results:
        for note in result.notes:
            groups.setdefault(note, []).append(result.id)
    remarks = [(", ".join(ids), f"latency not valid: {why}") for why, ids in timing_remarks(summary.results)]
    return [(", ".join(ids), note) for note, ids in groups.items()] + remarks


def _plotly() -> str:
    """Return plotly.js. It is MIT-licensed and keeps its notice in its first lines."""
    text = (importlib.resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script")


def _script_json(value: object) -> str:
    """Return JSON that cannot end a script element."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")


def _facts(summary: Summary) -> list[tuple[str, str]]:
    best = next((r for r in summary.results if r.id == summary.recommended), None)
    if best is None or best.latency_ms is None or best.size_bytes is None:
        return []
    facts = [("p50 latency", f"{significant(best.latency_ms.p50)} ms"), ("size", f"{best.size_bytes / 1e3:,.0f} kB")]
    if best.metric is not None:
        facts.append((f"{best.metric.name} drop", f"{best.metric.drop_points:+.2f} points"))
    if best.memory_bytes is not None:
        facts.append(("peak memory", f"{best.memory_bytes / 1e6:.1f} MB"))
    if best.speed_up is not None:
        facts.append(("against fp32 there", f"{best.speed_up:.2f}x"))
    return facts


def _flat(record: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name} / ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            rows.append((f"{prefix}{name}", "; ".join(str(entry) for entry in value) or "none"))
        else:
            rows.append((f"{prefix}{name}", "not known" if value is None else str(value)))
    return rows


def _detail(result: Result) -> dict[str, object]:
    """Return what the page shows of one target on demand: its record and its latency samples."""
    record = result.to_json()
    every = max(1, len(result.latency_samples_ms) // _EMBEDDED_SAMPLES)
    samples = [float(f"{value:.4g}") for value in result.latency_samples_ms[::every]]
    latency = result.latency_ms
    facts = [("artifact", result.artifact or "none"), ("sha256", result.sha256 or "none")]
    if latency is not None:
        interval = latency.p50_ci95
        text = f"{significant(interval[0])} .. {significant(interval[1])} ms" if interval else "not known"
        facts += [("p50, 95 % interval", text), ("inferences timed", f"{latency.n:,}")]
        facts.append(("latency valid", "yes" if latency.valid else f"no: {latency.why_invalid}"))
    if result.cpu_ms_p50 is not None:
        facts.append(("CPU time p50", f"{significant(result.cpu_ms_p50)} ms"))
    if result.parity is not None:
        p = result.parity
        snr = "not known" if p.snr_db is None else f"{p.snr_db:.1f} dB"
        agreement = "not applicable" if p.agreement is None else f"{100 * p.agreement:.2f} %"
        facts.append(("max abs difference", "not known" if p.max_abs is None else f"{p.max_abs:.3g}"))
        facts += [("SNR", snr), ("top-1 agreement", agreement), ("compared on", f"{p.n:,} samples ({p.inputs})")]
    energy = result.energy_note if result.energy_mj is None else f"{result.energy_mj:.3g} mJ per inference (RAPL package)"
    facts.append(("energy", energy))
    return {
        "id": result.id,
        "status": str(result.status),
        "facts": facts,
        "json": json.dumps(record, indent=1, allow_nan=False),
        "samples": json.dumps(samples, allow_nan=False),
        "sample_text": f"every {every}th of {len(result.latency_samples_ms):,}" if every > 1 else "all",
    }
