"""The arithmetic of the floating-point units in numpy, bit for bit.

Every function rounds once, to nearest even, keeps subnormals and returns canonical NaN: 0x7E00
in fp16, 0x7FC00000 in fp32. The sign and payload of a NaN depend on the processor numpy runs on,
so nothing may compare them before they are canonical.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["add", "bits16", "bits32", "canonical16", "canonical32", "multiply", "narrow", "widen"]

Half = NDArray[np.float16]
Single = NDArray[np.float32]

NAN16 = np.uint16(0x7E00).view(np.float16)
NAN32 = np.uint32(0x7FC00000).view(np.float32)


def canonical16(value: Half) -> Half:
    """Return `value` with every NaN replaced by the canonical one."""
    return np.where(np.isnan(value), NAN16, value)


def canonical32(value: Single) -> Single:
    """Return `value` with every NaN replaced by the canonical one."""
    return np.where(np.isnan(value), NAN32, value)


def bits16(value: Half) -> NDArray[np.uint16]:
    """Return the bits of float16 numbers, NaN made canonical."""
    return canonical16(value).view(np.uint16)


def bits32(value: Single) -> NDArray[np.uint32]:
    """Return the bits of float32 numbers, NaN made canonical."""
    return canonical32(value).view(np.uint32)


def add(left: Single, right: Single) -> Single:
    """Return left + right in fp32."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return canonical32(np.add(left, right, dtype=np.float32))


def multiply(left: Single | Half, right: Single | Half) -> Single:
    """Return left * right in fp32; exact, never rounded, when both are fp16."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return canonical32(np.multiply(left, right, dtype=np.float32))


def narrow(value: Single) -> Half:
    """Return fp32 numbers as fp16; too large a number becomes infinity."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return canonical16(value.astype(np.float16))


def widen(value: Half) -> Single:
    """Return fp16 numbers as fp32, exactly."""
    with np.errstate(invalid="ignore"):
        return canonical32(value.astype(np.float32))
