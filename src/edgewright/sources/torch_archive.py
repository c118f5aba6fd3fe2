"""Safety of `.pt2` archives: what torch.export.load would execute is refused before torch sees the file.

`torch.export.load` of torch 2.13 (torch/export/pt2_archive/_package.py, torch/_export/serde/serialize.py):
- falls back to an unrestricted `torch.load` when the sample inputs, or weights and constants in the legacy
  layout, are not plain tensors;
- unpickles every payload marked `use_pickle`, and every `opaque_obj_*` and `custom_obj_*` constant;
- loads native code from `data/aotinductor/`;
- evaluates the text of every symbolic expression in the graph (`sympy.sympify` is `eval`);
- resolves operator names by `getattr` from `torch`, `operator` and `math`, and calls what it finds.
So each of these is checked here, and torch reads a copy written from the checked members, not the file
itself: two zip readers that disagree about the file cannot be played off against each other.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, IntegrityError

MAX_TOTAL_BYTES = 8 << 30
MAX_JSON_BYTES = 512 << 20
MAX_PICKLE_BYTES = 1 << 30
MAX_RATIO = 200
MAX_MEMBERS = 100_000
MAX_EXPRESSION_LENGTH = 10_000

_PLAIN = re.compile(
    r"(\.data/[\w.]+|archive_format|archive_version|byteorder|version|\.format_version|\.storage_alignment)"
)
_JSON = re.compile(r"(models/\w+\.json|data/(weights|constants)/\w+_config\.json)")
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_PICKLE = re.compile(r"data/sample_inputs/\w+\.pt")
_EXTRA = re.compile(r"extra/[\w./-]+")
_ATEN_DUNDER = (
    "__and__|__or__|__xor__|__lshift__|__rshift__|__iand__|__ior__|__ixor__|__ilshift__|__irshift__"
)
_OPERATOR = re.compile(
    rf"torch\.ops\.(?!higher_order\.)[a-z]\w*\.((?!__)\w+|{_ATEN_DUNDER})\.(?!_)\w+"
    r"|torch\.ops\.higher_order\.(cond|wrap_with_set_grad_enabled|wrap_with_autocast|while_loop|scan|map_impl"
    r"|associative_scan)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_|lshift|rshift)"
    r"|math\.(ceil|floor|sqrt|trunc|log|exp)"
    r"|torch\.(sym_(int|float|max|min|not|ite|sum|sqrt|fresh_size)|_sym_sqrt)"
)
_CALLABLE = frozenset(
    "Symbol Integer Float Rational Add Mul Pow Max Min Abs Mod FloorDiv ModularIndexing Where PythonMod CleanDiv "
    "CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat "
    "TruncToInt RoundToInt RoundDecimal ToFloat Identity Eq Ne Equality Unequality Lt Le Gt Ge StrictLessThan "
    "LessThan StrictGreaterThan GreaterThan And Or Not Relational Piecewise ExprCondPair Tuple floor ceiling "
    "IsNonOverlappingAndDenseIndicator".split()
)
_ALLOWED_NODES = (
    ast.Expression,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.UnaryOp,
    ast.BinOp,
    ast.BoolOp,
    ast.Compare,
    ast.Call,
    ast.keyword,
    ast.Tuple,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
)


def write_safe_copy(path: Path, copy: Path) -> None:
    """Write to `copy` the members of the `.pt2` at `path` that torch needs, after checking all of them.

    Raises:
        FormatMismatchError: not a complete `.pt2` archive of this layout.
        IntegrityError: a member is oversized, badly named, or would run code when read.
    """
    try:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as target:
            members = _checked_members(path, source)
            _check_configs(path, source, members)
            for inner, member in members.items():
                content = _read_member(path, source, member)
                if _PICKLE.fullmatch(inner):
                    _check_pickle(path, inner, content)
                elif _JSON.fullmatch(inner):
                    _check_json(path, inner, content)
                target.writestr(zipfile.ZipInfo(f"model/{inner}"), content)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError) as err:
        raise FormatMismatchError(
            f"{path} is not a readable .pt2 archive: {err}. It may be truncated; export it again."
        ) from err


def _checked_members(path: Path, source: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return inner name (without the top folder) -> member, in archive order."""
    infos = [info for info in source.infolist() if not info.is_dir()]
    if len(infos) > MAX_MEMBERS:
        raise IntegrityError(f"{path} has {len(infos)} members; at most {MAX_MEMBERS} are read.")
    roots = {info.filename.split("/", 1)[0] for info in infos}
    if "serialized_exported_program.json" in roots:
        raise FormatMismatchError(
            f"{path} was written by torch 2.7 or older, whose layout is not read. Save it again with torch >= 2.8."
        )
    if len(roots) != 1 or any("/" not in info.filename for info in infos):
        raise FormatMismatchError(f"{path} is no .pt2 archive: its members are not in one top folder.")
    members: dict[str, zipfile.ZipInfo] = {}
    total_bytes = 0
    for info in infos:
        inner = info.filename.split("/", 1)[1]
        parts = info.filename.split("/")
        if ".." in parts or "" in parts or "\\" in info.filename or info.filename.startswith("/"):
            raise IntegrityError(
                f"{path} has a member with the unsafe name {info.filename!r}; it is not read."
            )
        if inner in members:
            raise IntegrityError(f"{path} has the member {inner!r} twice; it is not read.")
        _check_kind(path, inner, info)
        total_bytes += info.file_size
        members[inner] = info
    if total_bytes > MAX_TOTAL_BYTES:
        raise IntegrityError(f"{path} unpacks to {total_bytes} bytes; at most {MAX_TOTAL_BYTES} are read.")
    models = [name for name in members if name.startswith("models/")]
    if models != ["models/model.json"]:
        raise FormatMismatchError(
            f"{path} holds the programs {models}, but exactly models/model.json is read. "
            "Save one program with torch.export.save."
        )
    return {name: info for name, info in members.items() if not _EXTRA.fullmatch(name)}


