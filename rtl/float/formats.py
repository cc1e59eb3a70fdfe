"""IEEE 754 binary formats and every width and layout of the floating-point units.

Between unpacking and packing a number is *exact*: a sign, the biased exponent (of the target
format) that its magnitude's top bit would have as hidden bit, and that magnitude, not normalised.
"""

from dataclasses import dataclass

from amaranth.hdl import ShapeLike, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = [
    "FP16",
    "FP32",
    "GUARD_BITS",
    "Exact",
    "FloatFormat",
    "aligned",
    "binary_unit",
    "rounded",
    "unary_unit",
    "unpacked",
]

GUARD_BITS = 3
"""Guard, round and sticky: enough for a correctly rounded sum of two aligned significands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFormat:
    """An IEEE 754 binary interchange format with subnormals, infinities and one NaN."""

    exponent_bits: int
    fraction_bits: int

    @property
    def bits(self) -> int:
        """Width of a packed number."""
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def significand_bits(self) -> int:
        """Width of a significand, hidden bit included."""
        return self.fraction_bits + 1

    @property
    def bias(self) -> int:
        """Exponent bias."""
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def top_exponent(self) -> int:
        """Biased exponent of infinities and NaN: all ones."""
        return (1 << self.exponent_bits) - 1

    @property
    def infinity(self) -> int:
        """Bits of infinity without the sign."""
        return self.top_exponent << self.fraction_bits

    @property
    def quiet_nan(self) -> int:
        """Bits of the only NaN the units produce: positive, quiet, payload zero."""
        return self.infinity | 1 << (self.fraction_bits - 1)


FP16 = FloatFormat(exponent_bits=5, fraction_bits=10)
"""binary16; its NaN is 0x7E00."""

FP32 = FloatFormat(exponent_bits=8, fraction_bits=23)
"""binary32; its NaN is 0x7FC00000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """Shape of an exact number: magnitude width and range of the exponent of its top bit."""

    magnitude_bits: int
    lowest: int
    highest: int

    @property
    def layout(self) -> data.StructLayout:
        """Layout of the number; `nan` and `infinite` override the rest."""
        return data.StructLayout(
            {
                "sign": 1,
                "nan": 1,
                "infinite": 1,
                "exponent": range(self.lowest, self.highest + 1),
                "magnitude": unsigned(self.magnitude_bits),
            }
        )

    @property
    def may_lack_room(self) -> bool:
        """Whether normalising could pass the smallest exponent, 1."""
        return self.lowest - (self.magnitude_bits - 1) < 1

    @property
    def may_underflow(self) -> bool:
        """Whether the top bit itself may lie below the smallest exponent."""
        return self.lowest < 1


def rounded(exact: Exact) -> data.StructLayout:
    """A normalised number before rounding; its exponent field is 0 where subnormal."""
    return data.StructLayout(
        {
            "sign": 1,
            "nan": 1,
            "infinite": 1,
            "exponent": range(exact.highest + 1),
            "magnitude": unsigned(exact.magnitude_bits),
        }
    )


def unpacked(fmt: FloatFormat) -> data.StructLayout:
    """A number's parts; a subnormal has exponent 1 and no hidden bit."""
    return data.StructLayout(
        {
            "sign": 1,
            "nan": 1,
            "infinite": 1,
            "exponent": unsigned(fmt.exponent_bits),
            "significand": unsigned(fmt.significand_bits),
        }
    )


def aligned(fmt: FloatFormat) -> data.StructLayout:
    """Two summands, the one of larger magnitude first; `distance` is between their exponents."""
    return data.StructLayout(
        {
            "sign": 1,
            "nan": 1,
            "infinite": 1,
            "subtract": 1,
            "exponent": unsigned(fmt.exponent_bits),
            "distance": unsigned(fmt.exponent_bits),
            "large": unsigned(fmt.significand_bits + GUARD_BITS),
            "small": unsigned(fmt.significand_bits + GUARD_BITS),
        }
    )


def binary_unit(source: FloatFormat, target: FloatFormat) -> dict[str, wiring.Member]:
    """Ports of an operation on two numbers."""
    return {"b": In(_word(source)), **unary_unit(source, target)}


def unary_unit(source: FloatFormat, target: FloatFormat) -> dict[str, wiring.Member]:
    """Ports of an operation on one number."""
    return {"advance": In(1), "a": In(_word(source)), "y": Out(_word(target))}


def _word(fmt: FloatFormat) -> ShapeLike:
    return unsigned(fmt.bits)
