"""What may be done to a bundle between its maker and its user."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewright.bundle_files import DIGEST_NAME, MANIFEST_NAME, SIGNATURE_NAME
from edgewright.deploy.manifest import list_files

Change = Callable[[Path, random.Random], None]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One thing that is done to the copy of a bundle.

    Attributes:
        name: what is done, in words.
        run: does it.
        needs_key: the digests are right again, so that nothing but the signature can show it.
    """

    name: str
    run: Change
    needs_key: bool = False


def files_by_kind(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a bundle by what they are; none is left out."""
    kinds: dict[str, list[Path]] = {}
    for name in (*list_files(folder), MANIFEST_NAME, DIGEST_NAME):
        path = folder / name
        if name in (MANIFEST_NAME, DIGEST_NAME, "bom.json"):
            kind = name
        elif path.suffix in (".onnx", ".tflite"):
            kind = "model"
        elif "golden" in path.parts and path.suffix in (".bin", ".json"):
            kind = "golden cases"
        elif path.name == "processing.toml" or "labels" in path.name:
            kind = "processing.toml, labels"
        elif path.suffix in (".c", ".h") or path.name == "processing.wasm":
            kind = "C core"
        elif "LICENSES" in path.parts or path.suffix == ".md":
            kind = "texts"
        else:
            kind = "project"
        kinds.setdefault(kind, []).append(path)
    return kinds


def flip_bit(path: Path, rng: random.Random) -> None:
    """Change one bit of one byte of the file; an empty one gets a byte."""
    data = bytearray(path.read_bytes()) or bytearray(1)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def rewrite(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the manifest and make its digest right again, as somebody without the key can do."""
    record = json.loads((folder / MANIFEST_NAME).read_text())
    change(record)
    seal(folder, json.dumps(record).encode())


def seal(folder: Path, data: bytes) -> None:
    """Write `data` as the manifest, with the digest that fits."""
    (folder / MANIFEST_NAME).write_bytes(data)
    (folder / DIGEST_NAME).write_text(f"{hashlib.sha256(data).hexdigest()}  {MANIFEST_NAME}\n")


def digest_again(folder: Path) -> None:
    """Make all digests right again."""

    def digests(record: dict[str, object]) -> None:
        record["files"] = {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in list_files(folder)
        }

    rewrite(folder, digests)


def _any(folder: Path, rng: random.Random, *, least_bytes: int = 1) -> Path:
    files = [folder / name for name in list_files(folder)]
    return rng.choice([file for file in files if file.stat().st_size >= least_bytes])


def _two(folder: Path, rng: random.Random) -> tuple[Path, Path]:
    first = _any(folder, rng)
    others = [folder / name for name in list_files(folder)]
    return first, rng.choice([file for file in others if file.read_bytes() != first.read_bytes()])


def _remove(folder: Path, rng: random.Random) -> None:
    _any(folder, rng).unlink()


def _empty(folder: Path, rng: random.Random) -> None:
    _any(folder, rng).write_bytes(b"")


def _append(folder: Path, rng: random.Random) -> None:
    with _any(folder, rng).open("ab") as stream:
        stream.write(b"\n")


def _swap(folder: Path, rng: random.Random) -> None:
    first, second = _two(folder, rng)
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


def _rename(folder: Path, rng: random.Random) -> None:
    file = _any(folder, rng)
    file.rename(file.with_name(file.name.swapcase()))


def _add(name: str) -> Change:
    def run(folder: Path, rng: random.Random) -> None:
        place = _any(folder, rng).parent / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"x")

    return run


def _link_file(folder: Path, rng: random.Random) -> None:
    file = _any(folder, rng)
    aside = folder.parent / f"{folder.name}-aside"
    shutil.copyfile(file, aside)
    file.unlink()
    file.symlink_to(aside)


def _link_folder(folder: Path, rng: random.Random) -> None:
    place = rng.choice([path for path in folder.iterdir() if path.is_dir()])
    aside = folder.parent / f"{folder.name}-aside"
    place.rename(aside)
    place.symlink_to(aside, target_is_directory=True)


def _add_link(folder: Path, rng: random.Random) -> None:
    (_any(folder, rng).parent / "more").symlink_to("/", target_is_directory=True)


def _add_pipe(folder: Path, rng: random.Random) -> None:
    os.mkfifo(_any(folder, rng).parent / "pipe")


