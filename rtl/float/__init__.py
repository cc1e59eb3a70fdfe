"""IEEE 754 units in Amaranth: fp16 and fp32, round to nearest even, subnormals as in numpy.

The sign and payload of a NaN are a matter of platform, not of IEEE 754: the units produce one
canonical NaN a format, and the software side (`simulator.units.float32`) canonicalises numpy's.
"""

from rtl.float.adder import Adder
from rtl.float.converter import Converter
from rtl.float.formats import FP16, FP32, FloatFormat
from rtl.float.multiplier import Multiplier

__all__ = ["FP16", "FP32", "Adder", "Converter", "FloatFormat", "Multiplier"]
