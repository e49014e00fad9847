"""Private keys in files of their own: JWKs (RFC 8037) over Ed25519."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey


def signing_keys_from(path: Path) -> list[OKPKey]:
    """The keys at `path`, as `read_signing_keys` reads them.

    When there is no file one key is made, readable by its owner alone; processes that make it at the same time end up
    with the same.

    Raises:
        ValueError: If the file holds anything but private Ed25519 JWKs.
    """
    if not path.exists():
        _create(path)
    return read_signing_keys(path)


def read_signing_keys(path: Path) -> list[OKPKey]:
    """Read the private JWK, or JWK Set, at `path`: its first key signs, the others' signatures are good too.

    Raises:
        OSError: If there is no such file.
        ValueError: If it holds anything but private Ed25519 JWKs.
    """
    try:
        held = orjson.loads(path.read_bytes())
        keys = [OKPKey.import_key(each) for each in held.get("keys", [held])]
    except (AttributeError, JoseError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a JWK (RFC 8037) or a set of them") from error
    if not keys or any(not key.is_private or key.curve_name != "Ed25519" for key in keys):
        raise ValueError(f"{path} is not a private Ed25519 key or a set of them")
    for key in keys:
        key.ensure_kid()
    return keys


def write_signing_keys(path: Path, keys: Sequence[OKPKey]) -> None:
    """Replace the file in one step; nobody but its owner can ever read it."""
    draft = _draft(path, {"keys": [key.as_dict(private=True) for key in keys]})
    draft.replace(path)


def _create(path: Path) -> None:
    """Write a new key under its name in one step: whoever is second keeps the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path, OKPKey.generate_key("Ed25519").as_dict(private=True))
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def _draft(path: Path, held: object) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    draft.touch(mode=0o600)
    draft.write_bytes(orjson.dumps(held))
    return draft
