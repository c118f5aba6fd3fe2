"""`bundle check`: every change of a bundle is found or refused, and who signed it is known."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest
from tests.colour_model import colour_specification, plain_image, write_colour_model

import edgewright
from edgewright.bundle_files import MANIFEST_NAME, SIGNATURE_NAME, is_inside
from edgewright.core.errors import EdgewrightError, IntegrityError, UsageError
from edgewright.deploy.bundle import BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.deploy.ios import IosPlatform
from edgewright.deploy.manifest import write_manifest
from edgewright.deploy.signing import read_public_key, read_signer
from edgewright.prediction import specify
from edgewright.processing.specification import write_specification

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.deploy.attacks import (
    FILES,
    GOLDEN,
    MANIFESTS,
    SIGNED,
    Attack,
    files_by_kind,
    flip_bit,
    rewrite,
)
from benchmarks.deploy.tampering import make_keys

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The private and the public key of the maker."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signed(keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle: never change it."""
    folder = tmp_path_factory.mktemp("signed")
    write_specification(colour_specification(), folder)
    model = write_colour_model(folder / "colours.onnx")
    request = BundleRequest(source=model, platform="ios", name="ColourFinder", sign=keys[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IosPlatform, "prove", lambda self, content, folder: ())
        return make_bundle(request, folder / "bundle").folder


@pytest.fixture
def copy(signed: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(signed, tmp_path / "copy"))


def said_of(folder: Path, key: Path | None = None) -> str:
    """Return all that is wrong with the bundle, or why it is refused."""
    try:
        found = check_bundle(folder, key=key)
    except EdgewrightError as err:
        return str(err)
    said = " ".join(problem for row in found.rows for problem in row.problems)
    assert (found.exit_code == IntegrityError.exit_code) == bool(said)
    return said


def test_an_intact_bundle_is_right(signed: Path, keys: tuple[Path, Path]) -> None:
    assert said_of(signed) == said_of(signed, keys[1]) == ""
    rows = {row.what: row.note for row in check_bundle(signed).rows}
    assert "by whom is not verified" in rows[MANIFEST_NAME]
    assert any("signatures" in what for what in rows) and "2 golden cases in Python" in rows


def test_a_bit_of_any_file_is_found(copy: Path) -> None:
    rng = random.Random(0)
    kinds = files_by_kind(copy)
    assert {"model", "golden cases", "C core", "project", "bom.json", MANIFEST_NAME} <= set(kinds)
    for path in [path for paths in kinds.values() for path in paths]:
        right = path.read_bytes()
        flip_bit(path, rng)
        assert said_of(copy), path.name
        path.write_bytes(right)
    assert not said_of(copy)


@pytest.mark.parametrize("attack", [*FILES, *MANIFESTS, *GOLDEN], ids=lambda attack: attack.name)
def test_an_attack_is_found(copy: Path, attack: Attack) -> None:
    attack.run(copy, random.Random(1))
    assert said_of(copy)


@pytest.mark.parametrize("attack", SIGNED, ids=lambda attack: attack.name)
def test_what_is_made_right_again_is_found_by_the_key(
    copy: Path, keys: tuple[Path, Path], attack: Attack
) -> None:
    attack.run(copy, random.Random(2))
    assert SIGNATURE_NAME in said_of(copy, keys[1])


def test_the_key_of_somebody_else_is_none(signed: Path, tmp_path: Path) -> None:
    assert "by this key" in said_of(signed, make_keys(tmp_path)[1])


def test_nothing_is_run_before_the_digests_are_right(copy: Path, keys: tuple[Path, Path]) -> None:
    (copy / "README.md").unlink()
    assert len(check_bundle(copy, key=keys[1]).rows) == 2


def test_what_tools_leave_is_told_and_is_no_fault(copy: Path) -> None:
    made = (
        ".build/debug/x.o",
        "build/CMakeCache.txt",
        "local.properties",
        "App.xcodeproj/p",
        "src/x/lib/own/y.so",
    )
    for name in made:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("x")
    notes = [row.note for row in check_bundle(copy).rows]
    assert not said_of(copy) and any(note.startswith("5 files that tools leave") for note in notes)


def test_the_signature_of_the_model_is_read_from_the_model(copy: Path) -> None:
    def widen(record: dict[str, object]) -> None:
        models = record["models"]
        assert isinstance(models, list)
        models[0]["outputs"][0]["shape"] = [1, 4]

    rewrite(copy, widen)
    assert "means: float32[1, 3], but the manifest says means: float32[1, 4]" in said_of(copy)


def test_a_bundle_predicts_and_is_changed_no_more(copy: Path) -> None:
    with edgewright.load(copy) as predictor:
        (best, *_) = predictor(plain_image(250, 10, 10))["colours"].labels
    assert best.name == "red"
    assert specify(copy).signatures[""].outputs[0].name == "means"
    (labels,) = copy.rglob("labels.txt")
    labels.write_text("blue\ngreen\nred\n")
    with pytest.raises(IntegrityError, match=r"labels\.txt is not the file"):
        specify(copy)


def test_keys_that_are_none_are_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem, pkcs8 = form.Encoding.PEM, form.PrivateFormat.PKCS8
    other, locked, noise = tmp_path / "other.pem", tmp_path / "locked.pem", tmp_path / "noise.pem"
    elliptic = generate_private_key(SECP256R1())
    other.write_bytes(elliptic.private_bytes(pem, pkcs8, form.NoEncryption()))
    locked.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, form.BestAvailableEncryption(b"word"))
    )
    noise.write_bytes(b"noise")
    for path, why in (
        (keys[1], "public key"),
        (other, "not of Ed25519"),
        (locked, "password"),
        (noise, "no private key"),
        (tmp_path / "none.pem", "cannot be read"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(UsageError, match=why):
            read_signer(path)
    other.write_bytes(elliptic.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo))
    for path, why in ((keys[0], "private key"), (other, "not of Ed25519"), (noise, "no public key")):
        with pytest.raises(UsageError, match=why):
            read_public_key(path)


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "a/../b", "./a", "a//b", "a/", "a\\b", "a\nb", "a\0b"])
def test_paths_that_leave_or_detour_are_none(name: str, tmp_path: Path) -> None:
    assert not is_inside(name)
    assert is_inside("a/b c/ä.txt")
    if "\n" in name:
        (tmp_path / name).write_text("x")
        with pytest.raises(UsageError, match="name of a file"):
            write_manifest(tmp_path, {})


def test_a_manifest_keeps_what_it_is_told(signed: Path) -> None:
    record = json.loads((signed / MANIFEST_NAME).read_text())
    assert (record["name"], record["platform"]) == ("ColourFinder", "ios")
