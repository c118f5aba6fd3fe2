"""Check what the linters cannot: imports of core and of vendor packages, file sizes, machine paths."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "edgewright"
MAX_LINES = 500
# _typeshed is known to type checkers alone and never imported.
CORE_PACKAGES = frozenset({"numpy", "_typeshed", *sys.stdlib_module_names})
VENDOR_PACKAGES = frozenset(
    {
        "ai_edge_litert",
        "ai_edge_quantizer",
        "MNN",
        "coremltools",
        "executorch",
        "h5py",
        "jax",
        "keras",
        "litert_torch",
        "ncnn",
        "nncf",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "openvino",
        "pnnx",
        "tensorflow",
        "tensorrt",
        "torch",
        "torchao",
        "transformers",
    }
)
# Modules of nothing but functions and classes on tensors. They import torch at their top, and so nothing may import
# them at its own, but one another.
WORKER_MODULES = re.compile(r"edgewright\.(bridges\.onnx_(ops_\w+|module)|compress\.[\w.]+_modules)")
# Paths of one machine, and hosts or folders of a package index. Split, or this file would match itself.
MACHINE_PATHS = re.compile(
    "|".join(
        [
            r"(?<![\w.$}~/-])/(?:work|root|home|Users|tmp/plan)" + "/",
            "file:" + "//",
            "pypi" + r"\.org",
            "pythonhosted" + r"\.org",
            r"--(?:extra-)?index-" + "url",
            "--find-" + "links",
        ]
    )
)


def tracked_files() -> list[Path]:
    """Return the files that git tracks or would track, those deleted from the working tree left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = (ROOT / name for name in listing.split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def imported_names(tree: ast.AST, *, package: str) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of every import below `tree`; `package` resolves relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.lineno, node.module or ""
            else:
                parents = package.split(".")
                base = parents[: len(parents) - node.level + 1]
                yield node.lineno, ".".join([*base, *([node.module] if node.module else [])])


def is_type_checking(node: ast.stmt) -> bool:
    """Say whether `node` is an `if TYPE_CHECKING:`, which never runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def import_time_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the simple statements that run at import, inside if, try, with and class bodies too."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if is_type_checking(node):
            assert isinstance(node, ast.If)
            yield from import_time_statements(node.orelse)
            continue
        blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        blocks += [handler.body for handler in getattr(node, "handlers", [])]
        if any(blocks):
            for block in blocks:
                yield from import_time_statements(block)
        else:
            yield node


def check_core_imports() -> Iterator[str]:
    """Yield the imports of core that are not numpy, the standard library or core itself."""
    for path in sorted((PACKAGE / "core").rglob("*.py")):
        package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
        for line, name in imported_names(ast.parse(path.read_text()), package=package):
            in_core = name == "edgewright.core" or name.startswith("edgewright.core.")
            if not in_core and name.partition(".")[0] not in CORE_PACKAGES:
                yield f"{path.relative_to(ROOT)}:{line}: core imports {name}; numpy and stdlib only"


def check_vendor_imports() -> Iterator[str]:
    """Yield the vendor packages that a module of the package imports when it is itself imported."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if WORKER_MODULES.fullmatch(module):
            continue
        for statement in import_time_statements(ast.parse(path.read_text()).body):
            for line, name in imported_names(statement, package="edgewright"):
                if name.partition(".")[0] in VENDOR_PACKAGES or WORKER_MODULES.fullmatch(name):
                    where = f"{path.relative_to(ROOT)}:{line}"
                    yield f"{where}: imports {name} at module level; import it in the function that needs it"


def check_file_sizes(paths: list[Path]) -> Iterator[str]:
    """Yield the Python modules longer than MAX_LINES."""
    for path in paths:
        if path.suffix == ".py":
            count = len(path.read_text().splitlines())
            if count > MAX_LINES:
                yield f"{path.relative_to(ROOT)}: {count} lines, at most {MAX_LINES}; split it by job"


def check_machine_paths(paths: list[Path]) -> Iterator[str]:
    """Yield the lines that name a folder of one machine or a package index."""
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a binary file
        for number, line in enumerate(text.splitlines(), start=1):
            if match := MACHINE_PATHS.search(line):
                yield f"{path.relative_to(ROOT)}:{number}: names {match.group()!r}, found on one machine only"


def main() -> int:
    """Print every finding; return 1 when there is one."""
    paths = tracked_files()
    findings = [
        *check_core_imports(),
        *check_vendor_imports(),
        *check_file_sizes(paths),
        *check_machine_paths(paths),
    ]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
