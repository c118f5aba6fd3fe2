"""Recipes: every option survives TOML, and whatever is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.backends import registry
from edgewright.core.errors import RecipeError, UnknownNameError, UsageError
from edgewright.recipe import Recipe

TEXT = st.text(max_size=20)


@given(
    model=TEXT,
    data=TEXT,
    shapes=st.lists(TEXT, max_size=3),
    precisions=st.lists(st.sampled_from(["fp32", "fp16", "w8", "w8a8"]), min_size=1, unique=True),
    threads=st.lists(st.integers(1, 256), min_size=1, max_size=4, unique=True),
    seed=st.integers(-(2**62), 2**62),
)
def test_a_recipe_survives_toml(
    tmp_path_factory: pytest.TempPathFactory,
    model: str,
    data: str,
    shapes: list[str],
    precisions: list[str],
    threads: list[int],
    seed: int,
) -> None:
    recipe = Recipe(
        model=model,
        data=data,
        input_shapes=tuple(shapes),
        precisions=tuple(precisions),
        threads=tuple(threads),
        seed=seed,
    )
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    recipe.save(path)
    assert Recipe.read(path) == recipe


def test_targets_are_every_combination_in_order() -> None:
    recipe = Recipe(model="m", runtimes=("b", "a"), precisions=("fp32", "w8"), threads=(2, 1))
    assert [target.id for target in recipe.targets()] == [
        f"{runtime}-{precision}-{threads}t"
        for runtime in ("b", "a")
        for precision in ("fp32", "w8")
        for threads in (2, 1)
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model = ", "not TOML"),
        ("edgewright_recipe = 2\nmodel = 'm'", "expected 1"),
        ("model = 'm'", "expected 1"),
        ("edgewright_recipe = 1", "no key 'model'"),
        ("edgewright_recipe = 1\nmodel = 5", "model is 5"),
        ("edgewright_recipe = 1\nmodel = 'm'\nthreads = [1, true]", "threads"),
        ("edgewright_recipe = 1\nmodel = 'm'\nthreads = ['1']", "threads"),
        ("edgewright_recipe = 1\nmodel = 'm'\nseed = true", "seed is True"),
        ("edgewright_recipe = 1\nmodel = 'm'\nprecisons = ['w8']", "Did you mean 'precisions'?"),
    ],
)
def test_a_bad_recipe_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        Recipe.read(path)
    assert said in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    for content in (b"\xff\xfe\x00", b"#" * (2 << 20)):
        path = tmp_path / "recipe.toml"
        path.write_bytes(content)
        with pytest.raises(RecipeError):
            Recipe.read(path)
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(RecipeError, match="cannot be read"):
            Recipe.read(path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"runtimes": ()}, UsageError),
        ({"threads": (1, 1)}, UsageError),
        ({"threads": (0,)}, UsageError),
        ({"precisions": ("fp31",)}, UnknownNameError),
        ({"quantizer": "pt3e"}, UnknownNameError),
        ({"calibration_count": 0}, UsageError),
        ({"budget": ("size_mb",)}, UsageError),
        ({"budget": ("size_mb=1", "size_mb=2")}, UsageError),
    ],
)
def test_a_recipe_checks_itself(change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Recipe(model="m", **change)  # type: ignore[arg-type]


def test_all_is_what_is_installed_in_the_precisions_that_each_makes(tmp_path: Path) -> None:
    recipe = Recipe(model="m.onnx", runtimes=("all",), precisions=("fp32", "w4"))
    resolved = recipe.resolved()
    assert "reference" not in resolved.runtimes
    assert set(resolved.runtimes) <= set(registry.names())
    for target in resolved.targets():
        backend = registry.get(target.runtime)
        assert target.precision in backend.precisions
        assert backend.probe().is_installed
    resolved.save(tmp_path / "recipe.toml")
    assert Recipe.read(tmp_path / "recipe.toml") == resolved
    assert resolved.resolved() is resolved
