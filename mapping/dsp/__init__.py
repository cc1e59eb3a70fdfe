"""Compile decoder LLMs to programs of a DspChain, and time a run of them."""

from mapping.dsp.compile import CompiledModel, Library, compile_model
from mapping.dsp.model import Decoder, decoder_of, published
from mapping.dsp.run import DspRun, simulate_decoder

__all__ = [
    "CompiledModel",
    "Decoder",
    "DspRun",
    "Library",
    "compile_model",
    "decoder_of",
    "published",
    "simulate_decoder",
]
