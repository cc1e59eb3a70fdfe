"""Canonical JSON form and digest shared by every specification type."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

__all__ = ["Spec", "canonical", "digest"]


def _array(value: np.ndarray) -> dict[str, Any]:
    # Boolean masks hash as packed bits, so a mask and its bytes can never collide.
    raw = np.packbits(value) if value.dtype == np.bool_ else np.ascontiguousarray(value)
    return {
        "dtype": value.dtype.str,
        "shape": list(value.shape),
        "sha256": hashlib.sha256(raw.tobytes()).hexdigest(),
    }


def canonical(value: Any) -> Any:
    """Reduce a specification to plain JSON values.

    Dataclasses become objects tagged with their class name, arrays become shape, dtype and a
    hash of their bytes. Raises TypeError for anything else, so nothing is hashed by accident.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() | np.floating():
            return float(value)
        case np.integer():
            return int(value)
        case Enum():
            return value.value
        case Fraction():
            return f"{value.numerator}/{value.denominator}"
        case bytes():
            return base64.b64encode(value).decode()
        case np.ndarray():
            return _array(value)
        case Mapping():
            return {
                str(k): canonical(v) for k, v in sorted(value.items(), key=lambda kv: str(kv[0]))
            }
        case tuple() | list():
            return [canonical(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (f.name for f in dataclasses.fields(value) if not f.name.startswith("_"))
        fields = {name: canonical(getattr(value, name)) for name in names}
        return {"type": type(value).__name__, **fields}
    raise TypeError(f"No canonical form for {type(value).__name__}")


def digest(value: Any) -> str:
    """Return the sha256 of the canonical JSON of `value`, as 64 hexadecimal digits."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Spec:
    """Mixin of every frozen specification: a canonical JSON form and a digest."""

    __slots__ = ()

    # Read by pydantic, which validates machine files: unknown keys are errors, types are strict.
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def to_json(self) -> dict[str, Any]:
        """Return the canonical JSON object of this specification."""
        return canonical(self)  # type: ignore[no-any-return]

    def digest(self) -> str:
        """Return the sha256 of the canonical JSON of this specification."""
        return digest(self)
