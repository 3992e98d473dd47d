"""The fuzzer's targets with its seeds and with what Hypothesis makes of them; see tests/fuzz/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channelsq.layers.wire import codec
from tests.fuzz import targets
from tests.fuzz.seeds import SEEDS

FINDS = sorted(Path(targets.__file__).with_name("finds").glob("*"))

_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(autouse=True, scope="module")
def _server() -> Iterator[None]:
    yield
    if targets._server is not None:
        targets._server.close()
        targets._server = None


@pytest.mark.parametrize(("name", "number"), [(name, n) for name, made in SEEDS.items() for n in range(len(made()))])
def test_seeds(name: str, number: int) -> None:
    targets.TARGETS[name](SEEDS[name]()[number])


def test_finds() -> None:
    """Inputs that the fuzzer found once; a file's name begins with its target's."""
    for path in FINDS:
        targets.TARGETS[path.name.partition("-")[0]](path.read_bytes())


def damaged(name: str) -> st.SearchStrategy[bytes]:
    """A seed with a few bytes changed, put in or taken out."""
    changes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=4)

    def damage(seed: bytes, made: list[tuple[int, int, bytes]]) -> bytes:
        for start, length, new in made:
            start %= len(seed) + 1
            seed = seed[:start] + new + seed[start + length :]
        return seed

    return st.builds(damage, st.sampled_from(SEEDS[name]()), changes)


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_seeds(name: str) -> None:
    @given(damaged(name))
    @settings(max_examples=150)
    def hold(data: bytes) -> None:
        targets.TARGETS[name](data)

    hold()


_TEXT = st.text(st.characters(max_codepoint=255), max_size=12)

_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "Host", "Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "Expect", "Origin", "Cookie",
                "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions",
                "X-Forwarded-For", "X-Forwarded-Host",
            ]
        )
        | _TEXT,
        st.sampled_from(
            ["a", "Upgrade", "websocket", "keep-alive, Upgrade", "h2c", "close", "3", "chunked", "100-continue", "13",
             "dGhlIHNhbXBsZSBub25jZQ==", "a, b", "permessage-deflate", "permessage-deflate; client_max_window_bits"]
        )
        | _TEXT,
    ),
    max_size=10,
)  # fmt: skip


@given(
    st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "CONNECT"]),
    st.sampled_from(["/", "*", "http://a/", "/%0a", "/a?b=%ff"])
    | st.text(st.characters(max_codepoint=255), max_size=9),
    _HEADERS,
    st.integers(0, 255),
)
@settings(max_examples=150)
def test_header_soup_is_always_answered(method: str, target: str, headers: list[tuple[str, str]], cut: int) -> None:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    targets.handshake(bytes([cut]) + "\r\n".join(lines).encode("latin-1"))


_REPLIES = st.dictionaries(
    st.sampled_from(
        ["text", "bytes", "accept", "close", "reason", "subprotocol", "done", "status", "headers", "content",
         "more_content", "abort", "credit_channel"]
    ),
    _VALUES | st.sampled_from([200, 204, 304, 1000, [[b"a", b"b"]], [["content-length", "3"]]]),
    max_size=5,
)  # fmt: skip
_ENTRIES = st.lists(
    st.one_of(
        st.tuples(st.just(["s"]) | st.just(["h"]) | st.just(["s", "h"]), _REPLIES.map(codec.dumps), st.none()),
        st.tuples(st.just(["s"]), _REPLIES.map(codec.dumps), st.none() | st.text(max_size=3), st.integers(-1, 3)),
        st.tuples(_VALUES, _VALUES, _VALUES),
        _VALUES,
    ),
    max_size=6,
)


@given(_ENTRIES)
@settings(max_examples=150)
def test_whatever_envelopes_hold(entries: list[Any]) -> None:
    targets.envelopes(codec.dumps(entries))
