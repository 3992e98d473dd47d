from __future__ import annotations

import collections
import datetime
import decimal
import enum
import math
import re
from typing import Any, NamedTuple

import msgpack
import pytest
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from channelsq.exceptions import MessageTooLarge
from channelsq.layers.wire import codec

LIMIT = 1 << 20

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
MESSAGES = st.dictionaries(TEXT, VALUES, max_size=5)


def plain(value: Any) -> Any:
    """``value`` as it arrives: tuples are lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types: 1 is not True, nor 1.0, nor b"" an ""."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(MESSAGES)
def test_what_is_packed_is_unpacked(message: dict[str, Any]) -> None:
    unpacked = codec.unpack(codec.pack(message, LIMIT))
    assert same(unpacked, plain(message))
    # What arrived can be sent on, as ConsumeLater does.
    assert same(codec.unpack(codec.pack(unpacked, LIMIT)), unpacked)


ODD = st.sampled_from([2**63, -(2**63) - 1, {1: 2}, {"k": {b"": 1}}, {1}, msgpack.ExtType(1, b""), object()])
ODD_VALUES = st.recursive(
    SCALARS | ODD,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(TEXT | st.integers(), ODD_VALUES, max_size=5))
def test_a_glance_and_a_second_look_agree(message: dict[str, Any]) -> None:
    plain = codec._is_plain(message, 0)
    if plain:
        codec._check_message(message)
    else:  # it holds no subclasses, for which the glance is not enough
        with pytest.raises(TypeError):
            codec._check_message(message)


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308])
def test_odd_floats(value: float) -> None:
    unpacked = codec.unpack(codec.pack({"f": value}, LIMIT))["f"]
    assert unpacked == value
    assert math.copysign(1, unpacked) == math.copysign(1, value)
    assert math.isnan(codec.unpack(codec.pack({"f": math.nan}, LIMIT))["f"])


class Colour(enum.IntEnum):
    RED = 3


class Pair(NamedTuple):
    x: int
    y: bytes


def test_subclasses_arrive_as_what_they_are_underneath() -> None:
    message = collections.OrderedDict(
        safe=mark_safe("<b>"), colour=Colour.RED, pair=Pair(1, b"y"), counted=collections.Counter("aab")
    )
    unpacked = codec.unpack(codec.pack(message, LIMIT))
    assert same(unpacked, {"safe": "<b>", "colour": 3, "pair": [1, b"y"], "counted": {"a": 2, "b": 1}})


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        ({1}, "set"),
        (frozenset(), "frozenset"),
        (bytearray(b"x"), "bytearray"),
        (memoryview(b"x"), "memoryview"),
        (1j, "complex"),
        (decimal.Decimal(1), "Decimal"),
        (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), "datetime"),
        (gettext_lazy("yes"), "__proxy__"),
        (range(3), "range"),
        (collections.deque([1]), "deque"),
        (msgpack.ExtType(1, b""), "ExtType"),
        (Unprintable(), "Unprintable"),
        ({10**5000}, "set"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("nest", [lambda v: v, lambda v: [1, {"in": (v,)}]], ids=["top", "nested"])
def test_what_cannot_be_sent_is_named(value: Any, kind: str, nest: Any) -> None:
    with pytest.raises(TypeError) as raised:
        codec.pack({"fine": 1, "the key": nest(value)}, LIMIT)
    text = str(raised.value)
    assert "'the key'" in text
    assert kind in text
    assert "use None, bool, int, float, str, bytes, list, tuple or dict" in text
    assert len(text) < 400


def test_the_path_to_what_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match=re.escape("'a'['b'][1]['c']")):
        codec.pack({"a": {"b": [0, {"c": object()}]}}, LIMIT)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400, 10**5000], ids=["+", "-", "long", "huge"])
@pytest.mark.parametrize("nested", [False, True])
def test_integers_out_of_range(number: int, nested: bool) -> None:
    with pytest.raises(TypeError, match=r"'n'.*64 bit") as raised:
        codec.pack({"n": [number] if nested else number}, LIMIT)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("message", ["text", b"bytes", None, 5, [("a", 1)], (), {1}], ids=repr)
def test_only_dicts_are_messages(message: Any) -> None:
    with pytest.raises(TypeError, match=rf"must be a dict, not {type(message).__name__}"):
        codec.pack(message, LIMIT)


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), 1.5, True], ids=repr)
@pytest.mark.parametrize("nested", [False, True])
def test_only_str_keys(key: Any, nested: bool) -> None:
    with pytest.raises(TypeError, match=re.escape(f"{key!r} must be a str, not {type(key).__name__}")):
        codec.pack({"outer": {key: 1}} if nested else {key: 1}, LIMIT)


@pytest.mark.parametrize(
    "message", [{"ok": 1, "bad": "\ud800"}, {"ok": 1, "bad": [{"x": "\udfff"}]}, {"ok": 1, "bad": {"\ud800": 1}}]
)
def test_text_that_is_no_text_is_named(message: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"'bad'.*UTF-8"):
        codec.pack(message, LIMIT)
    with pytest.raises(TypeError, match="UTF-8"):
        codec.pack({"\ud800": 1}, LIMIT)


def nested(depth: int, leaf: Any = None) -> Any:
    value = leaf
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def test_depth() -> None:
    deep = {"a": nested(codec.MAX_DEPTH)}
    assert same(codec.unpack(codec.pack(deep, LIMIT)), deep)
    for depth in (codec.MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(TypeError, match="nested deeper than 64") as raised:
            codec.pack({"a": nested(depth)}, LIMIT)
        assert "'a'" in str(raised.value)
        assert len(str(raised.value)) < 200
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="nested"):
        codec.pack({"loop": loop}, LIMIT)


@given(st.integers(0, 300))
def test_the_limit_is_exact(size: int) -> None:
    message = {"b": b"x" * size}
    length = len(codec.pack(message, LIMIT))
    assert len(codec.pack(message, length)) == length
    with pytest.raises(MessageTooLarge) as raised:
        codec.pack(message, length - 1)
    assert (raised.value.size, raised.value.limit) == (length, length - 1)


@given(st.binary(max_size=200))
def test_hostile_bytes(packed: bytes) -> None:
    check_unpacked(packed)


@given(MESSAGES, st.data())
def test_damaged_messages(message: dict[str, Any], data: st.DataObject) -> None:
    packed = bytearray(codec.pack(message, LIMIT))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] = data.draw(st.integers(0, 255))
    check_unpacked(bytes(packed))
    check_unpacked(bytes(packed[:at]))
    check_unpacked(bytes(packed) + b"\x00")


def check_unpacked(packed: bytes) -> None:
    """Either a dict with str keys comes out, or ValueError; nothing else, whatever came."""
    try:
        message = codec.unpack(packed)
    except ValueError:
        return
    assert isinstance(message, dict)
    assert all(isinstance(key, str) for key in message)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x01",
        b"\x90",
        b"\xa1a",
        b"\x81\xc4\x01a\x01",  # a key of bytes
        b"\x81\x01\x01",  # a key of int
        b"\x81\xa1a",  # cut short
        b"\x80\x80",  # more than one
        b"\xdf\xff\xff\xff\xff",  # a map that says it is huge
        b"\xc6\xff\xff\xff\xff",  # bytes that say they are huge
        b"\x81\xa1a\xd4\x01\x00",  # an extension type
        b"\x81\xa1a\xc7\x00\xff",  # a timestamp of no length
        b"\x81\xa1a\xa1\xff",  # no UTF-8
        b"\xc1",  # never used
        b"\x91" * 5000,
        b"\x81\xa1a" * 5000 + b"\x80",
    ],
    ids=lambda packed: packed[:12].hex(),
)
def test_what_is_no_packed_message(packed: bytes) -> None:
    with pytest.raises(ValueError):
        codec.unpack(packed)


def test_what_a_message_is_not_is_said() -> None:
    for packed, says in ((b"\x90", "but a list"), (b"\x81\xc4\x01a\x01", "its key b'a' is not a str")):
        with pytest.raises(ValueError, match=re.escape(says)):
            codec.unpack(packed)
    with pytest.raises(ValueError) as raised:
        codec.unpack(msgpack.packb({b"x" * 100_000: 1}))
    assert len(str(raised.value)) < 200


def test_large_messages_outgrow_the_packers_first_buffer() -> None:
    for size in (1000, 1024, 1025, 5000, 900_000):
        message = {"b": b"x" * size, "t": ["y" * size]}
        assert codec.unpack(codec.pack(message, 1 << 21)) == message


def test_never_pickle() -> None:
    import pickle

    with pytest.raises(ValueError):
        codec.unpack(pickle.dumps({"a": 1}))
