"""Private keys in files of their own: JWKs (RFC 8037) over Ed25519."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey


def signing_key_from(path: Path) -> OKPKey:
    """Read the private JWK at `path`; make one, readable by its owner alone, when there is no file.

    Processes that make it at the same time end up with the same key.

    Raises:
        ValueError: If the file holds anything but a private Ed25519 JWK.
    """
    if not path.exists():
        _create(path)
    try:
        key = OKPKey.import_key(orjson.loads(path.read_bytes()))
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a JWK (RFC 8037)") from error
    if not key.is_private or key.curve_name != "Ed25519":
        raise ValueError(f"{path} is not a private Ed25519 key")
    key.ensure_kid()
    return key


def _create(path: Path) -> None:
    """Write a new key under its name in one step: whoever is second keeps the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    draft.touch(mode=0o600)
    try:
        draft.write_bytes(orjson.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True)))
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()
