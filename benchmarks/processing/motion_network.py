"""BasicMotions: read its series, and train a small network on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

CHANNELS, TIME = 6, 100
_EPOCHS = 120


def read_series(path: Path) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Return float32 [n, 100, 6] and the index of the class of each, in the order of the file's header."""
    names: list[str] = []
    series, labels = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("@classLabel true"):
            names = line.split()[2:]
        elif line and line[0] not in "#@":
            *channels, name = line.split(":")
            rows = np.array([[float(cell) for cell in channel.split(",")] for channel in channels])
            assert rows.shape == (CHANNELS, TIME)
            series.append(rows.T)
            labels.append(names.index(name.strip()))
    return np.stack(series).astype(np.float32), labels


def write_network(training: Path, folder: Path, *, seed: int) -> Path:
    """Train on the series at `training`, and return the ONNX file: [1, 100, 6], standardised, to logits."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    series, labels = read_series(training)
    standard = (series - series.mean(axis=1, keepdims=True)) / series.std(axis=1, keepdims=True)
    inputs, targets = torch.from_numpy(standard).float(), torch.tensor(labels)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv1d(CHANNELS, 24, 9, stride=2), nn.ReLU(), nn.Conv1d(24, 32, 7, stride=2), nn.ReLU()
            )
            self.last = nn.Linear(32, max(labels) + 1)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(self.layers(values.transpose(1, 2)).mean(dim=2))
            return out

    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(_EPOCHS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    path = folder / "motion.onnx"
    torch.onnx.export(
        network.eval(), (inputs[:1],), str(path), dynamo=True, external_data=False, verbose=False
    )
    return path
