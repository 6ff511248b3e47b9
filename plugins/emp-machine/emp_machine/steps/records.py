"""What a step leaves behind to know its own work by: a small file beside what it made, written last and at once."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["read_record", "sha256_of", "write_record"]

_BLOCK = 2**20


def read_record(file: Path) -> dict[str, Any]:
    """What was written; empty if nothing was, or nothing that can be read."""
    try:
        read = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def write_record(file: Path, record: dict[str, Any]) -> None:
    """Put it there, whole: whoever is killed before the end leaves the old one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.part")
    with fresh.open("w", encoding="utf-8") as opened:
        json.dump(record, opened, indent=1, sort_keys=True)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(file)


def sha256_of(file: Path) -> str:
    """The checksum of a file's contents, in hex. Reads all of it."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
