"""Cross compilers and emulators: found with their versions, or named with the packages that bring them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.core.errors import UnavailableError
from edgewright.doctor import diagnose
from edgewright.microcontrollers.tools import ALL, ARM, RISCV, Tools


def _program(folder: Path, name: str, says: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    file.chmod(0o755)


def test_versions_are_those_of_the_programs_not_of_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path, "a-gcc", "a-gcc (15:12.2.rel1-1) 12.2.1 20221205")
    _program(tmp_path, "a-qemu", "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)")
    _program(tmp_path, "a-odd", "hello")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = Tools(purpose="a test", programs=("a-gcc", "a-qemu", "a-odd", "a-none"), packages="a b")
    assert found.versions() == {"a-gcc": "12.2.1", "a-qemu": "7.2.22", "a-odd": "of unknown version"}
    assert found.missing == ("a-none",)
    with pytest.raises(
        UnavailableError, match=r"a run needs a-none, which is not installed.*apt-get install -y a b"
    ):
        found.require("a run")


@pytest.mark.parametrize("tools", [ARM, RISCV])
def test_what_is_missing_is_named_with_the_packages(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match=f"{tools.programs[0]}, .* are not installed") as error:
        tools.require("cortex-m4")
    assert error.value.exit_code == 3
    assert tools.packages in str(error.value)


def test_the_doctor_has_a_row_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tools, "missing", property(lambda self: self.programs))
    checks = {check.name: check for check in diagnose().checks}
    for tools in ALL:
        check = checks[tools.purpose]
        assert check.is_ok, "nothing of the main job needs it"
        assert check.fix == f"apt-get install -y {tools.packages}"
