"""Bad input of training, as a user meets it: exit code 2, one sentence, nothing written."""

import json

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from sparseloom.cli import invoke

TRAINING = {
    "sore": {"lanes": 4, "max_n": 4, "max_m": 8},
    "wuve": {"lanes": 4, "adder_latency": 2, "multiplier_latency": 1},
}
FP16 = {"precision": "fp16", "adder_latency": 3, "interleave": 4}


@pytest.fixture
def machine(tmp_path):
    """Return a function that writes a machine file: nm-tiny that trains, with keys changed."""

    def write(**changes):
        path = tmp_path / "machine.yaml"
        parameters = {"training": TRAINING, **changes}
        path.write_text(yaml.safe_dump({"base": "nm-tiny", "parameters": parameters}))
        return path

    return write


@pytest.fixture
def network(tmp_path):
    """Return a function that writes conv, `between`, conv, pool, fully connected as ONNX."""

    def write(*between, batch=2):
        rng = np.random.default_rng(0)
        shapes = {"w1": (8, 3, 3, 3), "w2": (16, 8, 3, 3), "w3": (16, 10)}
        weights = [
            numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ]
        nodes = [
            helper.make_node("Conv", ["x", "w1"], ["a"], name="conv1", pads=[1] * 4),
            *(between or [helper.make_node("Relu", ["a"], ["b"], name="relu")]),
            helper.make_node("Conv", ["b", "w2"], ["c"], name="conv2", pads=[1] * 4),
            helper.make_node("GlobalAveragePool", ["c"], ["d"], name="pool"),
            helper.make_node("Flatten", ["d"], ["e"], name="flat"),
            helper.make_node("MatMul", ["e", "w3"], ["y"], name="fc"),
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])
        model = helper.make_model(
            helper.make_graph(nodes, "net", [x], [y], weights),
            opset_imports=[helper.make_opsetid("", 17)],
        )
        model.ir_version = 8
        path = tmp_path / "net.onnx"
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def train(capsys, tmp_path, monkeypatch):
    """Return a function that runs a training step from the command line: (code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(source, arch, *options):
        line = ["run", source, "--arch", arch, "--phase", "train", *options]
        code = invoke([str(word) for word in line])
        text = capsys.readouterr()
        return code, text.out, text.err

    return call


@pytest.fixture
def refused(train, tmp_path):
    """Return a function that checks a refusal and returns its sentence."""

    def call(source, arch, *options):
        before = set(tmp_path.iterdir())
        code, out, err = train(source, arch, *options, "--out", tmp_path / "out", "--json")
        assert (code, out) == (2, ""), err
        assert err.startswith("sparseloom: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert set(tmp_path.iterdir()) == before
        return err.removeprefix("sparseloom: ").rstrip()

    return call


def test_training_step_runs_on_a_machine_that_trains(train, network, machine):
    """The machine and network that every refusal below changes one thing of are good."""
    code, out, err = train(network(), machine(), "--sparsity", "2:8", "--json")
    assert (code, err) == (0, "")
    assert set(json.loads(out)["passes"]) >= {"ff", "bp", "wu", "update"}


def one(kind, **attributes):
    return helper.make_node(kind, ["a"], ["b"], name="middle", **attributes)


@pytest.mark.parametrize("kind", ["Round", "Sign", "Floor"])
def test_fused_operator_without_gradient_is_named_as_in_the_model(refused, network, machine, kind):
    """Work fused into a product is named by the operator that is in the user's model."""
    assert refused(network(one(kind)), machine()) == (
        f"Op 'conv1' ({kind}) has no gradient: training needs one in its bp pass"
    )


def test_operator_without_gradient_is_named_with_its_pass(refused, network, machine):
    nodes = [
        helper.make_node("ArgMax", ["a"], ["at"], name="argmax", axis=1),
        helper.make_node("Cast", ["at"], ["real"], name="cast", to=1),
        helper.make_node("Add", ["a", "real"], ["b"], name="add"),
    ]
    assert refused(network(*nodes), machine()) == (
        "Op 'argmax' (ArgMax) has no gradient: training needs one in its bp pass"
    )


