"""Files made of templates: every value is escaped for the language it lands in."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from edgewright.core.errors import UsageError
from edgewright.deploy.names import camel_case, plain_name, snake_case

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, values: dict[str, object]) -> str:
    """Return the template PLATFORM/FILE.j2 filled with `values`; a name without a value is an error.

    Filters: `text` (a literal of C++, Kotlin, Swift, JavaScript and Python alike), `xml`, `snake`,
    `camel(language)`, `plain(language)`.
    """
    return _environment().get_template(template).render(values)


def text_literal(value: object) -> str:
    """Return a string literal that C++, Kotlin, Swift, JavaScript and Python read alike, quotes included.

    Raises:
        UsageError: the text cannot be written so. A `$` computes in Kotlin, and has no escape that the others share.
    """
    text = str(value)
    if "$" in text or not text.isprintable():
        raise UsageError(
            f"{text!r:.120} cannot stand in the code of a bundle: it holds a $, or what is not printed. Rename the "
            "tensor or the file of that name."
        )
    return json.dumps(text, ensure_ascii=False)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("edgewright.deploy", "templates"),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "text": text_literal,
        "xml": lambda value: escape(str(value), {'"': "&quot;"}),
        "snake": snake_case,
        "camel": camel_case,
        "plain": plain_name,
    }
    return made
