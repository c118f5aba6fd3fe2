"""The bill of materials of a bundle: CycloneDX 1.6, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.errors import UnavailableError
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
    try:
        from cyclonedx.contrib.license.factories import LicenseFactory
        from cyclonedx.model import HashAlgorithm, HashType
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component as Entry
        from cyclonedx.model.component import ComponentType
        from cyclonedx.output.json import JsonV1Dot6
        from packageurl import PackageURL
    except ImportError as err:
        raise UnavailableError('bundles need the extra "deploy": pip install "edgewright[deploy]"') from err

    licences = LicenseFactory()
    bom = Bom()
    root = Entry(name=content.name, version=content.version, type=ComponentType.APPLICATION)
    bom.metadata.component = root
    parts: list[BomComponent] = [
        Entry(
            name="edgewright-processing",
            version=version,
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", None, "edgewright", version),
            licenses=[licences.make_from_string(_OWN_LICENCE)],
        )
    ]
    parts += [
        Entry(
            name=name,
            version=sha256_of(file)[:16],
            type=ComponentType.MACHINE_LEARNING_MODEL,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256_of(file))],
            licenses=[licences.make_from_string(licence)] if licence else [],
        )
        for name, file in files.items()
    ]
    parts += [
        Entry(
            name=component.name,
            version=component.version,
            type=ComponentType.LIBRARY,
            purl=PackageURL.from_string(component.purl),
            licenses=[licences.make_from_string(component.licence)],
        )
        for component in components
    ]
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(root, parts)
    write_text(folder / BOM_NAME, JsonV1Dot6(bom).output_as_string(indent=2) + "\n")
