"""Code without what stands in its strings and comments, to see whether a name got out of them."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

# Suffix -> what begins a comment, string quotes, whether comments nest, whether """ is a string.
_KOTLIN = (".kt", ".kts")
_SWIFT = (".swift",)
_SCRIPT = (".js", ".ts", ".mjs")
_C = (".c", ".h", ".cpp", ".hpp", ".cc")


def structure(path: Path) -> object:
    """Return what a file is made of without its strings: equal for two files that differ in strings alone.

    Raises:
        ValueError, SyntaxError: the file is not of its language.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix in (*_C, *_KOTLIN, *_SWIFT, *_SCRIPT):
        return code(text, path.suffix)
    if path.name == "CMakeLists.txt" or path.suffix == ".sh":
        return shell(text)
    if path.suffix == ".py":
        return _python(text)
    if path.suffix == ".toml":
        return shape(tomllib.loads(text))
    if path.suffix in (".json", ".webmanifest"):
        return shape(json.loads(text))
    if path.suffix in (".xml", ".entitlements", ".plist", ".xcprivacy"):
        return [(node.tag, sorted(node.attrib)) for node in ElementTree.fromstring(text).iter()]
    if path.suffix == ".html":
        return _Html(text).found
    if path.suffix == ".service":
        return [line.partition("=")[0] for line in text.split("\n")]
    # Texts, and what has no lexer here. Fences and headings of Markdown; a line more would be a line that a name began.
    return [line[:3] if line.startswith(("#", "```", "- ", "| ", "<")) else "" for line in text.split("\n")]


def shape(value: object) -> object:
    """Return parsed values with every text as one."""
    if isinstance(value, dict):
        return sorted(json.dumps(shape(each)) for each in value.values())
    if isinstance(value, list):
        return [shape(each) for each in value]
    return "text" if isinstance(value, str) else type(value).__name__


def code(text: str, suffix: str) -> str:
    """Return C-like code with empty strings and no comments; what a string computes (`${...}`) stands as code."""
    is_nested = suffix in (*_KOTLIN, *_SWIFT)
    quotes = ['"""', '"'] if is_nested else ['"', "'", "`"] if suffix in _SCRIPT else ['"']
    computed = {_KOTLIN: r"\$[A-Za-z_{]", _SWIFT: r"\\\("}
    inside = next((sign for suffixes, sign in computed.items() if suffix in suffixes), "(?!)")
    out, at = [], 0
    while at < len(text):
        rest = text[at:]
        quote = next((quote for quote in quotes if rest.startswith(quote)), None)
        if rest.startswith("//"):
            at += len(rest.split("\n", 1)[0])
        elif rest.startswith("/*"):
            at += _comment(rest, is_nested=is_nested)
        elif quote is not None:
            body, length = _string(rest, quote)
            signs = r"\$\{" if quote == "`" else inside
            # The other alternative steps over what is escaped.
            out.append("S" + "X" * sum(map(bool, re.findall(rf"({signs})|\\.", body))))
            if suffix in _C:
                # A trigraph is a backslash for a compiler of strict C99.
                assert "??" not in body, body
            at += length
        elif suffix not in _SCRIPT and (found := re.match(r"'(\\.[^']*|[^'\\\n])'", rest)):
            out.append("C")
            at += found.end()
        else:
            out.append(text[at])
            at += 1
    return "".join(out)


def shell(text: str) -> str:
    """Return a script of a shell, or of CMake, with empty strings; variables in double quotes stand as code."""
    out, at = [], 0
    while at < len(text):
        rest = text[at:]
        if rest[0] == "#" and (not at or text[at - 1].isspace()):
            at += len(rest.split("\n", 1)[0])
        elif rest[0] == "'" and "'" in rest[1:]:
            out.append("S")
            at += rest.index("'", 1) + 1
        elif rest[0] == '"':
            body, length = _string(rest, '"')
            out.append("S" + "".join(re.findall(r"(?<!\\)(\$[({]?\w*|`)", body)))
            at += length
        else:
            out.append(rest[0])
            at += 1
    return "".join(out)


def _comment(rest: str, *, is_nested: bool) -> int:
    depth = 0
    for found in re.finditer(r"/\*|\*/", rest):
        depth += 1 if found[0] == "/*" and (is_nested or not depth) else -1 if found[0] == "*/" else 0
        if not depth:
            return found.end()
    raise ValueError("a comment does not end")


def _string(rest: str, quote: str) -> tuple[str, int]:
    at = len(quote)
    while at < len(rest):
        if rest.startswith(quote, at):
            return rest[len(quote) : at], at + len(quote)
        if rest[at] == "\n" and len(quote) == 1 and quote != "`":
            break
        at += 2 if rest[at] == "\\" else 1
    raise ValueError(f"a string does not end: {rest[:60]!r}")


def _python(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            node.value = "S"
    return ast.dump(tree)


class _Html(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[object] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(tag)

    def handle_decl(self, decl: str) -> None:
        self.found.append(decl)