@pytest.mark.parametrize("sparsity", ["-1:8", "9:8", "2:0", "0:0"])
def test_impossible_nm_is_refused(refused, network, machine, sparsity):
    """N < 0, N > M and M < 1 are refused with the allowed range."""
    sentence = refused(network(), machine(), f"--sparsity={sparsity}")
    assert sentence == f"N:M sparsity needs 0 <= N <= M and M >= 1, not {sparsity}"


@pytest.mark.parametrize("sparsity", ["0:8", "5:8", "2:10"])
@pytest.mark.parametrize("method", ["bdwp", "sr-ste", "sdgp"])
def test_selection_beyond_sore_names_op_pass_and_limits(
    refused, network, machine, sparsity, method
):
    """N of 0 or beyond max_n, or M beyond max_m, has no selector: no cycles are made up."""
    sentence = refused(network(), machine(), "--sparsity", sparsity, "--method", method)
    assert sentence.startswith("Op '")
    assert sentence.endswith(
        f"(select pass) keeps {sparsity}, but the SORE of '{machine()}' keeps N of 1 to max_n = 4 "
        "in groups of M up to max_m = 8"
    )


def test_groups_longer_than_every_reduction_are_said_to_run_dense(train, network, machine):
    """With 2:128 no weight of the network has one group: it is dense, and notes say so."""
    code, out, _ = train(network(), machine(), "--sparsity", "2:128", "--json")
    notes = json.loads(out)["notes"]
    assert code == 0
    assert any("since the reduction is shorter than one group of 2:128" in note for note in notes)
    assert "No weight is sparse, so method bdwp trains as method dense does" in notes


@pytest.mark.parametrize("sparsity", ["unstructured:0.5", "block:4x4:0.5", "balanced:8:0.5"])
@pytest.mark.parametrize("method", ["bdwp", "sr-ste", "sdgp"])
def test_structure_that_is_not_nm_is_refused_by_sparse_methods(
    refused, network, machine, sparsity, method
):
    sentence = refused(network(), machine(), "--sparsity", sparsity, "--method", method)
    assert sentence == (
        f"Weight 'w2' is {sparsity}, but method {method} trains weights that are N:M along the "
        "reduction with one N for all features"
    )


def test_unknown_method_lists_the_known(refused, network, machine):
    sentence = refused(network(), machine(), "--method", "magic")
    assert sentence == "Unknown training method 'magic'; known: dense, sr-ste, sdgp, bdwp"


def test_method_without_training_phase_is_refused(capsys, network, machine):
    line = ["run", network(), "--arch", machine(), "--method", "bdwp"]
    assert invoke([str(word) for word in line]) == 2
    assert "Method 'bdwp' is a training method: it needs phase train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (
            ["--method", "dense", "--sparsity", "2:8"],
            "Dense in spite of 2:8, since method dense prunes nothing",
        ),
        (["--method", "sdgp"], "No weight is sparse, so method sdgp trains as method dense does"),
    ],
    ids=["dense method", "dense weights"],
)
def test_method_and_sparsity_that_do_not_go_together_are_said(
    train, network, machine, options, note
):
    """Neither option is dropped in silence."""
    code, out, _ = train(network(), machine(), *options, "--json")
    assert code == 0
    assert note in json.loads(out)["notes"]