def _pipe_for_file(folder: Path, rng: random.Random) -> None:
    file = _any(folder, rng)
    file.unlink()
    os.mkfifo(file)


def _pipe_for_manifest(folder: Path, rng: random.Random) -> None:
    (folder / MANIFEST_NAME).unlink()
    os.mkfifo(folder / MANIFEST_NAME)


def _drop(name: str) -> Change:
    return lambda folder, rng: (folder / name).unlink()


def _raw(make: Callable[[bytes], bytes]) -> Change:
    return lambda folder, rng: seal(folder, make((folder / MANIFEST_NAME).read_bytes()))


def _told(change: Callable[[dict[str, object]], object]) -> Change:
    return lambda folder, rng: rewrite(folder, change)


def _part(record: Mapping[str, object], name: str) -> dict[str, object]:
    part = record[name]
    assert isinstance(part, dict)
    return part


def _model(record: Mapping[str, object]) -> dict[str, object]:
    models = record["models"]
    assert isinstance(models, list) and isinstance(models[0], dict)
    return models[0]


def _end(record: Mapping[str, object], what: str) -> dict[str, object]:
    ends = _model(record)[what]
    assert isinstance(ends, list) and isinstance(ends[0], dict)
    return ends[0]


def _call_otherwise(record: dict[str, object]) -> None:
    record["platform"] = "cpp" if record["platform"] != "cpp" else "linux"


def _name_file(name: str) -> Change:
    return _told(lambda record: _part(record, "files").update({name: "0" * 64}))


def _golden(change: Callable[[dict[str, object]], object]) -> Change:
    """Change golden.json, with every digest right again."""

    def run(folder: Path, rng: random.Random) -> None:
        path = next(file for file in folder.rglob("golden.json"))
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
        digest_again(folder)

    return run


def _case(record: Mapping[str, object]) -> dict[str, object]:
    cases = record["cases"]
    assert isinstance(cases, list) and isinstance(cases[0], dict)
    return cases[0]


def _array(record: Mapping[str, object], group: str) -> dict[str, object]:
    arrays = _case(record)[group]
    assert isinstance(arrays, list) and isinstance(arrays[0], dict)
    return arrays[0]


def _change_again(folder: Path, rng: random.Random) -> None:
    file = rng.choice(files_by_kind(folder)["project"])
    flip_bit(file, rng)
    digest_again(folder)


def _turn_golden(folder: Path, rng: random.Random) -> None:
    """Turn what the model is to give upside down: the digests are right, the results are not."""
    path = next(file for file in folder.rglob("0_tensors_0.bin"))
    data = path.read_bytes()
    path.write_bytes(data[::-1])
    digest_again(folder)


