"""Converts raw bfloat16, float16 and float32 to float32 and back, with numpy.

numpy has no bfloat16. It is the upper half of a float32: decoding is a shift, encoding rounds first (to
nearest, ties to even).
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LARGEST = {"BF16": 3.3895e38, "F16": 65504.0, "F32": 3.4028e38}
"""The largest finite value of each dtype, to five digits."""


def decode(data: bytes, dtype: str) -> Floats:
    """Little-endian bytes to a flat float32 array; exact."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, "<f2" if dtype == "F16" else "<f4").astype(np.float32)


def encode(values: Floats, dtype: str) -> bytes:
    """A finite float32 array to little-endian bytes of `dtype`, rounded to nearest."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "F16" else "<f4").tobytes()
