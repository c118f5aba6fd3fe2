"""What every session of an artifact has: its signature."""

from __future__ import annotations

from edgewright.core.artifact import Artifact
from edgewright.core.tensors import TensorSpec


class SignedSession:
    """The signature that the artifact's record gives; a session adds how it is run."""

    _artifact: Artifact

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The signature, in the order of the artifact's inputs."""
        return self._artifact.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The signature, in the order of the artifact's outputs."""
        return self._artifact.outputs
