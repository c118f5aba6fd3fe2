"""Options of a pass or a step: from TOML, JSON or `name=value` texts to a dataclass and back, checked."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from edgewright.core.errors import RecipeError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MAX_ITEMS = 100_000
OptionsT = TypeVar("OptionsT", bound="DataclassInstance")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptionField:
    """One option as help shows it; `default` is empty where there is none, `text` is what its docstring says."""

    name: str
    kind: str
    default: str
    text: str = ""


def read_options(cls: type[OptionsT], record: Mapping[str, object], *, what: str) -> OptionsT:
    """Return `cls` made of `record`; a list becomes a tuple, a whole number a float where one is expected.

    Args:
        cls: a dataclass whose fields are bool, int, float, str, Literal, tuple[X, ...], Mapping[str, X], or one of
            these or None.
        what: who has these options, for messages: "prune".
    Raises:
        UnknownNameError: a key that is no field, with the nearest one.
        RecipeError: a value of another type, NaN or infinity, or a key that is missing.
        UsageError: what the dataclass itself refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in record:
        if key not in fields:
            raise UnknownNameError.of(f"option of {what}", str(key), fields)
    values = {key: _checked(value, hints[key], f"{what}: {key}") for key, value in record.items()}
    for name, field in fields.items():
        if name not in values and _has_no_default(field):
            raise RecipeError(
                f"{what} needs the option {name!r} ({_kind(hints[name])}), but it is not given."
            )
    return cls(**values)


def read_settings(cls: type[OptionsT], texts: Sequence[str], *, what: str) -> OptionsT:
    """Return `cls` made of `name=value` texts, as the command line takes them.

    A value is written as in TOML, quotes left out where nothing is lost: `macs=0.5`, `importance=taylor`,
    `layers=features.*,head` (a comma parts the items of a list).

    Raises:
        UsageError: as of `read_options`; or not `name=value`, or a name twice.
    """
    hints = typing.get_type_hints(cls)
    record: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"option {text!r} of {what} is not NAME=VALUE, e.g. {_example(cls)}.")
        if name in record:
            raise UsageError(f"option {name} of {what} is given twice. Keep one.")
        record[name] = _from_text(value, hints.get(name))
    return read_options(cls, record, what=what)


def options_record(options: DataclassInstance) -> dict[str, object]:
    """Return the options as JSON values, defaults included; `read_options` takes them back."""
    return {field.name: _plain(getattr(options, field.name)) for field in dataclasses.fields(options)}


def option_fields(cls: type[DataclassInstance]) -> list[OptionField]:
    """Return what can be set, in the order of the dataclass."""
    hints, texts = typing.get_type_hints(cls), _attribute_texts(cls)
    return [
        OptionField(
            name=field.name,
            kind=_kind(hints[field.name]),
            default=_default_text(field),
            text=texts.get(field.name, ""),
        )
        for field in dataclasses.fields(cls)
    ]


def _attribute_texts(cls: type[object]) -> dict[str, str]:
    """Return attribute -> text of the section "Attributes" in the docstring of `cls`."""
    lines = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2].splitlines()
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        begins = re.match(r"    (\w[\w, ]*): (.*)", line)
        if begins:
            names = [name.strip() for name in begins[1].split(",")]
            texts |= dict.fromkeys(names, begins[2].strip())
        elif line.startswith("     ") and names:
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
        else:
            break
    return texts


def _checked(value: object, hint: object, what: str) -> object:
    fits, made = _fit(value, hint)
    if not fits:
        raise RecipeError(f"{what} is {value!r:.200}, but {_kind(hint)} is expected.")
    return made


def _fit(value: object, hint: object) -> tuple[bool, object]:
    """Return whether `value` is of the type `hint`, and the value as that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for choice in arguments:
            fits, made = _fit(value, choice)
            if fits:
                return True, made
        return False, None
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments), value
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > _MAX_ITEMS:
            return False, None
        items = [_fit(item, arguments[0]) for item in value]
        return all(fits for fits, _ in items), tuple(made for _, made in items)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping) or len(value) > _MAX_ITEMS:
            return False, None
        entries = {str(key): _fit(item, arguments[1]) for key, item in value.items()}
        return all(fits for fits, _ in entries.values()), {key: made for key, (_, made) in entries.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return math.isfinite(value), float(value)
    if hint is type(None):
        return value is None, None
    return type(value) is hint, value


def _from_text(text: str, hint: object) -> object:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    choices = typing.get_args(hint) if is_union else (hint,)
    items = [typing.get_args(choice)[0] for choice in choices if typing.get_origin(choice) is tuple]
    if items and not text.startswith("["):
        return [_from_text(part.strip(), items[0]) for part in text.split(",") if part.strip()]
    made = _scalar(text)
    return made if isinstance(made, str) or str not in choices else text


def _scalar(text: str) -> object:
    try:
        record = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return record["value"] if set(record) == {"value"} else text


def _plain(value: object) -> object:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _has_no_default(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default_text(field: dataclasses.Field[object]) -> str:
    if _has_no_default(field):
        return ""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)


def _kind(hint: object) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(choice) for choice in arguments if choice is not type(None))
    if origin is typing.Literal:
        return " or ".join(str(argument) for argument in arguments if argument != "")
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return f"table of {_kind(arguments[1])}"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names.get(hint, str(hint)) if isinstance(hint, type) else str(hint)


def _example(cls: type[DataclassInstance]) -> str:
    first = option_fields(cls)
    return f"{first[0].name}={first[0].default or 'VALUE'}" if first else "NAME=VALUE"