def _check_kind(path: Path, inner: str, info: zipfile.ZipInfo) -> None:
    if info.file_size > 1 << 20 and info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise IntegrityError(
            f"{path}: member {inner!r} unpacks {info.compress_size} bytes to {info.file_size}; it is not read."
        )
    if _JSON.fullmatch(inner) and info.file_size > MAX_JSON_BYTES:
        raise IntegrityError(
            f"{path}: {inner!r} has {info.file_size} bytes; at most {MAX_JSON_BYTES} are read."
        )
    if any(pattern.fullmatch(inner) for pattern in (_PLAIN, _JSON, _TENSOR, _PICKLE, _EXTRA)):
        return
    if inner.startswith("data/aotinductor/"):
        reason = "compiled native code (AOTInductor)"
    elif "_obj_" in inner:
        reason = "a pickled object, which would run code when read"
    elif inner.endswith(".pt"):
        reason = "weights in the legacy pickle layout; save it again with torch >= 2.9"
    else:
        reason = "a member that a program of torch.export.save does not have"
    raise IntegrityError(f"{path} holds {inner!r}: {reason}. It is not read.")


def _check_configs(path: Path, source: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
    for kind in ("weights", "constants"):
        name = f"data/{kind}/model_{kind}_config.json"
        if name not in members:
            raise FormatMismatchError(f"{path} has no {name}; it is not a complete .pt2 archive.")
        config = _parse_json(path, name, _read_member(path, source, members[name])).get("config")
        if not isinstance(config, dict):
            raise IntegrityError(f"{path}: {name} has no 'config' object. Export it again.")
        for tensor, payload in config.items():
            is_plain = isinstance(payload, dict) and payload.get("use_pickle") is False
            record = payload.get("path_name") if isinstance(payload, dict) else None
            if not is_plain or f"data/{kind}/{record}" not in members:
                raise IntegrityError(
                    f"{path}: {tensor!r} is stored as a pickled object or nowhere, not as plain bytes. "
                    "It is not read; export a module whose weights are ordinary tensors."
                )


def _read_member(path: Path, source: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with source.open(member) as stream:
        # One byte more than declared, so that a lying header is seen.
        content = stream.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise IntegrityError(f"{path}: {member.filename!r} has not the size that the archive declares.")
    return content


def _check_pickle(path: Path, inner: str, content: bytes) -> None:
    import torch

    if not content:
        return
    if len(content) > MAX_PICKLE_BYTES:
        raise IntegrityError(
            f"{path}: {inner!r} has {len(content)} bytes; at most {MAX_PICKLE_BYTES} are read."
        )
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as err:
        first_line = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise IntegrityError(
            f"{path}: {inner!r} is a pickle of more than tensors and is not read ({first_line[:200]}). "
            "Save the program with tensors as example inputs."
        ) from err


def _parse_json(path: Path, inner: str, content: bytes) -> dict[str, object]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as err:
        raise IntegrityError(f"{path}: {inner!r} is not JSON ({err}). Export it again.") from err
    if not isinstance(record, dict):
        raise IntegrityError(f"{path}: {inner!r} is not a JSON object. Export it again.")
    return record


def _check_json(path: Path, inner: str, content: bytes) -> None:
    for key, value in _entries(_parse_json(path, inner, content)):
        if key == "expr_str" and not is_safe_expression(value):
            raise IntegrityError(
                f"{path}: the symbolic size {str(value)[:80]!r} is not arithmetic on symbols; "
                "torch would execute it. It is not read."
            )
        if key == "nodes" and inner.startswith("models/"):
            _check_nodes(path, value)


def _check_nodes(path: Path, nodes: object) -> None:
    for node in nodes if isinstance(nodes, list) else [nodes]:
        target = node.get("target") if isinstance(node, dict) else None
        if not isinstance(target, str) or _OPERATOR.fullmatch(target) is None:
            raise IntegrityError(
                f"{path}: the graph calls {str(target)[:80]!r}, which is no tensor operator. It is not read."
            )


def _entries(record: object) -> Iterator[tuple[str, object]]:
    """Yield every key and value of a JSON tree, at any depth."""
    stack = [record]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            for key, value in current.items():
                yield key, value
                stack.append(value)
        elif isinstance(current, list):
            stack.extend(current)


def is_safe_expression(text: object) -> bool:
    """Return True when `text` is arithmetic on named symbols, as sympy prints it, and nothing else."""
    if not isinstance(text, str) or len(text) > MAX_EXPRESSION_LENGTH:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED_NODES):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _CALLABLE):
            return False
        if isinstance(node, ast.Name) and node.id.startswith("_"):
            return False
        if isinstance(node, ast.Constant):
            is_symbol_name = isinstance(node.value, str) and re.fullmatch(r"[A-Za-z]\w*", node.value)
            if not (isinstance(node.value, (int, float, bool)) or is_symbol_name):
                return False
    return True