def test_machine_that_cannot_train_is_refused_before_any_mapping(refused, network, monkeypatch):
    """The units that are missing are named, and presets that have them."""

    def mapped(*_args, **_kwargs):
        raise AssertionError("the workload was mapped")

    monkeypatch.setattr("sparseloom.runs.simulate_graph", mapped)
    sentence = refused(network(), "nm-tiny")
    assert sentence.startswith(
        "Phase train needs an arch with `training` units (sore, wuve), which 'nm-tiny' has not; "
        "presets that have them: "
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({**FP16, "adder_latency": 0}, "NMArray adder_latency must be 1 to 16, not 0"),
        ({**FP16, "adder_latency": 17}, "NMArray adder_latency must be 1 to 16, not 17"),
        ({**FP16, "interleave": 0}, "NMArray interleave must be 1 to 16, not 0"),
        ({**FP16, "interleave": 17}, "NMArray interleave must be 1 to 16, not 17"),
        ({"adder_latency": 2}, "An int8 NMArray adds in one slot: adder_latency must be 1, not 2"),
        ({"interleave": 2}, "An int8 NMArray adds in one slot: interleave must be 1, not 2"),
        (
            {"training": {**TRAINING, "sore": {"lanes": 1, "max_n": 4, "max_m": 4}}},
            "NMArray training.sore.max_m must be at least max_m = 8, not 4",
        ),
        (
            {"training": {**TRAINING, "sore": {"lanes": 1, "max_n": 9, "max_m": 8}}},
            "SORE max_n must be 1 to max_m = 8, not 9",
        ),
        (
            {"training": {**TRAINING, "sore": {"lanes": 0, "max_n": 1, "max_m": 8}}},
            "SORE lanes must be at least 1, not 0",
        ),
        (
            {"training": {**TRAINING, "wuve": {**TRAINING["wuve"], "adder_latency": 65}}},
            "WUVE adder_latency must be 1 to 64, not 65",
        ),
        (
            {"training": {**TRAINING, "sorting": 1}},
            "unknown key 'training.sorting'; known: sore, wuve, pregenerate, transposer",
        ),
        (
            {"training": {**TRAINING, "sore": {**TRAINING["sore"], "maxm": 1}}},
            "known: lanes, max_n, max_m, value (did you mean 'max_m'?)",
        ),
        ({"training": {"sore": TRAINING["sore"]}}, "key 'training.wuve' is missing"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:44],
)
def test_impossible_machine_names_file_key_found_and_allowed(
    refused, network, machine, changes, sentence
):
    found = refused(network(), machine(**changes))
    assert found.endswith(sentence)
    assert "machine.yaml" in found


@pytest.mark.parametrize(
    ("buffer", "size", "op"),
    [
        ("act_buffer", 1, "Op 'conv1.ff' (ff pass)"),
        ("weight_buffer", 1, "Op 'conv1.ff' (ff pass)"),
        ("weight_buffer", 20, "Op 'conv2.wu' (wu pass)"),
        ("out_buffer", 1, "Op 'conv1.ff' (ff pass)"),
        ("out_buffer", 100, "Op 'conv2.bp' (bp pass)"),
    ],
)
@pytest.mark.parametrize("numbers", [{}, FP16], ids=["int8", "fp16 interleaved"])
def test_product_that_fits_no_buffer_names_op_pass_buffer_need_and_size(
    refused, network, machine, buffer, size, op, numbers
):
    """A product of any pass whose smallest tile, interleaved or not, overflows a buffer."""
    if size == 20 and not numbers:
        size = 9  # int8 operands are half as wide
    arch = machine(**numbers, **{buffer: {"capacity_bytes": size}})
    sentence = refused(network(), arch, "--sparsity", "2:8")
    assert sentence.startswith(f"{op} fits no tile in {buffer}: the smallest needs ")
    need = int(sentence.split(" needs ")[1].split(" bytes")[0])
    assert need > size
    assert sentence.endswith(f" bytes, {buffer}.capacity_bytes is {size}")


@pytest.mark.parametrize("batch", [0, -3])
def test_impossible_batch_is_refused(refused, machine, batch):
    sentence = refused("resnet9", machine(), "--batch", batch)
    assert sentence == f"resnet9 option batch must be a whole number of at least 1, not {batch}"


def test_fixed_batch_of_a_model_is_named(refused, network, machine):
    sentence = refused(network(), machine(), "--batch", 4)
    assert "input 'x' has a fixed batch of 2, so batch=4 is not possible" in sentence


def test_decoding_cannot_be_trained(refused, machine):
    sentence = refused("llama2-7b", machine(), "--prefill", 4, "--decode", 2)
    assert "training needs a graph in which every operator runs once" in sentence


def test_network_without_weights_cannot_be_trained(refused, machine, tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph([node], "bare", ends[:1], ends[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 8
    onnx.save(model, tmp_path / "bare.onnx")
    sentence = refused(tmp_path / "bare.onnx", machine())
    assert sentence == "Workload 'bare': its last output depends on no weight to train"


def test_unknown_phase_lists_the_known(capsys, network, machine):
    line = ["run", network(), "--arch", machine(), "--phase", "training"]
    assert invoke([str(word) for word in line]) == 2
    assert "Unknown phase 'training'; known: infer, train" in capsys.readouterr().err
