"""The little of CUDA that a TensorRT session needs, through the driver's own library: no package besides it.

Not run so far: no NVIDIA GPU was at hand. Source of the signatures: CUDA Driver API reference.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

from edgewright.core.errors import ConversionError, UnavailableError
from edgewright.core.tensors import Array

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256


def device_count() -> int:
    """Return how many NVIDIA GPUs the driver offers; 0 without a driver."""
    library = _load()
    count = ctypes.c_int()
    if library is None or library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _load() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None


class Device:
    """The first GPU: its primary context (the one that TensorRT uses), one stream, and memory.

    Raises:
        UnavailableError: there is none.
    """

    def __init__(self) -> None:
        library = _load()
        if library is None or device_count() == 0:
            raise UnavailableError("no NVIDIA GPU: the CUDA driver is not installed or offers no device.")
        self._library = library
        self._device = ctypes.c_int()
        self._context = ctypes.c_void_p()
        self._stream = ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self._call("cuCtxSetCurrent", self._context)
        self._call("cuStreamCreate", ctypes.byref(self._stream), 0)

    @property
    def name(self) -> str:
        """What the driver calls the GPU."""
        text = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("cuDeviceGetName", text, _NAME_BYTES, self._device)
        return text.value.decode("utf-8", errors="replace")

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return int(self._stream.value or 0)

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory on the device; at least one byte, for an empty tensor has an address too."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size_bytes, 1)))
        return address.value

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def copy_in(self, array: Array, address: int) -> None:
        """Copy the contiguous `array` to the device."""
        self._call(
            "cuMemcpyHtoD_v2",
            ctypes.c_uint64(address),
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
        )

    def copy_out(self, address: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """Return a copy of the array at `address`."""
        array: Array = np.empty(shape, dtype=dtype)
        self._call(
            "cuMemcpyDtoH_v2",
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_uint64(address),
            ctypes.c_size_t(array.nbytes),
        )
        return array

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Give the stream and the context back."""
        self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _call(self, function: str, *arguments: object) -> None:
        code = getattr(self._library, function)(*arguments)
        if code != 0:
            raise ConversionError(f"CUDA: {function} failed with code {code}.")
