"""Bearer keys. The file holds their SHA-256; a key itself is shown once and kept nowhere."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PREFIX = "rvk_"


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    keys: list[_Key] = Field(max_length=1000)


class Keys:
    """The keys of a file."""

    def __init__(self, keys: list[_Key]) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key.name) for key in keys]

    @classmethod
    def load(cls, file: Path) -> Keys:
        """Read the file.

        Raises:
            ValueError: others may read it, or it is no key file.
        """
        return cls(_read(file))

    def name_of(self, authorization: str | None) -> str | None:
        """Name of the key in an ``Authorization`` header; None if there is none that we know.

        Every key is compared, each in constant time.
        """
        scheme, _, given = (authorization or "").partition(" ")
        digest = hashlib.sha256(given.strip().encode()).digest()
        found = None
        for known, name in self._keys:
            if hmac.compare_digest(known, digest):
                found = name
        return found if scheme.lower() == "bearer" else None


def add_key(file: Path, name: str) -> str:
    """Make a key, add it to the file (made if absent) and return it: the only time it is seen.

    Raises:
        ValueError: the name is taken or malformed.
    """
    keys = _read(file) if file.exists() else []
    if any(key.name == name for key in keys):
        raise ValueError(f"name must be new, {name!r} has a key in {file}")
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        keys.append(_Key(name=name, sha256=hashlib.sha256(key.encode()).hexdigest()))
    except ValidationError:
        raise ValueError(f"name must be 1 to 64 of A-Z a-z 0-9 _ . -, got {name!r}") from None
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".keys-")  # mode 0600
    try:
        with os.fdopen(handle, "w") as out:
            json.dump(_File(keys=keys).model_dump(), out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return key


def _read(file: Path) -> list[_Key]:
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise ValueError(f"{file} must be mode 0600 (chmod 600), got {mode:04o}")
    try:
        return _File.model_validate_json(file.read_bytes()).keys
    except ValidationError as error:
        raise ValueError(f"{file} is no key file: {error.error_count()} errors") from None
