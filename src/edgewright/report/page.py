"""What every page of ours is made of: the template environment, scripts, figures, and a policy that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.errors import UnavailableError
from edgewright.core.result import Status
from edgewright.report import cells
from edgewright.report.plots import Plot

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> Environment:
    """Return the Jinja environment of our templates: everything is escaped, an unknown name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("edgewright.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["css_class"] = lambda status: Status(status).name.lower()
    made.filters["clean"] = lambda value: cells.clean(str(value))
    made.globals["fmt"] = cells
    return made


def policy(scripts: Sequence[str]) -> str:
    """Return a Content-Security-Policy under which only our own scripts run and nothing is loaded."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def plotly_source() -> str:
    """Return plotly.js from the installed package.

    Raises:
        UnavailableError: the package is not whole.
    """
    spec = importlib.util.find_spec("plotly")
    places = (
        [] if spec is None or spec.submodule_search_locations is None else spec.submodule_search_locations
    )
    for place in places:
        file = Path(place) / "package_data" / "plotly.min.js"
        if file.is_file():
            return _script_text(file.read_text(encoding="utf-8"))
    raise UnavailableError(
        "the plotly package has no plotly.min.js. Install it again: pip install --force plotly"
    )


def own_script() -> str:
    """Return the script that draws the figures and sorts the table."""
    return _script_text((Path(__file__).parent / "templates" / "report.js").read_text(encoding="utf-8"))


def _script_text(text: str) -> str:
    """Return `text` fit for a script element: no end tag inside, line ends as the browser will hash them."""
    return (
        text.replace("\r\n", "\n")
        .replace("\r", "\n")
        .replace("</script", "<\\/script")
        .replace("<!--", "<\\!--")
    )


def embedded(value: object) -> str:
    """Return JSON that cannot end a script element, whatever names it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def figure_record(plot: Plot) -> dict[str, object]:
    """Return the figure as the script takes it."""
    return {"data": plot.data, "layout": plot.layout, "height": plot.height_px}


def pairs_of(record: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Return (name, text) of nested records, one level per " / "."""
    pairs: list[tuple[str, str]] = []
    for name, value in record.items():
        label = f"{prefix}{name}"
        if isinstance(value, Mapping):
            pairs += pairs_of(value, f"{label} / ") or [(label, "none")]
        elif isinstance(value, list | tuple):
            pairs.append((label, "; ".join(str(item) for item in value) or "none"))
        elif name.endswith("_bytes") and isinstance(value, int):
            pairs.append((label.removesuffix("_bytes"), f"{cells.megabytes(value)} MB"))
        else:
            pairs.append((label, str(value)))
    return pairs
