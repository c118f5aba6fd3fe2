"""Options of passes: strict, with the nearest name, and the same after a round trip."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.compress import names, registry
from edgewright.core.errors import RecipeError, UnavailableError, UnknownNameError, UsageError
from edgewright.core.options import option_fields, options_record, read_options, read_settings


@dataclass(frozen=True, kw_only=True)
class Some:
    """Options of every kind.

    Attributes:
        macs: the share that stays,
            as a number.
        bits, steps: whole numbers.
    """

    macs: float
    bits: int = 4
    steps: int = 1
    keeps: bool = True
    scope: Literal["global", "layer"] = "global"
    name: str = ""
    layers: tuple[str, ...] = ("*",)
    limit: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.macs <= 1:
            raise UsageError(f"macs is {self.macs}; 0..1 is expected.")


def test_every_kind_is_read_and_given_back() -> None:
    record = {
        "macs": 1,
        "bits": 2,
        "layers": ["a", "b.*"],
        "limit": 3,
        "shares": {"a": 0.5},
        "scope": "layer",
    }
    options = read_options(Some, record, what="some")
    assert options == Some(macs=1.0, bits=2, layers=("a", "b.*"), limit=3.0, shares={"a": 0.5}, scope="layer")
    assert read_options(Some, options_record(options), what="some") == options


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"macs": "half"}, ("some: macs", "'half'", "number")),
        ({"macs": True}, ("some: macs", "number")),
        ({"macs": float("nan")}, ("some: macs", "nan")),
        ({"macs": float("inf")}, ("some: macs", "inf")),
        ({"macs": 0.5, "bits": 2.5}, ("some: bits", "whole number")),
        ({"macs": 0.5, "keeps": 1}, ("some: keeps", "true or false")),
        ({"macs": 0.5, "scope": "every"}, ("some: scope", "global or layer")),
        ({"macs": 0.5, "layers": "a"}, ("some: layers", "list of text")),
        ({"macs": 0.5, "layers": [1]}, ("some: layers", "list of text")),
        ({"macs": 0.5, "shares": {"a": "b"}}, ("some: shares", "table of number")),
        ({}, ("some needs the option 'macs'",)),
    ],
)
def test_a_value_of_another_type_is_refused(record: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        read_options(Some, record, what="some")
    assert all(word in str(caught.value) for word in words)


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown option of some 'mac'.*Did you mean 'macs'"):
        read_options(Some, {"mac": 0.5}, what="some")


@pytest.mark.parametrize("macs", [0.0, -0.1, 1.1])
def test_the_dataclass_itself_refuses_what_is_out_of_range(macs: float) -> None:
    with pytest.raises(UsageError, match=r"0\.\.1"):
        read_options(Some, {"macs": macs}, what="some")


def test_settings_are_toml_without_needless_quotes() -> None:
    texts = [
        "macs=0.5",
        "scope=layer",
        "layers=features.*,5",
        "keeps=false",
        "limit=2",
        "name=4",
        "shares={a=0.5}",
    ]
    assert read_settings(Some, texts, what="some") == Some(
        macs=0.5,
        scope="layer",
        layers=("features.*", "5"),
        keeps=False,
        limit=2.0,
        name="4",
        shares={"a": 0.5},
    )


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        (["macs"], "NAME=VALUE"),
        (["=1"], "NAME=VALUE"),
        (["macs=0.5", "macs=0.6"], "given twice"),
        (["macs="], "number"),
    ],
)
def test_settings_that_are_none_are_refused(texts: list[str], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        read_settings(Some, texts, what="some")


@given(st.lists(st.text(max_size=20), max_size=4))
def test_settings_never_crash(texts: list[str]) -> None:
    with suppress(UsageError):
        assert read_settings(Some, texts, what="some").macs


def test_help_tells_kind_default_and_text() -> None:
    fields = {one.name: one for one in option_fields(Some)}
    assert fields["macs"].default == "" and fields["macs"].text == "the share that stays, as a number."
    assert fields["steps"].text == "whole numbers." and fields["bits"].default == "4"
    assert fields["scope"].kind == "global or layer" and fields["layers"].kind == "list of text"


@pytest.mark.parametrize("name", list(names.PASSES))
def test_every_pass_is_there_with_options_that_can_be_shown(name: str) -> None:
    found = registry.get(name)
    assert found.name == name and found.precisions
    assert name in names.SUMMARIES
    for one in option_fields(found.Options):  # type: ignore[arg-type]
        assert one.kind and one.text, f"{name}.{one.name} is not explained"


def test_an_unknown_pass_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'prune'"):
        registry.get("pruned")


def test_what_is_no_pass_is_refused() -> None:
    with pytest.raises(UnavailableError, match="cannot be loaded"):
        registry.get("tests.nowhere:PASS")
    with pytest.raises(UnavailableError, match="it is no pass"):
        registry.get("edgewright.core.files:sha256_of")
