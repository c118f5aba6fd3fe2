"""How the LeNet benchmark trains, prunes and clusters each network."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lenet_models import LeNet5, LeNet300, Net


@dataclass(frozen=True, kw_only=True)
class Point:
    """One sparsity of the curve.

    Attributes:
        after: the sparsity that it is pruned from; 0 is the float network.
        bits: of the codebooks of this sparsity, one file each.
        cluster_epochs: of fine-tuning of the codebooks, at the rate `cluster_rate`.
    """

    sparsity: float
    after: float
    steps: int
    final_epochs: int
    bits: tuple[int, ...]
    cluster_epochs: int
    cluster_rate: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one network is trained and compressed; rates are of SGD with momentum, batches of 256.

    The float networks see every other image mirrored, the compressed ones none: chosen on held-out images, where
    LeNet-300-100 with 7,700 weights reaches 89.7 % without mirror images and 88.8 % with them.

    Attributes:
        rate, steady_rate, decay, clip_norm, alpha, temperature: of pruning and clustering, see `Loop`.
        cluster_bits: codebooks of so many bits and fewer are fine-tuned; larger ones lose little as k-means finds them.
    """

    title: str
    network: type[Net]
    float_epochs: int
    float_rate: float
    float_decay: float
    float_dropout: float
    taught_epochs: int
    taught_rate: float
    taught_decay: float
    rate: float
    steady_rate: float
    decay: float
    clip_norm: float | None
    alpha: float
    temperature: float
    cluster_bits: int
    bias_bits: int
    points: tuple[Point, ...]


PLANS = {
    "lenet-300-100": Plan(
        title="LeNet-300-100",
        network=LeNet300,
        float_epochs=40,
        float_rate=0.1,
        float_decay=5e-4,
        float_dropout=0.1,
        taught_epochs=40,
        taught_rate=0.1,
        taught_decay=1e-4,
        rate=0.1,
        steady_rate=0.1,
        decay=1e-4,
        clip_norm=None,
        alpha=0.5,
        temperature=2.0,
        cluster_bits=4,
        bias_bits=4,
        points=(
            Point(
                sparsity=0.9,
                after=0.0,
                steps=8,
                final_epochs=16,
                bits=(5, 4, 3),
                cluster_epochs=5,
                cluster_rate=0.1,
            ),
            Point(
                sparsity=0.95,
                after=0.9,
                steps=6,
                final_epochs=20,
                bits=(4, 3),
                cluster_epochs=8,
                cluster_rate=0.1,
            ),
            Point(
                sparsity=0.9705,
                after=0.95,
                steps=10,
                final_epochs=35,
                bits=(4, 3),
                cluster_epochs=10,
                cluster_rate=0.1,
            ),
            Point(
                sparsity=0.98,
                after=0.9705,
                steps=8,
                final_epochs=25,
                bits=(4, 3),
                cluster_epochs=10,
                cluster_rate=0.1,
            ),
            Point(
                sparsity=0.986,
                after=0.98,
                steps=8,
                final_epochs=25,
                bits=(3,),
                cluster_epochs=10,
                cluster_rate=0.1,
            ),
        ),
    ),
    "lenet-5": Plan(
        title="LeNet-5",
        network=LeNet5,
        float_epochs=25,
        float_rate=0.05,
        float_decay=5e-4,
        float_dropout=0.3,
        taught_epochs=0,
        taught_rate=0.05,
        taught_decay=5e-4,
        rate=0.03,
        steady_rate=0.03,
        decay=1e-4,
        clip_norm=1.0,
        alpha=0.5,
        temperature=2.0,
        cluster_bits=4,
        bias_bits=4,
        points=(
            Point(
                sparsity=0.912,
                after=0.0,
                steps=6,
                final_epochs=9,
                bits=(5, 4, 3),
                cluster_epochs=2,
                cluster_rate=0.03,
            ),
            Point(
                sparsity=0.976,
                after=0.912,
                steps=6,
                final_epochs=9,
                bits=(5, 4, 3),
                cluster_epochs=3,
                cluster_rate=0.03,
            ),
            Point(
                sparsity=0.986,
                after=0.976,
                steps=3,
                final_epochs=8,
                bits=(4, 3),
                cluster_epochs=3,
                cluster_rate=0.03,
            ),
        ),
    ),
}


def longer(plan: Plan, factor: int) -> Plan:
    """Return `plan` with `factor` times the epochs of fine-tuning after pruning and clustering."""
    return replace(
        plan,
        points=tuple(
            replace(
                point, final_epochs=factor * point.final_epochs, cluster_epochs=factor * point.cluster_epochs
            )
            for point in plan.points
        ),
    )
