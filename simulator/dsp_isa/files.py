"""Program files: magic, version, header, instruction words and a checksum over all of them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from simulator.dsp_isa.code import Words
from workloads.paths import absence

__all__ = ["VERSION", "ProgramFile", "read_program", "write_program"]

MAGIC: Final = b"SLDSP\x00"
VERSION: Final = 3
_PREFIX: Final = len(MAGIC) + 2 + 4  # magic, version, length of the header
_CHECKSUM: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProgramFile:
    """What a file holds: the words, the machine's digest, free slots by channel, free notes."""

    name: str
    arch_digest: str
    words: Words
    tokens: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


def write_program(path: Path, program: ProgramFile) -> None:
    """Write `program` to `path`; words are little-endian, the checksum is sha256."""
    header = json.dumps(
        {
            "name": program.name,
            "arch_digest": program.arch_digest,
            "words": len(program.words),
            "tokens": dict(program.tokens),
            "notes": dict(program.notes),
        },
        sort_keys=True,
    ).encode()
    prefix = MAGIC + VERSION.to_bytes(2, "little") + len(header).to_bytes(4, "little")
    body = prefix + header + program.words.astype("<u4").tobytes()
    path.write_bytes(body + hashlib.sha256(body).digest())


def read_program(path: Path) -> ProgramFile:
    """Return the program in `path`.

    Raises ValueError naming the file if it is no program, of another version, truncated or
    corrupt.
    """
    if why := absence(path):
        raise ValueError(f"Program file {str(path)!r} {why}")
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise ValueError(f"{str(path)!r} is not a program file")
    version = int.from_bytes(content[len(MAGIC) : len(MAGIC) + 2], "little")
    if version != VERSION:
        raise ValueError(f"Program file {str(path)!r} has version {version}; this reads {VERSION}")
    head_end = _PREFIX + int.from_bytes(content[_PREFIX - 4 : _PREFIX], "little")
    body, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    if hashlib.sha256(body).digest() != checksum:
        raise ValueError(f"Program file {str(path)!r} is truncated or corrupt: checksum differs")
    header = json.loads(body[_PREFIX:head_end])
    return ProgramFile(
        name=header["name"],
        arch_digest=header["arch_digest"],
        words=np.frombuffer(body[head_end:], dtype="<u4").astype(np.uint32),
        tokens=header["tokens"],
        notes=header["notes"],
    )
