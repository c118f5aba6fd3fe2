"""The command `bundle`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.command_line import cli

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.deploy import registry


def run(*arguments: object) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    done = cli("bundle", *arguments)
    out, err = done.communicate(timeout=300)
    return done.returncode, out, err


def test_the_platforms_are_listed_with_their_options() -> None:
    code, out, err = run("platforms", "--json")
    found = json.loads(out)
    assert code == 0 and list(found) == registry.names(), err
    assert found["android"]["options"]["abis"] and found["web"]["runtimes"]
    code, out, _ = run("platforms")
    assert code == 0 and all(f"\n{name} " in f"\n{out}" for name in registry.names())


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    code, out, err = run("check", tmp_path)
    assert (code, out) == (UsageError.exit_code, "") and "no bundle" in err
    (tmp_path / "manifest.json").write_text("{")
    code, out, err = run("check", tmp_path, "--json")
    assert code == IntegrityError.exit_code and "cannot be read as JSON" in err
    assert json.loads(out)["error"] == "IntegrityError"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--for", "androd", "--name", "Birds"), "'android'"),
        (("--for", "web", "--name", "birds"), "'birds'"),
        (("--for", "web", "--name", "Birds", "--sign", "no.pem"), "no.pem"),
        (("--for", "web", "--name", "Birds", "--option", "acelerator=wasm"), "'accelerator'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_made(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = run("model.onnx", *arguments, "--out", tmp_path / "out")
    assert code == UsageError.exit_code and said in err
    assert not (tmp_path / "out").exists()
