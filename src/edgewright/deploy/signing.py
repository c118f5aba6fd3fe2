"""Signatures of a manifest: Ed25519 (RFC 8032) over the bytes of the file, by the library `cryptography`.

Keys are PEM files, as `openssl genpkey -algorithm ed25519` writes them, and a signature is its 64 bytes, so that
openssl alone can verify one:

    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in manifest.json -sigfile manifest.sig
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_BYTES = 64
_MAX_KEY_BYTES = 64 << 10
_MAKE = "Make one: openssl genpkey -algorithm ed25519 -out private.pem"
_PUBLISH = "openssl pkey -in private.pem -pubout -out public.pem"


def read_signer(path: Path) -> Callable[[bytes], bytes]:
    """Return what signs bytes with the private key in the PEM file at `path`.

    Raises:
        UsageError: it holds no private Ed25519 key, or one that is locked by a password.
        UnavailableError: the library is not installed.
    """
    _require_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"PUBLIC KEY-----" in (text := _read(path)):
        raise UsageError(f"{path} is a public key, and the private one signs. Give that file.")
    with _told(path, f"no private key in PEM. {_MAKE}"):
        key = load_pem_private_key(text, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"the key in {path} is not of Ed25519, which alone is taken. {_MAKE}.")
    return key.sign


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return the public key in the PEM file at `path`.

    Raises:
        UsageError: it holds no public Ed25519 key.
        UnavailableError: the library is not installed.
    """
    _require_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY-----" in (text := _read(path)):
        raise UsageError(f"{path} is a private key, and the public one verifies. Write it: {_PUBLISH}.")
    with _told(path, f"no public key in PEM. Write it: {_PUBLISH}"):
        key = load_pem_public_key(text)
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"the key in {path} is not of Ed25519, which alone is taken. {_MAKE}.")
    return key


def is_signed_by(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    """Return whether `signature` is that of `data` by the private half of `key`."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_KEY_BYTES + 1)
    except OSError as err:
        raise UsageError(f"key {path} cannot be read: {err.strerror or err}. Check the path.") from err
    if len(text) > _MAX_KEY_BYTES:
        raise UsageError(f"key {path} has more than {_MAX_KEY_BYTES} bytes; a PEM file is expected.")
    return text


def _require_library() -> None:
    if find_spec("cryptography") is None:
        raise UnavailableError('signatures need the extra "deploy": pip install "edgewright[deploy]"')


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Say of a key that cannot be loaded why it cannot."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except TypeError as err:
        raise UsageError(
            f"the key in {path} is locked by a password, which is not asked for. Unlock a copy: openssl pkey -in "
            f"{path} -out unlocked.pem."
        ) from err
    except (ValueError, UnsupportedAlgorithm) as err:
        raise UsageError(f"{path} holds {what}.") from err
