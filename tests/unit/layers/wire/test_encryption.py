"""Encryption of messages between processes."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers import IPCChannelLayer, KombuChannelLayer, RedisChannelLayer
from channelsq.layers.wire import codec, encryption
from channelsq.layers.wire.encryption import KEY, SHORTEST, Encryption, checked_keys, is_sealed
from channelsq.layers.wire.signing import Refused
from tests.support.logs import action_of

OLD, NEW = b"o" * 32, b"n" * 32
HELLO = {"text": "hello", "bytes": b"\xff"}


@pytest.fixture
def cipher() -> Encryption:
    return Encryption("channelsq", [NEW, OLD])


def test_what_is_encrypted_is_read(cipher: Encryption) -> None:
    assert cipher.open_bare("q", cipher.bare("q", b"body")) == b"body"
    sealed = codec.unpack(cipher.content("q", codec.dumps(HELLO)))
    assert is_sealed(sealed)
    assert cipher.open_content("q", sealed) == HELLO
    assert cipher.open_content("q", cipher.sealed_content("q", HELLO)) == HELLO
    assert cipher.refused == 0


def test_nothing_can_be_read_without_the_key(cipher: Encryption) -> None:
    for body in (cipher.bare("q", codec.dumps(HELLO)), cipher.content("q", codec.dumps(HELLO))):
        assert b"hello" not in body
        assert b"text" not in body


def test_the_same_message_twice_differs(cipher: Encryption) -> None:
    assert cipher.bare("q", b"body") != cipher.bare("q", b"body")


def test_a_message_is_little_longer(cipher: Encryption) -> None:
    assert len(cipher.bare("q", bytes(10_000))) == 10_000 + 1 + 16 + 12 + 16 + 3


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    """The phases of a rotation: add the new key behind, put it in front, remove the old one."""
    old, added, turned, new = (Encryption("p", keys) for keys in ([OLD], [OLD, NEW], [NEW, OLD], [NEW]))
    for sender, readers in ((old, [old, added]), (added, [old, added, turned]), (turned, [added, turned, new])):
        body = sender.bare("q", b"body")
        for reader in readers:
            assert reader.open_bare("q", body) == b"body"
    with pytest.raises(Refused, match="none of CONFIG"):
        new.open_bare("q", old.bare("q", b"body"))


@pytest.mark.parametrize("change", ["cut", "flip", "version", "salt", "queue", "prefix", "use", "empty"])
def test_what_was_changed_is_refused(cipher: Encryption, change: str, caplog: pytest.LogCaptureFixture) -> None:
    token = codec.loads(cipher.bare("q", b"body"))
    queue, reader = "q", cipher
    if change == "cut":
        token = token[:-1]
    elif change == "flip":
        token = token[:-1] + bytes([token[-1] ^ 1])
    elif change == "version":
        token = b"\x02" + token[1:]
    elif change == "salt":
        token = token[:1] + bytes(16) + token[17:]
    elif change == "queue":
        queue = "another"
    elif change == "prefix":
        reader = Encryption("another", [NEW, OLD])
    elif change == "use":
        token = cipher.sealed_content("q", HELLO)[KEY]
    else:
        token = b""
    with pytest.raises(Refused, match="it cannot be decrypted"):
        reader.open_bare(queue, codec.dumps(token))
    assert reader.refused == 1
    (record,) = caplog.records
    assert action_of(record) == "undecrypted_refused"
    assert record.getMessage().startswith(f"a message for {queue} was refused: it cannot be decrypted")


def test_what_is_not_encrypted_is_refused(cipher: Encryption) -> None:
    counted: list[None] = []
    cipher.listener = lambda: counted.append(None)
    with pytest.raises(Refused, match="it is not encrypted, where CONFIG") as raised:
        cipher.open_bare("q", codec.dumps([]))
    assert raised.value.reason == str(raised.value)
    for content in (HELLO, {}, {KEY: "text"}, {KEY: b"", "more": 1}):
        with pytest.raises(Refused, match="it is not encrypted"):
            cipher.open_content("q", content)
        assert cipher.content_of("q", content) is None
    assert len(counted) == cipher.refused == 5


def test_without_keys_encrypted_messages_are_refused(cipher: Encryption) -> None:
    plain = Encryption("channelsq")
    assert not plain.encrypts
    assert plain.open_bare("q", b"\x90") == b"\x90"
    assert plain.open_content("q", HELLO) is HELLO
    with pytest.raises(Refused, match=r"it is encrypted, and CONFIG.* is missing here"):
        plain.open_bare("q", cipher.bare("q", b"body"))
    with pytest.raises(Refused, match=r"it is encrypted, and CONFIG.* is missing here"):
        plain.open_content("q", cipher.sealed_content("q", HELLO))


def test_a_broken_bin_is_refused(cipher: Encryption) -> None:
    with pytest.raises(Refused):
        cipher.open_bare("q", b"\xc6\xff\xff")


def test_each_process_and_each_2_to_the_30_messages_have_a_key(
    cipher: Encryption, monkeypatch: pytest.MonkeyPatch
) -> None:
    def salt() -> bytes:
        token: bytes = codec.loads(cipher.bare("q", b"body"))
        assert cipher.open_bare("q", codec.dumps(token)) == b"body"
        return token[1:17]

    first = salt()
    assert salt() == first
    assert cipher._own is not None
    cipher._own.left = 0
    second = salt()
    assert second != first
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert salt() not in (first, second)


def test_derived_keys_are_bounded(cipher: Encryption, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "_MOST_SALTS", 3)
    for _ in range(10):
        cipher._own = None
        assert cipher.open_bare("q", cipher.bare("q", b"body")) == b"body"
    assert len(cipher._ciphers) == 3


# -- the setting


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("k" * 40, "must be a list of keys, not a str"),
        ({"k" * 40: 1}, "must be a list of keys, not a dict"),
        (["k" * 40, 5], r"\[1\] must be a str or bytes, not a int"),
        (["short"], rf"\[0\] has 5 characters; a key needs at least {SHORTEST}"),
        ([""], r"\[0\] has 0 characters"),
        (["k" * 40, "k" * 40], "has a key twice"),
    ],
)
def test_malformed_keys(value: Any, problem: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=problem) as raised:
        RedisChannelLayer(url="redis://127.0.0.1:1/0", symmetric_encryption_keys=value)
    assert "symmetric_encryption_keys" in str(raised.value)
    assert "secrets.token_urlsafe" in str(raised.value)
    assert "kkk" not in str(raised.value), "no key is shown"


@pytest.mark.parametrize("value", [None, [], ()])
def test_no_keys(value: Any) -> None:
    assert checked_keys(value) == []
    assert not RedisChannelLayer(url="redis://127.0.0.1:1/0").protection.is_on


def test_keys_as_text_and_bytes() -> None:
    assert checked_keys(("é" * 32, b"b" * 32)) == ["é".encode() * 32, b"b" * 32]


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(InvalidChannelLayerError, match=r'pip install "channelsq\[encryption\]"'):
        KombuChannelLayer(url="amqp://", symmetric_encryption_keys=["k" * 32])
    assert checked_keys([]) == []


def test_the_layers_with_a_wire_encrypt(tmp_path: Any) -> None:
    keys = ["k" * 32]
    assert IPCChannelLayer(path=tmp_path / "ipc", symmetric_encryption_keys=keys).protection.encryption.encrypts
    assert RedisChannelLayer(url="redis://127.0.0.1:1/0", symmetric_encryption_keys=keys).protection.is_on
    memory = KombuChannelLayer(url="memory://", symmetric_encryption_keys=keys)
    assert not memory.protection.is_on, "nothing leaves the process"
