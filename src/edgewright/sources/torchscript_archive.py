"""Safety of TorchScript archives: what is checked before `torch.jit.load` sees the file.

A TorchScript archive is a zip file with code in TorchScript (`code/`), tensors, and pickles. What reads it is C++:

- its unpickler is not Python's. It makes tensors, numbers, texts, lists, and objects of the classes in `code/`; no
  Python function can be named in it.
- it does run TorchScript: `__setstate__` of the archive's own classes while it is read, `forward` when it is called.
  TorchScript has no files, no network and no processes of its own, but a few operators of torch do: these are refused
  by name, and so are operators and classes of other libraries, which are not here.
- it trusts sizes: `backends.torchscript_session.load_script` checks afterwards that tensors lie in their storage.

Torch reads a copy written from the checked members, without those it does not need (debugging records, bytecode,
traced inputs).
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, IntegrityError

MAX_TOTAL_BYTES = 8 << 30
MAX_CODE_BYTES = 64 << 20
MAX_PICKLE_BYTES = 1 << 30
MAX_RATIO = 200
MAX_MEMBERS = 100_000

_CODE = re.compile(r"code/[\w./-]+\.py")
_PICKLE = re.compile(r"(data|constants|attributes)\.pkl")
_TENSOR = re.compile(r"(data|constants|tensors|attributes)/[\w.]+")
_PLAIN = re.compile(r"(version|byteorder|\.format_version|\.storage_alignment|\.data/[\w.]+)")
_DROPPED = re.compile(
    r"code/[\w./-]+\.debug_pkl|code/[\w./-]+\.debug_pkl\.zst|bytecode\.pkl|bytecode/[\w.]+|extra/[\w./ -]+"
    r"|mobile_debug_handles\.pkl|callstack_debug_map\.pkl|traced_inputs\.pkl|traced_inputs/[\w.]+|model\.json"
)
# Between the parts of a dotted name TorchScript allows blanks, line ends and comments.
_GAP = r"(?:\s|\\\n|#[^\n]*\n)*"
_NAMESPACE = re.compile(rf"\bops{_GAP}\.{_GAP}(\w+){_GAP}\.{_GAP}(\w+)")
_CLASS = re.compile(
    rf"\b__torch__{_GAP}\.{_GAP}torch{_GAP}\.{_GAP}classes{_GAP}\.{_GAP}(\w+){_GAP}\.{_GAP}(\w+)"
)
_WORD = re.compile(r"[A-Za-z_]\w*")
_MEMBER = re.compile(rf"\.{_GAP}(\w+)")
KNOWN_NAMESPACES = frozenset(
    ("aten", "prim", "prims", "quantized", "_quantized", "prepacked", "mkldnn", "sparse")
)
KNOWN_CLASSES = frozenset(("quantized", "xnnpack", "sparse"))
# They read or write files, or call other machines.
_FORBIDDEN_MEMBERS = frozenset(("from_file", "save", "_save", "load", "unpickle"))
_FORBIDDEN_WORDS = frozenset(("from_file", "rpc_sync", "rpc_async", "rpc_remote"))


def write_safe_copy(path: Path, copy: Path) -> None:
    """Write to `copy` the members of the archive at `path` that torch needs, after checking all of them.

    Raises:
        FormatMismatchError: not a complete TorchScript archive, or it needs operators or classes of other libraries,
            all of them by name.
        IntegrityError: a member is oversized, badly named, or its code calls what reads or writes files.
    """
    try:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as target:
            members = _checked_members(path, source)
            needed: set[str] = set()
            for inner, member in members.items():
                with source.open(member) as stream:
                    # One byte more than declared, so that a lying header is seen.
                    content = stream.read(member.file_size + 1)
                if len(content) != member.file_size:
                    raise IntegrityError(f"{path}: {inner!r} has not the size that the archive declares.")
                if _CODE.fullmatch(inner):
                    needed |= _checked_code(path, inner, content)
                target.writestr(zipfile.ZipInfo(f"model/{inner}"), content)
            if needed:
                raise FormatMismatchError(
                    f"{path} needs {', '.join(sorted(needed))}, which other libraries bring and which are not here. "
                    "Save the model with torch's own operators."
                )
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError) as err:
        raise FormatMismatchError(
            f"{path} is not a readable TorchScript archive: {err}. It may be truncated; save it again."
        ) from err


def _checked_members(path: Path, source: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return inner name (without the top folder) -> member, in archive order."""
    infos = [info for info in source.infolist() if not info.is_dir()]
    if len(infos) > MAX_MEMBERS:
        raise IntegrityError(f"{path} has {len(infos)} members; at most {MAX_MEMBERS} are read.")
    roots = {info.filename.split("/", 1)[0] for info in infos}
    if len(roots) != 1 or any("/" not in info.filename for info in infos):
        raise FormatMismatchError(f"{path} is no TorchScript archive: its members are not in one top folder.")
    members: dict[str, zipfile.ZipInfo] = {}
    total_bytes = 0
    for info in infos:
        inner, parts = info.filename.split("/", 1)[1], info.filename.split("/")
        if ".." in parts or "" in parts or "\\" in info.filename or info.filename.startswith("/"):
            raise IntegrityError(
                f"{path} has a member with the unsafe name {info.filename[:200]!r}; it is not read."
            )
        if inner in members:
            raise IntegrityError(f"{path} has the member {inner[:200]!r} twice; it is not read.")
        if _DROPPED.fullmatch(inner):
            continue
        _check_size(path, inner, info)
        total_bytes += info.file_size
        members[inner] = info
    if total_bytes > MAX_TOTAL_BYTES:
        raise IntegrityError(f"{path} unpacks to {total_bytes} bytes; at most {MAX_TOTAL_BYTES} are read.")
    missing = [name for name in ("constants.pkl", "data.pkl") if name not in members]
    if missing or not any(_CODE.fullmatch(name) for name in members):
        raise FormatMismatchError(
            f"{path} is no complete TorchScript archive: it has no {missing[0] if missing else 'code'}. "
            "Save it again with torch.jit.save."
        )
    return members


