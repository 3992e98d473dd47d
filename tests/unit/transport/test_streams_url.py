"""The URL of a Redis, as providers give it, for the transport on streams."""

from __future__ import annotations

import pytest

from channelsq.transport import streams_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:6379/0", "redis-streams://h:6379/0"),
        ("rediss://:p%40@h:6380?ssl_cert_reqs=none", "rediss-streams://:p%40@h:6380?ssl_cert_reqs=none"),
        ("redis+socket:///run/redis.sock", "redis-streams+socket:///run/redis.sock"),
        ("unix:///run/redis.sock", "redis-streams+socket:///run/redis.sock"),
        ("sentinel://a:1/0;sentinel://b:2", "sentinel-streams://a:1/0;sentinel-streams://b:2"),
        ("redis-streams://h/1", "redis-streams://h/1"),
    ],
)
def test_each_scheme_has_its_counterpart(url: str, expected: str) -> None:
    assert streams_url(url) == expected
    assert streams_url(expected) == expected


@pytest.mark.parametrize("url", ["amqp://u:secret@h//", "u:secret@h:6379", "", "redis://a;amqp://secret@b"])
def test_what_is_no_redis_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="is no Redis") as caught:
        streams_url(url)
    assert "secret" not in str(caught.value)
