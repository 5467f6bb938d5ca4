"""Frames as arrays, and how alike two vectors are."""

import numpy as np
from numpy.typing import NDArray

from triptych.workers.shared.contract import Frame, Vector

Array = NDArray[np.float32]


def array_of(frame: Frame) -> Array:
    """A frame's vector; fails with the message of a `Failure`."""
    assert isinstance(frame, Vector), frame
    return np.frombuffer(frame.data, "<f4").reshape(frame.shape)


def cosine(one: Array, other: Array) -> float:
    """The smallest cosine between rows of the two, in float64."""
    assert one.shape == other.shape
    a, b = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(np.min((a * b).sum(axis=-1) / norms))
