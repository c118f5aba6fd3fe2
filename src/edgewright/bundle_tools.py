"""Programs and headers of this machine that bundles are built and proven with."""

from __future__ import annotations

import os
from pathlib import Path

from edgewright.microcontrollers.tools import Tools

CPP = Tools(purpose="c++ bundles", programs=("cmake", "c++"), packages="cmake g++")
ARM64 = Tools(
    purpose="arm64 boards",
    programs=("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64-static", "mmdebstrap"),
    packages="gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user-static mmdebstrap",
)
WEB = Tools(purpose="web bundles", programs=("clang", "wasm-ld", "chromium"), packages="clang lld chromium")
ANDROID = Tools(
    purpose="android bundles",
    programs=("java", "cmake", "clang", "ld.lld", "aapt2"),
    packages="openjdk-17-jdk-headless cmake gcc clang lld aapt",
)
ALL = (CPP, ARM64, WEB, ANDROID)

INCLUDE_VARIABLE = "EDGEWRIGHT_ONNXRUNTIME_INCLUDE"
HEADERS_FIX = (
    f"set {INCLUDE_VARIABLE} to include/ of an unpacked release of ONNX Runtime (its Python package has no headers), "
    "or on Debian 13: apt-get install -y libonnxruntime-dev"
)
# Where package managers put the headers of ONNX Runtime.
_HEADERS = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime")


def find_headers() -> Path | None:
    """Return the folder of the C++ headers of ONNX Runtime; None where there is none."""
    places = [os.environ.get(INCLUDE_VARIABLE, ""), *_HEADERS]
    return next((Path(p) for p in places if p and (Path(p) / "onnxruntime_cxx_api.h").is_file()), None)
