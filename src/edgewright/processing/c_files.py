"""The files of the C core, and which of them a processing needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files

# What every processing needs, and what a file of the core needs beside its own header.
_ALWAYS = ("ew_processing.h", "ew_run.h", "ew_api.c", "ew_math.h")
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "ew_tensors": ("ew_tensors.c", "ew_tensors.h"),
    "ew_scores": ("ew_scores.c", "ew_scores.h", "ew_math.c"),
    "ew_views": ("ew_images.h", "ew_views.c"),
    "ew_places": ("ew_images.h", "ew_places.c", "ew_kernels.c", "ew_kernels.h"),
    "ew_taps": ("ew_images.h", "ew_taps.c"),
    "ew_filter": ("ew_images.h", "ew_filter.c", "ew_kernels.c", "ew_kernels.h"),
    "ew_resample": ("ew_images.h", "ew_resample.c", "ew_kernels.c", "ew_kernels.h"),
    "ew_audio": ("ew_audio.c", "ew_audio.h"),
    "ew_fft": ("ew_fft.c", "ew_fft.h"),
    "ew_spectrum": ("ew_spectrum.c", "ew_spectrum.h", "ew_math.c"),
    "ew_pcan": ("ew_pcan.c", "ew_pcan.h", "ew_math.c"),
    "ew_series": ("ew_series.c", "ew_series.h", "ew_math.c"),
    "ew_boxes": ("ew_boxes.c", "ew_boxes.h", "ew_math.c"),
    "ew_nms": ("ew_nms.c", "ew_nms.h", "ew_math.c"),
    "ew_masks": ("ew_masks.c", "ew_masks.h", "ew_math.h", "ew_tensors.c", "ew_tensors.h"),
    "ew_resize_floats": ("ew_images.h", "ew_resize_floats.c", "ew_resize_floats.h"),
}


def core_files(called: Iterable[str]) -> list[str]:
    """Return the files of the core that functions in the files `called` (names without .c) need."""
    return sorted({*_ALWAYS, *(file for name in called for file in _NEEDS[name])})


def core_headers(called: Iterable[str]) -> list[str]:
    """Return the headers that declare the functions in the files `called`, and what a run holds."""
    needed = {file for name in called for file in _NEEDS[name] if file.endswith(".h")}
    return sorted({*needed, "ew_run.h"})


def core_text(file: str) -> str:
    """Return the text of a file of the core, such as "ew_api.c"."""
    return (files("edgewright.processing") / "c" / file).read_text(encoding="utf-8")
