"""Machines whose operators have a closed form: published dataflows without RTL of ours."""

from typing import assert_never

from simulator.arch.accelerator import ClosedForm
from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.outer_product import OuterProduct
from simulator.arch.stationary_array import StationaryArray
from simulator.arch.tensor_core import TensorCore
from simulator.models import flex_dpe, outer_product, stationary_array, tensor_core
from simulator.models.product import Operand, Product, Work

__all__ = ["Operand", "Product", "Work", "work_of"]


def work_of(arch: ClosedForm, product: Product) -> Work:
    """Return what `arch` does for one product."""
    match arch:
        case TensorCore():
            return tensor_core.work(arch, product)
        case OuterProduct():
            return outer_product.work(arch, product)
        case FlexDpe():
            return flex_dpe.work(arch, product)
        case StationaryArray():
            return stationary_array.work(arch, product)
        case _:
            assert_never(arch)
