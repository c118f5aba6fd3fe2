"""The public names stay what they are, whatever was imported before."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import edgewright
import edgewright.compress


@pytest.mark.parametrize("package", [edgewright, edgewright.compress], ids=lambda package: package.__name__)
def test_no_submodule_hides_a_public_function(package: ModuleType) -> None:
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not submodules & set(package.__all__)
    for home in set(package._HOMES.values()):
        importlib.import_module(f"{package.__name__}.{home}")
    for name in package.__all__:
        assert not isinstance(getattr(package, name), ModuleType), name
        assert callable(getattr(package, name)), name
