from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from services.cache.codec import COMPRESS_FROM_BYTES, DEFLATED, ENCRYPTED, PLAIN, Codec, EntryUnusable
from services.cache.encryption import Cipher, Locked
from services.cache.sealing import SEAL_BYTES, Seals, secret_in
from tests.support.cache_calls import stored as answer

SEALS = Seals(b"a secret of the cache's own")
CODEC = Codec(SEALS)
CIPHER = Cipher(b"a key to encrypt with")
ENCRYPTING = Codec(SEALS, CIPHER)


def sealed(form: bytes, body: bytes) -> bytes:
    """An entry whose seal is right, whatever its body."""
    return form + SEALS.seal("acme", "k", form + body) + body


def flaw(entry: bytes, tenant_id: str = "acme", place: str = "k", codec: Codec = CODEC) -> str:
    with pytest.raises(EntryUnusable) as caught:
        codec.unpack(entry, tenant_id, place)
    return caught.value.flaw


@pytest.mark.parametrize("text", ["", "short", "длинный ответ " * 5000])
def test_an_answer_survives_packing(text: str) -> None:
    assert CODEC.unpack(CODEC.pack(answer(text), "acme", "k"), "acme", "k") == answer(text)


def test_only_long_answers_are_compressed() -> None:
    assert CODEC.pack(answer("short"), "acme", "k")[:1] == PLAIN
    packed = CODEC.pack(answer("word " * COMPRESS_FROM_BYTES), "acme", "k")
    assert packed[:1] == DEFLATED
    assert len(packed) < COMPRESS_FROM_BYTES


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\x07future format",
        sealed(PLAIN, b"\xff\xff\xff"),
        sealed(DEFLATED, b"not deflate"),
        sealed(DEFLATED, zlib.compress(b"\0" * 40 * 1024 * 1024)),
    ],
    ids=["empty", "unknown format", "no message", "no deflate stream", "bomb"],
)
def test_what_is_no_answer_is_damaged(entry: bytes) -> None:
    assert flaw(entry) == "damaged"


@pytest.mark.parametrize("form", [b"\x01", b"\x02"])
def test_an_entry_of_an_earlier_version_is_outdated(form: bytes) -> None:
    assert flaw(form + answer().SerializeToString()) == "outdated"


def test_every_changed_bit_is_noticed() -> None:
    entry = CODEC.pack(answer(), "acme", "k")
    for position in range(8, len(entry) * 8):
        changed = bytearray(entry)
        changed[position // 8] ^= 1 << position % 8
        assert flaw(bytes(changed)) == "tampered"


def test_an_entry_cut_short_is_noticed() -> None:
    entry = CODEC.pack(answer(), "acme", "k")
    assert {flaw(entry[:length]) for length in range(1, len(entry))} == {"tampered"}


def test_an_entry_is_good_for_its_own_place_tenant_and_secret_alone() -> None:
    entry = CODEC.pack(answer(), "acme", "k")
    assert flaw(entry, place="k2") == "tampered"
    assert flaw(entry, tenant_id="rival") == "tampered"
    assert flaw(entry, codec=Codec(Seals(b"the secret of another cache"))) == "tampered"


def test_a_place_and_an_entry_cannot_trade_bytes() -> None:
    assert SEALS.seal("acme", "ab", b"c") != SEALS.seal("acme", "a", b"bc")
    assert len(SEALS.seal("acme", "ab", b"c")) == SEAL_BYTES


@pytest.mark.parametrize("text", ["short", "длинный ответ " * 5000])
def test_an_encrypted_answer_is_read_with_its_key_and_shows_nothing(text: str) -> None:
    entry = ENCRYPTING.pack(answer(text), "acme", "k")
    assert ENCRYPTING.unpack(entry, "acme", "k") == answer(text)
    assert entry != ENCRYPTING.pack(answer(text), "acme", "k")
    assert text[:5].encode() not in entry


def test_an_encrypted_answer_is_locked_for_who_has_not_its_key() -> None:
    entry = ENCRYPTING.pack(answer(), "acme", "k")
    assert flaw(entry) == "locked"
    assert flaw(entry, codec=Codec(SEALS, Cipher(b"another key of the cache"))) == "locked"
    assert flaw(entry, tenant_id="rival", codec=ENCRYPTING) == "tampered"
    assert flaw(sealed(ENCRYPTED, b"short"), codec=ENCRYPTING) == "locked"


def test_what_was_stored_before_encryption_is_read_all_the_same() -> None:
    assert ENCRYPTING.unpack(CODEC.pack(answer(), "acme", "k"), "acme", "k") == answer()


def test_a_cipher_binds_a_message_to_its_tenant_and_place() -> None:
    encrypted = CIPHER.encrypt("acme", "k", b"message")
    for tenant_id, place in (("rival", "k"), ("acme", "k2")):
        with pytest.raises(Locked):
            CIPHER.decrypt(tenant_id, place, encrypted)


def test_a_person_has_another_pseudonym_in_each_tenant() -> None:
    assert SEALS.pseudonym("acme", "ann") == SEALS.pseudonym("acme", "ann") != SEALS.pseudonym("rival", "ann")
    assert SEALS.pseudonym("acme", "") == ""


def test_the_secret_of_a_folder_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    secret = secret_in(tmp_path / "new")
    assert secret_in(tmp_path / "new") == secret
    (file,) = (tmp_path / "new").iterdir()
    assert file.stat().st_mode & 0o077 == 0
