"""TorchScript sources: signature, shapes, the reference, and archives that are not safe to read."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs, torchscript_programs

from edgewright.backends.reference import ReferenceBackend
from edgewright.core.errors import (
    ConversionError,
    EdgewrightError,
    FormatMismatchError,
    IntegrityError,
    UsageError,
)
from edgewright.core.target import Target
from edgewright.single import describe
from edgewright.sources.inspection import inspect_program
from edgewright.sources.load import load
from edgewright.sources.torchscript import read_torchscript
from edgewright.sources.torchscript_archive import write_safe_copy

pytestmark = [
    pytest.mark.toolchain("torch"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torchscript_programs.mlp_torchscript(tmp_path_factory.mktemp("mlp")).path


def changed(archive: Path, path: Path, change: dict[str, bytes], *, drop: str = "") -> Path:
    """Write to `path` the archive with members replaced or added, by their names below the top folder."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as made:
        root = source.namelist()[0].split("/")[0]
        for info in source.infolist():
            inner = info.filename.split("/", 1)[1]
            if inner not in change and inner != drop:
                made.writestr(info.filename, source.read(info))
        for inner, content in change.items():
            made.writestr(f"{root}/{inner}", content, zipfile.ZIP_DEFLATED)
    return path


def code_of(archive: Path) -> tuple[str, str]:
    with zipfile.ZipFile(archive) as source:
        name = next(n for n in source.namelist() if n.endswith(".py") and "programs" in n)
        return name.split("/", 1)[1], source.read(name).decode()


def test_is_read_in_a_worker_with_the_shapes_that_the_user_gives(archive: Path, tmp_path: Path) -> None:
    program = load(str(archive), workdir=tmp_path, input_shapes=["right=1x3", "left=1x6"])
    assert [(s.name, s.shape) for s in program.inputs] == [("left", (None, 6)), ("right", (None, 3))]
    assert [(s.name, s.shape) for s in program.outputs] == [("output_0", (None, 4)), ("output_1", (None, 1))]
    assert (program.format, program.origin_format) == ("torchscript", "torchscript")


def test_is_described_without_shapes(archive: Path) -> None:
    found = describe(str(archive))
    assert (found.format, found.name) == ("torchscript", archive.name)
    assert [spec.name for spec in found.inputs] == ["left", "right"]
    assert [spec.name for spec in found.outputs] == ["output_0", "output_1"]
    assert found.parameters > 0
    assert found.macs is None
    assert any("--input-shape" in note for note in found.notes)
    with_shapes = describe(str(archive), input_shapes=["1x6", "1x3"])
    assert with_shapes.macs is not None
    assert with_shapes.parameters == found.parameters


