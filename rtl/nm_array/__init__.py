"""The NMArray (SAT, arXiv 2309.13015) in Amaranth: int8 into int32, or fp16 into fp32."""

from rtl.nm_array.core import NMArrayCore
from rtl.nm_array.pe import ProcessingElement

__all__ = ["NMArrayCore", "ProcessingElement"]
