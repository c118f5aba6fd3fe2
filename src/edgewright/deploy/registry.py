"""The platforms by name; a platform's module is imported when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from edgewright.core.errors import UnknownNameError
from edgewright.deploy.records import Platform

# name -> module of edgewright.deploy : object
PLATFORMS: Mapping[str, str] = {
    "cpp": "cpp:PLATFORM",
    "ios": "ios:PLATFORM",
    "linux": "linux:PLATFORM",
    "android": "android:PLATFORM",
    "web": "web:PLATFORM",
}
# name -> the file that the platform's own tool goes by; every bundle has it, and those of the others have not.
PROJECT_FILES: Mapping[str, str] = {
    "cpp": "CMakeLists.txt",
    "ios": "Package.swift",
    "linux": "pyproject.toml",
    "android": "settings.gradle.kts",
    "web": "index.html",
}


def names() -> list[str]:
    """Return the names of all platforms."""
    return list(PLATFORMS)


def platform(name: str) -> Platform:
    """Return the platform called `name`.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PLATFORMS:
        raise UnknownNameError.of("platform", name, PLATFORMS)
    module, _, made = PLATFORMS[name].partition(":")
    found: object = getattr(importlib.import_module(f"edgewright.deploy.{module}"), made)
    assert isinstance(found, Platform)
    return found
