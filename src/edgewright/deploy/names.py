"""Names of a bundle in its platform's languages: checked, cased, and never a keyword."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from edgewright.core.errors import UsageError

_BUNDLE_NAME = re.compile(r"[A-Z][A-Za-z0-9]{0,39}")
_VERSION = re.compile(r"\d{1,5}\.\d{1,5}\.\d{1,5}")
# Hard keywords, and names of the standard library that a property or a type must not hide.
KEYWORDS: dict[str, frozenset[str]] = {
    "kotlin": frozenset(
        "as break class continue do else false for fun if in interface is null object package return super "
        "this throw true try typealias typeof val var when while field it Any Unit Nothing String Int Float "
        "List Map Array".split()
    ),
    "swift": frozenset(
        "associatedtype class deinit enum extension fileprivate func import init inout internal let open "
        "operator private precedencegroup protocol public rethrows static struct subscript typealias var "
        "break case catch continue default defer do else fallthrough for guard if in repeat return throw "
        "switch where while Any as await false is nil self Self super throws true try async actor Type "
        "Protocol String Int Float Array Data".split()
    ),
    "javascript": frozenset(
        "arguments await break case catch class const continue debugger default delete do else enum eval "
        "export extends false finally for function if implements import in instanceof interface let new null "
        "package private protected public return static super switch this throw true try typeof var void "
        "while with yield constructor".split()
    ),
    "python": frozenset(
        "False None True and as assert async await break class continue def del elif else except finally for "
        "from global if import in is lambda nonlocal not or pass raise return try while with yield match case "
        "type".split()
    ),
    "cpp": frozenset(
        "alignas alignof and asm auto bool break case catch char class concept const continue co_await "
        "decltype default delete do double else enum explicit export extern false float for friend goto if "
        "inline int long mutable namespace new noexcept not nullptr operator or private protected public "
        "register requires return short signed sizeof static struct switch template this throw true try "
        "typedef typeid typename union unsigned using virtual void volatile while xor std main errno assert".split()
    ),
}

# Names that the projects of a language have themselves where those of a specification stand, too.
_TAKEN: dict[str, frozenset[str]] = {
    "python": frozenset("self arrays to_json pixel_format rotation tuple np".split()),
    "cpp": frozenset(
        "engine results count arguments model hop first box label read_numbers read_ppm".split()
    ),
}
_TYPES = frozenset(
    "Array Box Core Data Engine Error Golden Image Inputs Label Mask Model Native Object PixelFormat Point Processing "
    "Results Runtime Session Tensor Values".split()
)
# A project's package is called by the name in snake_case, and must not hide one that it imports.
_MODULES = sys.stdlib_module_names | frozenset(
    ("numpy", "onnxruntime", "openvino", "setuptools", "wheel", "pip", "ort")
)


def check_name(name: str) -> str:
    """Return `name` when it can name a bundle, its types, libraries and folders on every platform.

    Raises:
        UsageError: it cannot.
    """
    if not _BUNDLE_NAME.fullmatch(name):
        raise UsageError(
            f"bundle name {name!r:.80} cannot name a type; a capital letter, then up to 39 letters and digits are "
            "expected, such as BirdFinder."
        )
    words = frozenset[str]().union(*KEYWORDS.values(), _TYPES, _MODULES)
    if name in words or snake_case(name) in words:
        raise UsageError(
            f"bundle name {name!r} is a word, a type or a module of one of the platforms' languages. Choose another."
        )
    return name


def check_version(version: str) -> str:
    """Return `version` when it is MAJOR.MINOR.PATCH.

    Raises:
        UsageError: it is not.
    """
    if not _VERSION.fullmatch(version):
        raise UsageError(f"version {version!r:.80} is not MAJOR.MINOR.PATCH, such as 1.0.0.")
    return version


def snake_case(name: str) -> str:
    """Return BirdFinder2 as bird_finder2."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def camel_case(name: str, language: str) -> str:
    """Return face_boxes as faceBoxes; a keyword of `language` gets the suffix "Value"."""
    head, *rest = [part for part in re.split(r"_+", name) if part] or ["value"]
    made = head[0].lower() + head[1:] + "".join(part[0].upper() + part[1:] for part in rest)
    return made + "Value" if made in KEYWORDS[language] else made


def plain_name(name: str, language: str) -> str:
    """Return a specification's name as it is; what `language` or its projects use gets an underscore behind it."""
    is_taken = name in KEYWORDS[language] or name in _TAKEN.get(language, ())
    return name + "_" if is_taken else name


def check_distinct(what: str, names: Sequence[str], fields: Sequence[str]) -> None:
    """Refuse names of a specification that become one in a platform's language, such as Face and face.

    Raises:
        UsageError: two do.
    """
    for index, field in enumerate(fields):
        if field in fields[:index]:
            first = names[fields.index(field)]
            raise UsageError(
                f"the {what} {first!r} and {names[index]!r} would both be {field!r} in the bundle's API. Rename one in "
                "processing.toml."
            )
