"""The signing key: made once, kept private."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from joserfc.jwk import ECKey, OKPKey

from services.billing.signing_keys import main, promote, retire, stage
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


def test_a_key_that_is_staged_is_published_and_signs_once_it_is_promoted(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    ours = SigningKey.from_file(path)
    before = ours.sign(KEY)
    new = stage(path)
    assert [key["kid"] for key in orjson.loads(ours.jwks())["keys"]] == [_kid(before), new]
    assert _kid(ours.sign(KEY)) == _kid(before)
    promote(path, at_once=True)
    after = ours.sign(KEY)
    assert _kid(after) == new
    assert [ours.key_id_of(token) for token in (before, after)] == ["key-1", "key-1"]
    retire(path, _kid(before))
    assert [ours.key_id_of(token) for token in (before, after)] == [None, "key-1"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_that_edges_may_not_know_yet_is_not_promoted_nor_the_one_that_signs_retired(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    signs = _kid(SigningKey.from_file(path).sign(KEY))
    with pytest.raises(ValueError, match="stage one"):
        promote(path)
    stage(path)
    with pytest.raises(ValueError, match="wait 1"):
        promote(path)
    with pytest.raises(ValueError, match="sign no longer"):
        retire(path, signs)


def test_half_an_edit_leaves_the_keys_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    ours = SigningKey.from_file(path)
    before = ours.jwks()
    path.write_text("{")
    assert ours.jwks() == before


def test_the_command_line_lists_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key.json"
    main([str(path), "stage"])
    first, second = capsys.readouterr().out.split("\n")[:2]
    assert first.endswith(" signs")
    assert second.endswith(" accepted")
    main([str(path), "promote", "--at-once"])
    main([str(path), "retire", first.split()[0]])
    assert capsys.readouterr().out.split("\n")[-2] == f"{second.split()[0]} signs"
    with pytest.raises(SystemExit, match="signing_keys: "):
        main([str(path), "retire", "unheard-of"])


def _kid(token: str) -> str:
    head = token.partition(".")[0]
    return str(orjson.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])
