"""Real models with their chains: the same output bits as layer by layer, in a smaller arena."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.microcontrollers.c_models import open_model, random_rows

from edgewright.microcontrollers import emit, host
from edgewright.microcontrollers.planner import plan_memory

MODELS = {
    "mlperf-tiny/ic_resnet8_int8.tflite": 16_000,
    "mlperf-tiny/vww_mobilenet_96_int8.tflite": 30_000,
    "tflite-micro/person_detect.tflite": 16_000,
}


@pytest.mark.slow
@pytest.mark.toolchain("ai_edge_litert")
@pytest.mark.parametrize("name", MODELS)
def test_a_chained_model_gives_the_bits_of_the_plain_one(
    name: str, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.compiler()
    path = assets / "models" / name
    chained = emit.compile_model(path, name="chained")
    monkeypatch.setattr(emit, "plan_streamed", plan_memory)
    plain = emit.compile_model(path, name="plain")
    assert chained.plan.chains
    assert not plain.plan.chains
    assert chained.plan.arena_bytes <= MODELS[name] < plain.plan.arena_bytes
    assert chained.macs == plain.macs
    ours, theirs = open_model(chained, tmp_path / "chained"), open_model(plain, tmp_path / "plain")
    for row in random_rows(plain, 4, seed=5):
        for one, other in zip(ours.run(row), theirs.run(row), strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.toolchain("ai_edge_litert")
def test_the_header_says_what_runs_by_rows(assets: Path) -> None:
    path = assets / "models" / "mlperf-tiny" / "vww_mobilenet_96_int8.tflite"
    model = emit.compile_model(path, name="vww")
    assert model.plan.chains
    for chain in model.plan.chains:
        assert f"layers {chain.first} to {chain.last}: of what lies between them" in model.header
        start = f"const uint8_t vww_order_{chain.first}["
        (table,) = [line for line in model.source.splitlines() if start in line]
        stored = int(table[table.index("[") + 1 : table.index("]")])
        assert stored < len(chain.steps) / 4
    assert "writes over\n * what lies there" in model.header


@pytest.mark.toolchain("ai_edge_litert")
def test_odd_widths_are_not_chained_for_little(assets: Path) -> None:
    """Five pixels a row would be multiplied as three pairs; outputs over rows that were read cost nothing."""
    path = assets / "models" / "mlperf-tiny" / "kws_dscnn_int8.tflite"
    plan = emit.compile_model(path, name="kws").plan
    assert not plan.chains
    assert plan.live_bytes <= plan.arena_bytes <= 13_000
