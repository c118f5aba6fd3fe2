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
        "alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class "
        "co_await co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype "
        "default delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline "
        "int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public "
        "register reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast "
        "struct switch template this thread_local throw true try typedef typeid typename union unsigned using virtual "
        "void volatile wchar_t while xor xor_eq std main errno assert linux unix".split()
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
    "App Array Bool Box Bundle Camera Character CoreMLModel ContentView Core Data Decodable Dictionary Double Engine "
    "Equatable Error Golden Hashable Image Inputs Int8 Int16 Int32 Int64 Label Mask Microphone Model Native Never "
    "NSObject Object Once OnnxModel Optional PixelFormat Pixels Point Processing Recorded RecordedModel Result "
    "Results Runner Runtime SampleApp SampleError Scene Sendable Session Set Task Tensor Text UInt8 URL Values View "
    "Void".split()
)
# Modules that the projects import, targets that a build tool has itself, and files that Windows does not have.
_PLACES = frozenset(
    "AVFoundation CoreGraphics CoreImage CoreML CoreVideo Foundation OnnxRuntimeBindings PackageDescription Swift "
    "SwiftUI UIKit XCTest all app build clean core data edit_cache golden help include install library package "
    "rebuild_cache runtime source src test tests vendor wheels aux con nul prn".split()
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
    words = frozenset[str]().union(*KEYWORDS.values(), _TYPES, _PLACES, _MODULES)
    if name in words or snake_case(name) in words:
        raise UsageError(
            f"bundle name {name!r} is a word, a type, a module or a place of one of the platforms' languages and "
            "tools. Choose another."
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