def _check_size(path: Path, inner: str, info: zipfile.ZipInfo) -> None:
    limits = (
        (_CODE, MAX_CODE_BYTES),
        (_PICKLE, MAX_PICKLE_BYTES),
        (_TENSOR, MAX_TOTAL_BYTES),
        (_PLAIN, 1 << 20),
    )
    limit = next((size for pattern, size in limits if pattern.fullmatch(inner)), None)
    if limit is None:
        raise IntegrityError(
            f"{path} holds {inner[:200]!r}, a member that an archive of torch.jit.save does not have. It is not read."
        )
    if info.file_size > limit:
        raise IntegrityError(f"{path}: {inner!r} has {info.file_size} bytes; at most {limit} are read.")
    if info.file_size > 1 << 20 and info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise IntegrityError(
            f"{path}: member {inner!r} unpacks {info.compress_size} bytes to {info.file_size}; it is not read."
        )


def _checked_code(path: Path, inner: str, content: bytes) -> set[str]:
    """Return the operators and classes of other libraries that the code names.

    Raises:
        IntegrityError: it is no text, or calls what is refused.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as err:
        raise IntegrityError(f"{path}: {inner!r} is no text. Save the model again.") from err
    forbidden = (_FORBIDDEN_WORDS & set(_WORD.findall(text))) | (
        _FORBIDDEN_MEMBERS & set(_MEMBER.findall(text))
    )
    if forbidden:
        raise IntegrityError(
            f"{path}: the code in {inner!r} calls {', '.join(sorted(forbidden))}, which can reach files or other "
            "machines. It is not read."
        )
    operators = {
        f"{space}::{name}" for space, name in _NAMESPACE.findall(text) if space not in KNOWN_NAMESPACES
    }
    classes = {f"class {space}.{name}" for space, name in _CLASS.findall(text) if space not in KNOWN_CLASSES}
    return operators | classes
