"""The store of finished steps: complete or absent, never wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgewright.workers.cache import Cache, default_root


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(root=tmp_path / "cache")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    return path


def test_a_step_comes_back_as_it_was(cache: Cache, file: Path) -> None:
    key = cache.key("convert", {"a": 1, "b": [2]})
    assert cache.get("convert", key) is None
    cache.put("convert", key, {"note": "x"}, [file])
    step = cache.get("convert", key)
    assert step is not None
    assert step.record == {"note": "x"}
    assert step.files["model.bin"].read_bytes() == b"weights"
    assert key == cache.key("convert", {"b": [2], "a": 1})
    assert len({key, cache.key("convert", {"a": 2, "b": [2]}), cache.key("time", {"a": 1, "b": [2]})}) == 3


@pytest.mark.parametrize("name", ["model.bin", "record.json"])
@pytest.mark.parametrize("change", [b"", b"weightS", None])
def test_what_changed_is_dropped(cache: Cache, file: Path, name: str, change: bytes | None) -> None:
    cache.put("convert", "k", {"note": "x"}, [file])
    assert cache.root is not None
    kept = cache.root / "convert" / "k" / name
    if change is None:
        kept.unlink()
    else:
        kept.write_bytes(change)
    assert cache.get("convert", "k") is None
    assert not kept.parent.exists()
    cache.put("convert", "k", {"note": "y"}, [file])
    step = cache.get("convert", "k")
    assert step is not None
    assert step.record == {"note": "y"}


def test_no_root_keeps_nothing(file: Path) -> None:
    cache = Cache(root=None)
    cache.put("convert", "k", {}, [file])
    assert cache.get("convert", "k") is None
    cache.prune()


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path, file: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    cache = Cache(root=tmp_path / "cache")
    cache.put("convert", "k", {}, [file])
    assert cache.get("convert", "k") is None


def test_the_steps_used_longest_ago_go_first(cache: Cache, file: Path) -> None:
    file.write_bytes(b"x" * 1000)
    for age, key in enumerate(("new", "middle", "old")):
        cache.put("convert", key, {}, [file])
        assert cache.root is not None
        os.utime(cache.root / "convert" / key, (1e9 - age, 1e9 - age))
    assert cache.get("convert", "old") is not None  # used just now
    cache.prune(limit_bytes=2500)
    assert cache.get("convert", "old") is not None
    assert cache.get("convert", "middle") is None
    assert cache.get("convert", "new") is not None


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path))
    assert default_root() == tmp_path
