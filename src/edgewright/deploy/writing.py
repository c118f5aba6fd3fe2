"""What every platform's project holds: the model, the processing, its C, the golden cases, licences."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from edgewright.core.errors import UnavailableError
from edgewright.core.files import copy_files, write_text
from edgewright.deploy.golden import write_golden
from edgewright.deploy.names import snake_case
from edgewright.deploy.records import Content
from edgewright.processing.c_code import FLAGS, CCore, write_core
from edgewright.processing.c_host import build_library
from edgewright.processing.specification import write_specification


def write_model(content: Content, folder: Path) -> None:
    """Copy the files of all models into `folder`, named as `Content.model_files` says."""
    copy_files(content.model_files(), folder)


def write_processing(content: Content, folder: Path) -> None:
    """Write `processing.toml` and its label files into `folder`."""
    write_specification(content.plan.specification, folder)


def write_cases(content: Content, folder: Path) -> None:
    """Write the golden cases into `folder`."""
    write_golden(content.cases, content.plan, folder)


def write_c_core(content: Content, folder: Path) -> CCore:
    """Write the C of the processing into `folder`; its function is SNAKE_NAME_processing.

    Raises:
        ConversionError: a step has no C.
    """
    return write_core(content.plan, folder, snake_case(content.name))


def write_licences(folder: Path, texts: dict[str, str]) -> None:
    """Write LICENSES/NAME.txt for each of `texts`, and Edgewright's own, whose C core every bundle holds."""
    own = {"edgewright": _own_licence()}
    for name, text in (own | texts).items():
        write_text(folder / "LICENSES" / f"{name}.txt", text)


def package_licence(package: str) -> str:
    """Return the licence texts that an installed package ships; empty where it ships none."""
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return ""
    names = distribution.metadata.get_all("License-File") or []
    files = [
        file for file in distribution.files or [] if any(str(file).endswith(f"/{name}") for name in names)
    ]
    # Some are in older encodings; a name that cannot be read must not hide the rest.
    texts = (file.read_binary().decode("utf-8", "replace") for file in files)
    return "\n\n".join(text for text in texts if text.strip())


def _own_licence() -> str:
    return package_licence("edgewright") or "Edgewright: MIT licence.\n"


def core_bytes(core: CCore, *includes: Path) -> int | None:
    """Return the bytes of the processing as a stripped shared library of this machine; None without a compiler.

    Args:
        includes: folders of headers that lie elsewhere than the sources.
    """
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work, suppress(UnavailableError):
        library = build_library(
            core, Path(work) / "core.so", flags=(*FLAGS, "-s", *(f"-I{path}" for path in includes))
        )
        return library.stat().st_size
    return None
