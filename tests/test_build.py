"""The main path for real: a small model through conversion, verification, measurement, report, cache and replay."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.proving_backends import NOT_HERE
from tests.small_models import arrays, rows, write_onnx

from edgewright.core.files import sha256_of
from edgewright.ewz import packed_bytes
from edgewright.pipeline import build, run_recipe
from edgewright.recipe import Recipe

if TYPE_CHECKING:
    from tests.conftest import SmallBuild

ROW_FIELDS = {
    "id", "runtime", "precision", "threads", "status", "reason", "artifact", "sha256", "download_bytes", "size_bytes",
    "metric",
    "parity", "latency_ms", "cpu_ms_p50", "memory_bytes", "energy", "budget",
}  # fmt: skip
LATENCY_FIELDS = {"p50", "p95", "p99", "mean", "std", "min", "max", "n", "valid"}
pytestmark = pytest.mark.toolchain("onnx", "onnxruntime")


def test_statuses_and_reasons(small_build: SmallBuild) -> None:
    by_id = {result.id: result for result in small_build.result.results}
    missing = [f"{NOT_HERE}-{precision}-1t" for precision in ("fp32", "w8a8")]
    assert list(by_id) == ["onnxruntime-fp32-1t", "onnxruntime-w8a8-1t", *missing]
    assert by_id["onnxruntime-fp32-1t"].status == "ok"
    assert by_id["onnxruntime-w8a8-1t"].status == "ok", by_id["onnxruntime-w8a8-1t"].reason
    for name in missing:
        assert by_id[name].status == "unavailable"
        assert "onnx" in by_id[name].reason.lower()
        assert by_id[name].artifact is None
    assert small_build.result.exit_code == 3


def test_results_json_has_the_promised_fields(small_build: SmallBuild) -> None:
    record = json.loads((small_build.out / "results.json").read_text())
    assert set(record) >= {"source", "results", "pareto", "recommended", "why"}
    assert record["source"]["format"] == "onnx"
    assert record["source"]["sha256"] == sha256_of(small_build.model)
    ids = [row["id"] for row in record["results"]]
    assert record["recommended"] is None or record["recommended"] in record["pareto"]
    assert set(record["pareto"]) <= set(ids)
    for row in record["results"]:
        assert set(row) >= ROW_FIELDS
        assert set(row["budget"]) == {"pass", "violations"}
    row = rows(small_build.out)["onnxruntime-w8a8-1t"]
    assert set(row["metric"]) >= {"name", "source", "value", "n", "drop_points", "drop_ci95", "p_value"}  # type: ignore[arg-type]
    assert set(row["parity"]) >= {"max_abs", "cosine", "snr_db", "agreement"}  # type: ignore[arg-type]
    assert set(row["latency_ms"]) >= LATENCY_FIELDS  # type: ignore[arg-type]
    assert small_build.result.records() == record["results"]


def test_the_source_agrees_with_its_own_labels_and_the_drop_is_paired(small_build: SmallBuild) -> None:
    metric = rows(small_build.out)["onnxruntime-w8a8-1t"]["metric"]
    assert isinstance(metric, dict)
    assert metric["source"] == 1.0
    assert metric["n"] == 64
    assert metric["drop_points"] == pytest.approx(100 * (1.0 - metric["value"]))
    low, high = metric["drop_ci95"]
    assert low <= metric["drop_points"] <= high


def test_every_artifact_is_what_its_record_and_its_row_say(small_build: SmallBuild) -> None:
    for row in rows(small_build.out).values():
        if row["artifact"] is None:
            continue
        file = small_build.out / str(row["artifact"])
        assert sha256_of(file) == row["sha256"]
        assert file.stat().st_size == row["size_bytes"]
        assert packed_bytes({file.name: file}) == row["download_bytes"]
        record = json.loads((file.parent / "artifact.json").read_text())
        assert record["sha256"] == row["sha256"]
        assert record["source_sha256"] == sha256_of(small_build.model)
        assert record["files"] == [file.name]
        assert record["toolchain"]["onnxruntime"]


def test_evidence_is_in_toto_statements_about_the_artifacts(small_build: SmallBuild) -> None:
    kinds: dict[str, set[str]] = {}
    by_digest = {row["sha256"]: row for row in rows(small_build.out).values()}
    for path in (small_build.out / "evidence").iterdir():
        statement = json.loads(path.read_text())
        assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        (subject,) = statement["subject"]
        row = by_digest[subject["digest"]["sha256"]]
        assert subject["name"] == row["artifact"]
        predicate = statement["predicate"]
        assert predicate["conditions"]["data_sha256"]
        assert predicate["conditions"]["toolchain"]
        kinds.setdefault(str(row["id"]), set()).add(predicate["kind"])
        if predicate["kind"] == "latency":
            latency = row["latency_ms"]
            assert isinstance(latency, dict)
            samples = predicate["samples"]["wall_ms"]
            assert len(samples) == latency["n"]
            assert np.median(samples) == pytest.approx(latency["p50"])
    assert set(kinds) == {"onnxruntime-fp32-1t", "onnxruntime-w8a8-1t"}
    for found in kinds.values():
        assert found >= {"parity", "accuracy", "latency", "size"}


def test_the_report_is_one_page_that_loads_nothing(small_build: SmallBuild) -> None:
    loaded: list[tuple[str, str]] = []

    class Loads(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            names = {"src", "srcset", "data"} | ({"href"} if tag == "link" else set())
            loaded.extend((tag, value or "") for name, value in attrs if name in names)

    page = small_build.result.report.read_text()
    assert "onnxruntime-w8a8-1t" in page
    Loads().feed(page)
    assert [(tag, value) for tag, value in loaded if not value.startswith("data:")] == []


def test_a_result_prints_as_the_table_and_shows_in_a_notebook(small_build: SmallBuild) -> None:
    text = str(small_build.result)
    assert "onnxruntime" in text
    assert "unavailable" in text
    html = small_build.result._repr_html_()
    assert "<table" in html
    assert html.count("<tr") >= 5


def test_a_repeated_build_goes_on_from_the_cache(small_build: SmallBuild, tmp_path: Path) -> None:
    steps: list[tuple[str, str, str]] = []
    recipe = Recipe.read(small_build.out / "recipe.toml")
    again = run_recipe(recipe, out=tmp_path / "out", progress=lambda *step: steps.append(step))
    assert ("onnxruntime-fp32", "convert", "cached") in steps
    assert ("onnxruntime-w8a8", "convert", "cached") in steps
    assert ("onnxruntime-fp32-1t", "time", "cached") in steps
    assert not [step for step in steps if step[1] == "convert" and step[2] == "running"]
    assert [r.sha256 for r in again.results] == [r.sha256 for r in small_build.result.results]
    assert [r.latency_ms for r in again.results] == [r.latency_ms for r in small_build.result.results]
    assert again.summary.conditions["timing"] == "kept from an earlier build of the same targets"


def test_replay_without_cache_gives_the_same_artifacts(small_build: SmallBuild, tmp_path: Path) -> None:
    recipe = Recipe.read(small_build.out / "recipe.toml")
    assert (small_build.out / "recipe.toml").read_text() == recipe.to_toml()
    again = run_recipe(recipe, out=tmp_path / "out", use_cache=False)
    assert [r.sha256 for r in again.results] == [r.sha256 for r in small_build.result.results]
    assert (tmp_path / "out" / "recipe.toml").read_text() == recipe.to_toml()
    for mine, other in zip(again.results, small_build.result.results, strict=True):
        assert mine.parity == other.parity
        assert mine.metric == other.metric


def test_a_tampered_cache_entry_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    model = write_onnx(tmp_path / "m.onnx")
    recipe = Recipe(model=str(model), runtimes=("onnxruntime",), precisions=("fp16",))
    first = run_recipe(recipe, out=tmp_path / "a")
    (kept,) = (tmp_path / "cache" / "convert").glob("*/model.onnx")
    kept.write_bytes(kept.read_bytes()[:-1] + b"\x00")
    steps: list[tuple[str, str, str]] = []
    second = run_recipe(recipe, out=tmp_path / "b", progress=lambda *step: steps.append(step))
    assert ("onnxruntime-fp16", "convert", "done") in steps
    assert [r.sha256 for r in second.results] == [r.sha256 for r in first.results]
    assert [str(r.status) for r in second.results] == ["ok"]


def test_a_build_into_its_own_folder_drops_what_it_no_longer_makes(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx")
    recipe = Recipe(model=str(model), runtimes=("onnxruntime",), precisions=("fp32", "fp16"))
    run_recipe(recipe, out=tmp_path / "out")
    run_recipe(replace(recipe, precisions=("fp32",)), out=tmp_path / "out")
    assert [f.name for f in (tmp_path / "out" / "artifacts").iterdir()] == ["onnxruntime-fp32"]
    assert not list((tmp_path / "out" / "evidence").glob("*fp16*"))


def test_without_data_parity_is_synthetic_and_w8a8_is_refused(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx")
    result = build(model, to=("onnxruntime",), precision=("fp32", "w8a8"), out=tmp_path / "out")
    full, quantized = result.results
    assert full.parity is not None
    assert full.parity.inputs == "synthetic"
    assert full.metric is None
    assert str(quantized.status) == "unavailable"
    assert "calibration" in quantized.reason
    assert any("no evaluation data" in warning for warning in result.summary.warnings)


def test_a_budget_that_is_broken_degrades_and_says_by_how_much(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx")
    result = build(
        model, to=("onnxruntime",), precision=("fp32",), budget={"size_mb": 0.001}, out=tmp_path / "out"
    )
    (row,) = result.results
    assert str(row.status) == "degraded"
    assert row.verdict.violations == (f"size_mb: {model.stat().st_size / 1e6:.4g} > 0.001",)
    assert result.exit_code == 5
    assert result.recommended is None


def test_arrays_as_data_in_python(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx")
    known = arrays(model, count=32)
    result = build(
        model,
        data=(known["x"], known["labels"]),
        to=("onnxruntime",),
        precision=("fp32",),
        out=tmp_path / "out",
    )
    (row,) = result.results
    assert row.metric is not None
    assert (row.metric.name, row.metric.value, row.metric.n) == ("top1", 1.0, 32)
    assert Recipe.read(tmp_path / "out" / "recipe.toml").data.endswith("eval.npz")


@pytest.mark.toolchain("torch", "onnxscript")
@pytest.mark.parametrize(
    ("to", "layout"),
    [
        pytest.param(("onnxruntime",), "", id="one runtime"),
        pytest.param(("onnxruntime", "litert", "openvino"), "nhwc", id="all, nhwc", marks=pytest.mark.slow),
    ],
)
def test_a_live_module(tmp_path: Path, to: tuple[str, ...], layout: str) -> None:
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 10)
    ).eval()
    x = np.random.default_rng(0).normal(size=(16, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        labels = module(torch.from_numpy(x)).argmax(dim=1).numpy()
    result = build(
        module,
        example_inputs=torch.zeros(2, 1, 8, 8),
        data=(x, labels),
        to=to,
        precision=("fp32",),
        layout="nhwc" if layout else "",
        out=tmp_path / "out",
    )
    assert [(row.id, str(row.status), row.reason) for row in result.results] == [
        (f"{name}-fp32-1t", "ok", "") for name in to
    ]
    for row in result.results:
        assert row.metric is not None
        assert row.metric.value == 1.0
        record = json.loads(
            (tmp_path / "out" / f"artifacts/{row.target.artifact_id}/artifact.json").read_text()
        )
        (spec,) = record["inputs"]
        assert spec["shape"][1:] == ([8, 8, 1] if layout else [1, 8, 8])
        is_static = spec["shape"][0] is not None
        assert is_static == any("batch" in note for note in row.notes)
