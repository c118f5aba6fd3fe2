"""The bill of materials: valid CycloneDX 1.6, the same again for the same bundle, purls that say what they should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.colour_model import SIZE, colour_specification

from edgewright.core.artifact import Artifact
from edgewright.core.errors import UsageError
from edgewright.core.files import sha256_of
from edgewright.core.target import Target
from edgewright.core.tensors import TensorSpec
from edgewright.deploy.bom import BOM_NAME, write_bom
from edgewright.deploy.records import Component, Content
from edgewright.processing.processor import Signature, plan

pytest.importorskip("cyclonedx")
LIBRARIES = (
    Component(
        name="com.google.ai.edge.litert:litert", version="2.3.0", licence="Apache-2.0",
        purl="pkg:maven/com.google.ai.edge.litert/litert@2.3.0",
    ),
    Component(name="@litertjs/core", version="2.5.3", purl="pkg:npm/%40litertjs/core@2.5.3", licence="Apache-2.0"),
    Component(name="numpy", version="2.3.5", purl="pkg:pypi/numpy@2.3.5", licence="BSD-3-Clause AND MIT"),
    Component(name="x", version="1.20.0", purl="pkg:swift/github.com/microsoft/x@1.20.0", licence="Not of SPDX"),
)  # fmt: skip


def write(folder: Path, licence: str = "Apache-2.0 OR MIT") -> dict[str, object]:
    """Return the bill of a bundle of the colour model."""
    model = folder / "model.onnx"
    model.write_bytes(b"model")
    pixels = TensorSpec(name="pixels", shape=(1, 3, SIZE, SIZE), dtype="float32")
    means = TensorSpec(name="means", shape=(1, 3), dtype="float32")
    artifact = Artifact(
        files=(model,), target=Target(runtime="onnxruntime"), inputs=(pixels,), outputs=(means,),
        sha256=sha256_of(model), source_sha256="",
    )  # fmt: skip
    content = Content(
        name="ColourFinder", version="1.2.3", cases=(), artifacts={"": artifact},
        plan=plan(colour_specification(), Signature(inputs=(pixels,), outputs=(means,))),
    )  # fmt: skip
    files = {"model.onnx": model}
    write_bom(content, LIBRARIES, folder, version="0.1.0", licence=licence, files=files)
    record = json.loads((folder / BOM_NAME).read_text())
    assert isinstance(record, dict)
    return record


@pytest.mark.parametrize("licence", ["", "MIT", "Apache-2.0 OR MIT", 'my own "terms" </x>', "é${x}"])
def test_it_is_valid(tmp_path: Path, licence: str) -> None:
    pytest.importorskip("jsonschema")
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    write(tmp_path, licence)
    try:
        problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str((tmp_path / BOM_NAME).read_text())
    except MissingOptionalDependencyException as err:
        pytest.skip(str(err))
    assert problem is None


def test_it_lists_everything_once_and_what_depends_on_it(tmp_path: Path) -> None:
    from packageurl import PackageURL

    record = write(tmp_path)
    components = {part["name"]: part for part in record["components"]}  # type: ignore[attr-defined]
    assert set(components) == {"edgewright-processing", "model.onnx", *(each.name for each in LIBRARIES)}
    for library in LIBRARIES:
        found = components[library.name]
        assert PackageURL.from_string(found["purl"]).version == found["version"] == library.version
    assert components["model.onnx"]["hashes"] == [
        {"alg": "SHA-256", "content": sha256_of(tmp_path / "model.onnx")}
    ]
    assert components["model.onnx"]["licenses"] == [{"expression": "Apache-2.0 OR MIT"}]
    edges = {row["ref"]: row.get("dependsOn") for row in record["dependencies"]}  # type: ignore[attr-defined]
    assert set(edges["ColourFinder"]) == {part["bom-ref"] for part in components.values()}


def test_it_is_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = write(tmp_path)
    assert write(tmp_path) == first
    metadata = first["metadata"]
    assert isinstance(metadata, dict) and metadata["timestamp"] == "2023-11-14T22:13:20+00:00"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UsageError, match="seconds since 1970"):
        write(tmp_path)
