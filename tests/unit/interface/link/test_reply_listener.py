"""The sizes of reads from the reply queues."""

from __future__ import annotations

import pytest

from channelsq.interface.link.reply_listener import _FIRST, _MOST, _MOST_BYTES, next_count


def read(*sizes: int) -> list[list[object]]:
    return [[[b"1-1", [b"m", b"x" * size]] for size in sizes]]


@pytest.mark.parametrize(
    ("count", "sizes", "then"),
    [
        (_FIRST, [100] * _FIRST, 2 * _FIRST),  # small ones, and there may be more
        (_FIRST, [100] * (_FIRST - 1), _FIRST),  # there are no more
        (_MOST, [100] * _MOST, _MOST),
        (16, [_MOST_BYTES // 8] * 16, 7),  # twice too much
        (1, [_MOST_BYTES * 2], 1),
        (2, [_MOST_BYTES // 3] * 2, 2),  # neither few nor many bytes
    ],
)
def test_fewer_large_ones_more_small_ones(count: int, sizes: list[int], then: int) -> None:
    assert next_count(count, read(*sizes)) == then


def test_of_several_queues_all_count() -> None:
    assert next_count(8, [*read(*[_MOST_BYTES // 8] * 8), *read(*[_MOST_BYTES // 8] * 8)]) == 3
