from __future__ import annotations

import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsq.core import names

ALPHABET = string.ascii_letters + string.digits + "-_."


def is_channel_name(text: str) -> bool:
    """The rule of API.md, said another way."""
    plain, typed = text, [kind for kind in text if kind in "?!"]
    if typed:
        left, _, right = text.partition(typed[0])
        if len(typed) > 1 or not left or not right:
            return False
        plain = left + right
    return 0 < len(text) < 100 and bool(plain) and set(plain) <= set(ALPHABET)


@pytest.mark.parametrize(
    "name",
    ["a", "0", "-", ".", "websocket.receive", "http.request.body?Kx-_8", "send.9f!c41", "x" * 99, "a?" + "b" * 97],
    ids=str,
)  # fmt: skip
def test_channel_names(name: str) -> None:
    assert names.check_channel_name(name) is name
    assert names.check_channel_name(name, receive=True) is name


@pytest.mark.parametrize(
    "name",
    [
        "", "?", "!", "a?", "?a", "!a", "a!", "a!!b", "a?!b", "a!b?c", "a b", " a", "a\n", "a\x00", "a/b", "a:b",
        "naïve", "a\u0661", "x" * 100, "a!" + "b" * 98, 5, 5.0, None, True, b"a", bytearray(b"a"), ["a"], ("a",),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_channel_name_is_named_with_the_rule(name: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(repr(name))) as raised:
        names.check_channel_name(name)
    text = str(raised.value)
    assert ("ASCII letters" in text) if isinstance(name, str) else (f"not {type(name).__name__}" in text)


def test_a_prefix_may_be_read_but_not_sent_to() -> None:
    assert names.check_channel_name("websocket.send.9f!", receive=True) == "websocket.send.9f!"
    for name in ("websocket.send.9f!", "body?"):
        with pytest.raises(TypeError, match=re.escape(name)):
            names.check_channel_name(name)
    for name in ("body?", "!", "a!b!", "a?b!"):
        with pytest.raises(TypeError, match=re.escape(name)):
            names.check_channel_name(name, receive=True)


@given(st.text(alphabet=ALPHABET + "?!\n é", max_size=12) | st.text(max_size=110))
def test_channel_names_are_those_of_the_rule(text: str) -> None:
    try:
        names.check_channel_name(text)
    except TypeError:
        assert not is_channel_name(text)
    else:
        assert is_channel_name(text)


@given(st.text(alphabet=ALPHABET, min_size=1, max_size=99))
def test_group_names_are_channel_names_without_a_type(text: str) -> None:
    assert names.check_group_name(text) is text
    assert names.check_channel_name(text) is text


@pytest.mark.parametrize("name", ["", "a!b", "a?b", "a!", "chat room", "é", "a\n", "x" * 100, None, 3, b"a"], ids=repr)
def test_what_is_no_group_name(name: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(repr(name))) as raised:
        names.check_group_name(name)
    assert "group name" in str(raised.value)


def test_what_a_name_tells() -> None:
    assert names.is_process_channel("a.b!c")
    assert not names.is_process_channel("a?c")
    assert names.is_single_reader("a?c")
    assert not names.is_single_reader("a!c")
    assert names.process_part("a.b!c") == names.process_part("a.b!") == "a.b!"


@given(st.sampled_from("?!"), st.text(alphabet=ALPHABET, min_size=1, max_size=70))
def test_new_names_are_names(kind: str, stem: str) -> None:
    name = names.new_channel_name(stem + kind, "0123456789ab")
    assert names.check_channel_name(name) == name
    assert name.startswith(stem)
    assert name != names.new_channel_name(stem + kind, "0123456789ab")
    if kind == "!":
        assert names.process_part(name) == f"{stem}.0123456789ab!"
    else:
        assert name.startswith(f"{stem}?")


@pytest.mark.parametrize(
    "pattern",
    ["", "plain", "a?b", "a!b", "!", "?", "a?!", "a!?", "a b!", "é!", "a\n!", "x" * 99 + "!", None, 4, b"a!"],
    ids=repr,
)
def test_a_bad_pattern_is_named_itself(pattern: Any) -> None:
    # Not the random name that it would have become, which its author never wrote.
    with pytest.raises(TypeError, match=re.escape(repr(pattern))) as raised:
        names.new_channel_name(pattern, "0123456789ab")
    assert "pattern" in str(raised.value)


def test_how_long_a_pattern_may_be_is_said_and_true() -> None:
    with pytest.raises(TypeError, match="at most") as raised:
        names.new_channel_name("x" * 99 + "!", "0123456789ab")
    room = int(re.findall(r"at most (\d+)", str(raised.value))[0])
    assert len(names.new_channel_name("x" * room + "!", "0123456789ab")) == names.MAX_LENGTH
    with pytest.raises(TypeError):
        names.new_channel_name("x" * (room + 1) + "!", "0123456789ab")
