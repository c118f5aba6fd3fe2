"""The bill of materials of a bundle: CycloneDX 1.6, JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from edgewright.core.errors import UnavailableError, UsageError
from edgewright.core.files import sha256_of, write_text
from edgewright.deploy.records import Component, Content

if TYPE_CHECKING:
    from cyclonedx.model.component import Component as BomComponent

BOM_NAME = "bom.json"
_OWN_LICENCE = "MIT"


def write_bom(
    content: Content,
    components: tuple[Component, ...],
    folder: Path,
    *,
    version: str,
    licence: str,
    files: Mapping[str, Path],
) -> None:
    """Write `bom.json`: the bundle, its models with their digests, the C core, and every library.

    Args:
        version: Edgewright's.
        licence: of the models, an SPDX expression or a name; empty where it is not known.
        files: name in the bundle -> model file.
    Raises:
        UnavailableError: the library that writes it is not installed.
    """
    if find_spec("cyclonedx") is None:
        raise UnavailableError('bundles need the extra "deploy": pip install "edgewright[deploy]"')
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component as Entry
    from cyclonedx.model.component import ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    parts = [
        _library("edgewright-processing", version, f"pkg:pypi/edgewright@{version}", _OWN_LICENCE),
        *(_model(name, sha256_of(file), licence) for name, file in files.items()),
        *(_library(each.name, each.version, each.purl, each.licence) for each in components),
    ]
    root = Entry(
        name=content.name, version=content.version, type=ComponentType.APPLICATION, bom_ref=content.name
    )
    tool = Entry(name="edgewright", version=version, type=ComponentType.APPLICATION, bom_ref="edgewright")
    # Named by what it lists, so that the same bundle has the same bill again.
    names = [root.name, root.version, *(f"{part.bom_ref} {part.version}" for part in parts)]
    bom = Bom(
        components=parts,
        serial_number=uuid5(NAMESPACE_URL, "\n".join(map(str, names))),
        metadata=BomMetaData(component=root, tools=ToolRepository(components=[tool]), timestamp=_made_at()),
    )
    bom.register_dependency(root, parts)
    write_text(folder / BOM_NAME, JsonV1Dot6(bom).output_as_string(indent=2) + "\n")


def _library(name: str, version: str, purl: str, licence: str) -> BomComponent:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import Component as Entry
    from cyclonedx.model.component import ComponentType
    from packageurl import PackageURL

    return Entry(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=purl,
        purl=PackageURL.from_string(purl),
        licenses=[LicenseFactory().make_from_string(licence)],
    )


def _model(name: str, digest: str, licence: str) -> BomComponent:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component as Entry
    from cyclonedx.model.component import ComponentType

    return Entry(
        name=name,
        version=digest[:16],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model {name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
    )


def _made_at() -> datetime:
    """Return now, or what SOURCE_DATE_EPOCH says (reproducible-builds.org)."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        return datetime.fromtimestamp(int(seconds) if seconds else int(time.time()), tz=UTC)
    except (ValueError, OverflowError, OSError) as err:
        raise UsageError(f"SOURCE_DATE_EPOCH is {seconds!r:.40}; seconds since 1970 are expected.") from err
