"""Running an ONNX model on real data to see which activations are zero."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError
from workloads.paths import absence

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["model_inputs", "read_record", "run_model", "runtime_shapes"]

Array = NDArray[Any]

MEAN: Final = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION: Final = np.array([0.229, 0.224, 0.225], dtype=np.float32)
"""Of ImageNet's red, green and blue, scaled to 0..1: what most classifiers are trained with."""

ARRAYS: Final = (".npy", ".npz")

UNREADABLE: Final = (OSError, ValueError, EOFError, BadZipFile, zlib.error)
"""What reading a damaged or foreign numpy file may raise."""


def model_inputs(model: "ModelProto") -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and type of every input of a model with static shapes."""
    from onnx.helper import tensor_dtype_to_np_dtype

    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: (
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
            np.dtype(tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
        )
        for value in model.graph.input
        if value.name not in weights
    }


def _image(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return the picture cut to the input's proportions, scaled to its size and normalised."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    first = shape[1] in (1, 3)
    if len(shape) != 4 or not (first or shape[3] in (1, 3)):
        raise WorkloadError(f"{path}: the model's input of shape {shape} is no image")
    channels, height, width = (shape[1], *shape[2:]) if first else (shape[3], *shape[1:3])
    try:
        with Image.open(path) as opened:
            picture = ImageOps.fit(opened.convert("RGB" if channels == 3 else "L"), (width, height))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise WorkloadError(f"{path} is no readable image: {error}") from None
    pixels = np.asarray(picture).reshape(height, width, channels)
    if dtype.kind == "f":
        scaled = pixels.astype(np.float32) / 255
        pixels = (scaled - MEAN[:channels]) / DEVIATION[:channels]
    laid = pixels.transpose(2, 0, 1) if first else pixels
    return np.broadcast_to(laid, shape).astype(dtype)


def _arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {names[0]: content}
            return {name: content[name] for name in content.files}
    except UNREADABLE as error:
        why = str(error).partition(". ")[0]  # without advice on loading it unsafely
        raise WorkloadError(f"{path} is no readable numpy file: {why}") from None


def read_record(path: Path, model: "ModelProto") -> dict[str, Array]:
    """Return the model's inputs from an image, an .npy of its one input or an .npz by name.

    An image is cut to the input's proportions about its centre, scaled bilinearly, and for real
    inputs normalised by ImageNet's mean and deviation; whole-number inputs get its bytes. Every
    image of a batch is the same. Raises WorkloadError for a file that is missing or neither.
    """
    if why := absence(path):
        raise WorkloadError(f"File {str(path)!r} {why}")
    wanted = model_inputs(model)
    if path.suffix.lower() in ARRAYS:
        return _arrays(path, list(wanted))
    if len(wanted) != 1:
        raise WorkloadError(
            f"{path}: the model has inputs {', '.join(wanted)}; give an .npz with an array for each"
        )
    ((name, (shape, dtype)),) = wanted.items()
    return {name: _image(path, shape, dtype)}


def _checked(path: Path, model: "ModelProto", inputs: Mapping[str, Array]) -> dict[str, Array]:
    wanted = model_inputs(model)
    for name in [*inputs, *wanted]:
        if name not in wanted or name not in inputs:
            raise WorkloadError(
                f"{path} runs on inputs {', '.join(wanted)}, not on {', '.join(inputs) or 'none'}"
            )
        array, (shape, dtype) = inputs[name], wanted[name]
        if array.shape != shape or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise WorkloadError(
                f"{path}: input {name!r} takes {dtype} of shape {shape}, "
                f"not {array.dtype} of shape {array.shape}"
            )
    return {name: np.ascontiguousarray(inputs[name], dtype=wanted[name][1]) for name in wanted}


def run_model(
    path: Path, model: "ModelProto", inputs: Mapping[str, Array], tensors: Sequence[str]
) -> dict[str, Array]:
    """Return the named tensors of the static `model` run on `inputs`, by name.

    Nothing is optimised, so that every tensor is the source's own. Raises WorkloadError when
    inputs do not fit the model or ONNX Runtime cannot run it.
    """
    given = _checked(path, model, inputs)
    asked = [name for name in dict.fromkeys(tensors) if name not in given]
    if not asked:
        return given
    try:
        values = _session(model, asked).run(asked, given)
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors share no base class
        raise WorkloadError(f"{path}: ONNX Runtime cannot run the model: {error}") from None
    return {**given, **dict(zip(asked, values, strict=True))}


def runtime_shapes(
    path: Path, model: "ModelProto", tensors: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes that ONNX Runtime infers of the named tensors, where it can.

    It knows what its own operators do, which the standard's shape inference does not. Nothing is
    run. Raises WorkloadError when ONNX Runtime refuses the model.
    """
    try:
        found = {value.name: value.shape for value in _session(model, tensors).get_outputs()}
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors share no base class
        raise WorkloadError(f"{path}: ONNX Runtime refuses the model: {error}") from None
    return {
        name: tuple(shape)
        for name, shape in found.items()
        if all(isinstance(size, int) for size in shape)
    }


def _session(model: "ModelProto", tensors: Sequence[str]) -> Any:
    """Return the model as it stands, ready to run, with the named tensors as its outputs."""
    import onnx
    import onnxruntime

    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    del observed.graph.output[:]
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        observed.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,
    )
