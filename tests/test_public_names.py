"""The public names stay what they are, whatever was imported before."""

import importlib
import pkgutil
from types import ModuleType

import edgewright


def test_no_submodule_hides_a_public_function() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(edgewright.__path__)}
    assert not submodules & set(edgewright.__all__)
    for name in ("pipeline", "single", "benchmark", "doctor", "recipe", "sources"):
        importlib.import_module(f"edgewright.{name}")
    for name in edgewright.__all__:
        assert not isinstance(getattr(edgewright, name), ModuleType), name
        assert callable(getattr(edgewright, name)), name