def test_a_truncated_archive_is_named_as_such(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.jit"
    path.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(FormatMismatchError, match="zip file that is not complete"):
        describe(str(path))


def test_the_reference_gives_what_the_module_gives(archive: Path, tmp_path: Path) -> None:
    import torch

    program = read_torchscript(archive, spec="mlp", input_shapes=["1x6", "1x3"], workdir=tmp_path)
    backend, target = ReferenceBackend(), Target(runtime="reference")
    session = backend.open(backend.convert(program, target, None, tmp_path), target)
    draw = np.random.default_rng(1)
    given = {"left": draw.normal(size=(2, 6)), "right": draw.normal(size=(2, 3))}
    given = {name: value.astype(np.float32) for name, value in given.items()}
    results = session.run(given)
    with torch.no_grad():
        want = programs.mlp_module()(torch.from_numpy(given["left"]), torch.from_numpy(given["right"]))
    np.testing.assert_allclose(results["output_0"], want[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(results["output_1"], want[1].numpy(), atol=1e-6)


def test_is_described_with_its_parameters_and_macs(archive: Path, tmp_path: Path) -> None:
    program = read_torchscript(archive, spec="mlp", input_shapes=["1x6", "1x3"], workdir=tmp_path)
    described = inspect_program(program)
    assert described.operators["linear"] == 3
    assert described.parameters == 9 * 48 + 48 + 48 * 4 + 4 + 48 + 1
    assert described.macs == 9 * 48 + 48 * 4 + 48


def test_a_batch_whose_samples_change_each_other_is_static(tmp_path: Path) -> None:
    import torch

    class Centred(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean()

    path = tmp_path / "centred.pt"
    torch.jit.script(Centred()).save(str(path))
    program = read_torchscript(path, spec="centred", input_shapes=["1x4"], workdir=tmp_path)
    assert program.inputs[0].shape == (1, 4)
    assert "samples of one batch change each other" in program.notes[0]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "does not tell the shapes"),
        (["1x6"], "takes 2 inputs"),
        (["left=1x6", "middle=1x3"], "has no input middle"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    shapes: list[str], message: str, archive: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        read_torchscript(archive, spec="mlp", input_shapes=shapes, workdir=tmp_path)


@pytest.mark.parametrize(
    "call",
    [
        'torch.from_file("/tmp/x", True, 10)',
        'torch . # gap\n      save(x, "/tmp/x")',
        'ops.aten.from_file("/tmp/x", True, 10)',
        'rpc_sync("other", f)',
    ],
)
def test_code_that_reaches_files_or_machines_is_refused(call: str, archive: Path, tmp_path: Path) -> None:
    name, text = code_of(archive)
    bad = changed(
        archive,
        tmp_path / "bad.pt",
        {name: f"{text}\n  def extra(self) -> Tensor:\n    return {call}\n".encode()},
    )
    with pytest.raises(IntegrityError, match="can reach files or other machines"):
        write_safe_copy(bad, tmp_path / "copy")


def test_every_operator_and_class_of_other_libraries_is_named(archive: Path, tmp_path: Path) -> None:
    name, text = code_of(archive)
    text += "\n# ops.torchvision.nms(x) ops . my.thing(x) __torch__.torch.classes.mine.Store\n"
    bad = changed(archive, tmp_path / "bad.pt", {name: text.encode()})
    with pytest.raises(FormatMismatchError, match=r"class mine\.Store, my::thing, torchvision::nms"):
        write_safe_copy(bad, tmp_path / "copy")


@pytest.mark.parametrize(
    ("change", "drop", "message"),
    [
        ({"../escape.py": b"x"}, "", "unsafe name"),
        ({"code/bomb.py": b"#" * (4 << 20)}, "", "unpacks"),
        ({"payload.so": b"x"}, "", "a member that an archive"),
        ({}, "constants.pkl", "no complete TorchScript archive"),
    ],
)
def test_archives_of_another_make_are_refused(
    change: dict[str, bytes], drop: str, message: str, archive: Path, tmp_path: Path
) -> None:
    bad = changed(archive, tmp_path / "bad.pt", change, drop=drop)
    with pytest.raises(EdgewrightError, match=message):
        write_safe_copy(bad, tmp_path / "copy")


def test_truncated_and_mutated_archives_end_in_an_error(
    archive: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    whole = archive.read_bytes()
    for size in rng.integers(30, len(whole) - 30, 3):
        path = tmp_path / "broken.torchscript"
        path.write_bytes(whole[: int(size)])
        with pytest.raises(EdgewrightError):
            load(str(path), workdir=tmp_path, input_shapes=["1x6", "1x3"])


def lstm_archive(folder: Path, state: str) -> Path:
    """Write a traced LSTM whose initial state is zero, a constant, or given by the user."""
    import torch

    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.LSTM(4, 6, batch_first=True)
            self.register_buffer("start", torch.ones(1, 1, 6))

        def forward(self, x: torch.Tensor, *states: torch.Tensor) -> torch.Tensor:
            start = states or (self.start, self.start)
            made = self.cell(x, None if state == "zero" else start)[0]
            assert isinstance(made, torch.Tensor)
            return made

    given = (torch.zeros(1, 1, 6),) * 2 if state == "given" else ()
    path = folder / f"{state}.jit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sizes that torch's own layer checks are constants of a trace
        traced = torch.jit.trace(Recurrent().eval(), (torch.ones(1, 5, 4), *given))  # type: ignore[no-untyped-call]
    traced.save(str(path))
    return path


@pytest.mark.parametrize(("state", "batch"), [("zero", None), ("constant", 1), ("given", 1)])
def test_the_batch_of_an_lstm_is_dynamic_only_with_its_state(
    state: str, batch: int | None, tmp_path: Path
) -> None:
    # A state of another batch than the data's makes torch's fast kernel write past its end: here it must not run.
    path = lstm_archive(tmp_path, state)
    shapes = ["1x5x4", *(["1x1x6"] * 2 if state == "given" else [])]
    program = load(str(path), workdir=tmp_path, input_shapes=shapes)
    assert program.inputs[0].shape == (batch, 5, 4)
    assert bool(program.notes) == (batch == 1)


def test_a_state_of_the_wrong_size_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = lstm_archive(tmp_path, "given")
    with pytest.raises(ConversionError, match="failed to run"):
        load(str(path), workdir=tmp_path, input_shapes=["4x5x4", "1x2x6", "1x2x6"])