FILES = (
    Attack(name="a file removed", run=_remove),
    Attack(name="a file emptied", run=_empty),
    Attack(name="a byte appended", run=_append),
    Attack(name="two files swapped", run=_swap),
    Attack(name="a file renamed in its case", run=_rename),
    Attack(name="a file added", run=_add("more.py")),
    Attack(name="a hidden file added", run=_add(".hidden")),
    Attack(name="compiled Python added", run=_add("__pycache__/api.cpython-311.pyc")),
    Attack(name="a file replaced by a link to its copy", run=_link_file),
    Attack(name="a folder replaced by a link to its copy", run=_link_folder),
    Attack(name="a link added", run=_add_link),
    Attack(name="a pipe added", run=_add_pipe),
    Attack(name="a pipe in place of a file", run=_pipe_for_file),
    Attack(name="a pipe in place of the manifest", run=_pipe_for_manifest),
    Attack(name="the manifest removed", run=_drop(MANIFEST_NAME)),
    Attack(name="the manifest's digest removed", run=_drop(DIGEST_NAME)),
)
MANIFESTS = (
    Attack(name="no JSON", run=_raw(lambda data: data[:-5])),
    Attack(name="a list", run=_raw(lambda data: b"[]")),
    Attack(name="no UTF-8", run=_raw(lambda data: data.replace(b'"name"', b'"\xff"', 1))),
    Attack(name="a key twice", run=_raw(lambda data: data.replace(b"{", b'{"version": "9.9.9",', 1))),
    Attack(name="a file twice", run=_raw(lambda data: data.replace(b'"bom.json"', b'"README.md"', 1))),
    Attack(name="no number", run=_raw(lambda data: data.replace(b"{", b'{"x": NaN,', 1))),
    Attack(name="nested 100,000 deep", run=_raw(lambda data: b'{"x":' + b"[" * 100_000)),
    Attack(name="20 MB of spaces", run=_raw(lambda data: data + b" " * (20 << 20))),
    Attack(
        name="30,000 files",
        run=_told(lambda record: _part(record, "files").update({f"f{n}": "0" * 64 for n in range(30_000)})),
    ),
    Attack(name="another version", run=_told(lambda record: record.update(edgewright_bundle=2))),
    Attack(name="a file outside", run=_name_file("../outside")),
    Attack(name="a file with an absolute path", run=_name_file("/etc/hostname")),
    Attack(name="a file with a detour", run=_name_file("core/./x")),
    Attack(name="a file with a backslash", run=_name_file("core\\..\\x")),
    Attack(name="a file with a zero byte", run=_name_file("x\0y")),
    Attack(name="no files", run=_told(lambda record: record.update(files={}))),
    Attack(
        name="a digest that is none",
        run=_told(lambda record: _part(record, "files").update({"bom.json": "x"})),
    ),
    Attack(name="no model", run=_told(lambda record: record.update(models=[]))),
    Attack(
        name="a model outside", run=_told(lambda record: _model(record).update(files=["../../../model.onnx"]))
    ),
    Attack(name="models that are numbers", run=_told(lambda record: record.update(models=[1, 2]))),
    Attack(
        name="a runtime that is none", run=_told(lambda record: _model(record).update(runtime="../../evil"))
    ),
    Attack(name="the model's digest", run=_told(lambda record: _model(record).update(sha256="0" * 64))),
    Attack(name="places outside", run=_told(lambda record: _part(record, "places").update(golden="../.."))),
    Attack(name="no places", run=_told(lambda record: record.pop("places"))),
    Attack(
        name="another input's name", run=_told(lambda record: _end(record, "inputs").update(name="other"))
    ),
    Attack(
        name="another input's shape",
        run=_told(lambda record: _end(record, "inputs").update(shape=[1, 3, 9, 9])),
    ),
    Attack(
        name="another output's type", run=_told(lambda record: _end(record, "outputs").update(dtype="int8"))
    ),
    Attack(name="no output", run=_told(lambda record: _model(record).update(outputs=[]))),
    Attack(name="another platform", run=_told(_call_otherwise)),
    Attack(name="a platform that is none", run=_told(lambda record: record.update(platform="os2"))),
)
GOLDEN = (
    Attack(name="a golden tensor reversed", run=_turn_golden),
    Attack(name="no golden case", run=_golden(lambda record: record.update(cases=[]))),
    Attack(name="no golden result", run=_golden(lambda record: _case(record).update(results=[]))),
    Attack(name="no golden tensor", run=_golden(lambda record: _case(record).update(tensors=[]))),
    Attack(
        name="a result of another name",
        run=_golden(lambda record: _array(record, "results").update(name="x")),
    ),
    Attack(
        name="an input of another name", run=_golden(lambda record: _array(record, "inputs").update(name="x"))
    ),
    Attack(
        name="an input's shape negative",
        run=_golden(lambda record: _array(record, "inputs").update(shape=[-1])),
    ),
    Attack(
        name="an input's shape flat", run=_golden(lambda record: _array(record, "inputs").update(shape=[0]))
    ),
    Attack(
        name="an array outside",
        run=_golden(lambda record: _array(record, "inputs").update(file="../../manifest.json")),
    ),
    Attack(
        name="one array for all",
        run=_golden(lambda record: _case(record).update(tensors=[_array(record, "tensors")] * 100_000)),
    ),
)
SIGNED = (
    Attack(name="a byte changed, digests made again", run=_change_again, needs_key=True),
    Attack(
        name="another version, digest made again",
        run=_told(lambda record: record.update(version="9.9.9")),
        needs_key=True,
    ),
    Attack(name="the signature removed", run=_drop(SIGNATURE_NAME), needs_key=True),
    Attack(
        name="a bit of the signature",
        run=lambda folder, rng: flip_bit(folder / SIGNATURE_NAME, rng),
        needs_key=True,
    ),
    Attack(
        name="a longer signature",
        run=lambda folder, rng: (folder / SIGNATURE_NAME).write_bytes(bytes(10_000)),
        needs_key=True,
    ),
)
