"""The signing key: made once, kept private."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from joserfc.jwk import ECKey, OKPKey

from services.billing.tenants.tenant import Key
from services.billing.tenants.tokens import SigningKey

NOW = datetime.now(UTC).replace(microsecond=0)
KEY = Key("key-1", "acme", "", ("developer",), NOW, NOW + timedelta(days=1))


def test_a_missing_key_is_made_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key.json"
    SigningKey.from_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_key_that_is_there_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    assert SigningKey.from_file(path).jwks() == SigningKey.from_file(path).jwks()


def test_processes_that_make_it_at_once_end_up_with_one(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    with ThreadPoolExecutor(8) as pool:
        sets = set(pool.map(lambda _: SigningKey.from_file(path).jwks(), range(32)))
    assert len(sets) == 1


def test_the_published_set_holds_no_private_part(tmp_path: Path) -> None:
    [public] = orjson.loads(SigningKey.from_file(tmp_path / "key.json").jwks())["keys"]
    assert set(public) == {"kty", "crv", "x", "kid", "use", "alg"}


def test_a_token_names_its_key_to_the_one_who_signed_it_alone(tmp_path: Path) -> None:
    ours, theirs = (SigningKey.from_file(tmp_path / name) for name in ("ours", "theirs"))
    assert ours.key_id_of(ours.sign(KEY)) == "key-1"
    assert theirs.key_id_of(ours.sign(KEY)) is None
    assert ours.key_id_of("nonsense") is None
    assert ours.key_id_of("") is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        orjson.dumps(ECKey.generate_key("P-256").as_dict(private=True)),
        orjson.dumps(OKPKey.generate_key("Ed448").as_dict(private=True)),
        orjson.dumps(OKPKey.generate_key("Ed25519").as_dict(private=False)),
    ],
    ids=["empty", "no key", "a list", "another curve", "another algorithm", "half a key"],
)
def test_a_file_that_holds_no_such_key_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"key\.json"):
        SigningKey.from_file(path)
