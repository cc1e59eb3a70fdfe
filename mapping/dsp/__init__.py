"""Compile decoder LLMs to programs of a DspChain, and time a run of them."""

from mapping.dsp.compile import CompiledModel, Library, compile_model
from mapping.dsp.kv import KvPlace, kv_place
from mapping.dsp.model import Decoder, decoder_of, published
from mapping.dsp.run import DspRun, simulate_decoder

__all__ = [
    "CompiledModel",
    "Decoder",
    "DspRun",
    "KvPlace",
    "Library",
    "compile_model",
    "decoder_of",
    "kv_place",
    "published",
    "simulate_decoder",
]
