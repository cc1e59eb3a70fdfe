"""Decoders described by shape in a YAML file."""

import pytest

from workloads.frontends import load
from workloads.frontends.decoder_yaml import load_shape
from workloads.zoo import build
from workloads.zoo.decoder import decoder

LLAMA3 = """
like: llama2-7b
name: llama3-8b
layers: 32
width: 4096
heads: 32
kv_heads: 8
hidden: 14336
vocabulary: 128256
"""
TINY = "like: {like}\nlayers: 2\nwidth: 64\nheads: 4\nhidden: 96\nvocabulary: 100\n"


def written(folder, text, name="mine.yaml"):
    """Return a file that holds `text`."""
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_with_the_sizes_of_a_zoo_model_is_that_model(tmp_path):
    """The graph is the zoo's, for any prefill and decode."""
    path = written(tmp_path, LLAMA3)
    for options in ({}, {"prefill": 5, "decode": 3}, {"decode": 2, "batch": 2}):
        assert load(path, **options) == build("llama3-8b", **options)


@pytest.mark.parametrize("like", ["llama2-7b", "opt-6.7b"])
def test_defaults_are_those_of_the_python_function(tmp_path, like):
    """Without kv_heads and head_size every query has its key; the file names the model."""
    path = written(tmp_path, TINY.format(like=like), "tiny.yml")
    sizes = {"layers": 2, "width": 64, "heads": 4, "hidden": 96, "vocabulary": 100}
    assert load(path, prefill=8) == decoder("tiny", like, **sizes, prefill=8)


def test_a_kind_of_layer_may_differ_from_like(tmp_path):
    """Norm, activation, gate and positions can be given one by one."""
    more = "norm: RMSNorm\nactivation: Gelu\nrotary: true\nhead_size: 32\nkv_heads: 2\n"
    shape = load_shape(written(tmp_path, TINY.format(like="opt-6.7b") + more))
    assert (shape.norm, shape.activation, shape.gated, shape.rotary) == (
        "RMSNorm",
        "Gelu",
        False,
        True,
    )
    assert (shape.head_size, shape.kv_heads) == (32, 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"mine\.yaml: the file is empty; a decoder is a mapping with keys like, name, layers"),
        ("like: gpt\n", r"mine\.yaml: key 'layers' is missing"),
        (TINY.format(like="gpt"), r"line 1: unknown decoder 'gpt'; known: opt-6\.7b, llama2-7b"),
        (TINY.format(like="[1]"), r"line 1: unknown decoder \[1\]; known"),
        ("layers: 2\ndepth: 3\n", r"line 2: unknown key 'depth'; known: like, name, layers"),
        ("layer: 2\n", r"line 1: unknown key 'layer'; .* \(did you mean 'layers'\?\)"),
        ("layers: 2\nheads: 0\n", r"line 2: heads must be a whole number of at least 1, not 0"),
        ("layers: two\n", r"line 1: layers must be a whole number of at least 1, not 'two'"),
        ("gated: 1\n", r"line 1: gated must be true or false, not 1"),
        ("name: 7\n", r"line 1: name must be a text, not 7"),
        ("activation: Tanh\n", r"line 1: unknown activation 'Tanh'; known: Relu, Gelu, Silu"),
        ("norm: [1]\n", r"line 1: unknown norm \[1\]; known: LayerNorm, RMSNorm"),
        (
            TINY.format(like="opt-6.7b") + "kv_heads: 3\n",
            r"mine\.yaml, line 7: 3 kv_heads do not divide 4 heads",
        ),
        (
            TINY.format(like="opt-6.7b").replace("heads: 4", "heads: 5"),
            r"mine\.yaml, line 4: 5 heads do not divide a width of 64",
        ),
        ("layers: [\n", r"mine\.yaml, line 2: not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line(tmp_path, text, sentence):
    """Unknown, missing and impossible entries are named."""
    with pytest.raises(ValueError, match=sentence):
        load(written(tmp_path, text), prefill=4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image": 32}, r"mine\.yaml has no option 'image'; known: prefill, decode, batch"),
        ({"prefill": -1}, r"option prefill must be a whole number of at least 0, not -1"),
        ({"batch": 0}, r"option batch must be a whole number of at least 1, not 0"),
        ({"prefill": 0}, r"[/\\]mine\.yaml needs prefill or decode of at least 1$"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, sentence):
    """A decoder takes prefill, decode and batch."""
    with pytest.raises(ValueError, match=sentence):
        load(written(tmp_path, TINY.format(like="opt-6.7b")), **options)


def test_a_missing_file_is_named():
    """The path is in the sentence."""
    with pytest.raises(ValueError, match=r"none\.yaml' does not exist"):
        load("none.yaml")
