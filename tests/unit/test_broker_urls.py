"""URLs that cannot be read are refused before anything tries to connect."""

from __future__ import annotations

import pytest

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers import KombuChannelLayer


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redi://host:1/0", "redi://.*No such transport: redi"),
        ("redis://host:75x0/0", "redis://.*'75x0'"),
        ("redis://host:99999/0", "redis://.*0-65535"),
        ("redis://host:1/abc", "redis://.*'abc'"),
        ("amqp://good;amqp://host:x", "amqp://.*'x'"),
        ("rediss//:secret@host", "'host' has no scheme"),
    ],
)
def test_brokers(url: str, reason: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=f"{reason}.*write it as") as caught:
        _ = KombuChannelLayer(url=url).in_process
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["redis://host", "redis://:p%2Fq@host:1/2", "redis+socket:///tmp/a?virtual_host=1", "amqp://a//;amqp://b//"],
)
def test_brokers_that_can_be_read(url: str) -> None:
    assert KombuChannelLayer(url=url).url == url


@pytest.mark.parametrize("url", ["http://host", "localhost", "redis://host:x/0"])
def test_groups(url: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"'groups_url'.*write it as"):
        KombuChannelLayer(url="amqp://host", groups_url=url)


@pytest.mark.parametrize("name", ["url", "groups_url"])
def test_what_is_no_text(name: str) -> None:
    config = {"url": "redis://host", name: 6379}
    with pytest.raises(InvalidChannelLayerError, match=rf"'{name}'.*not 6379"):
        KombuChannelLayer(**config)  # type: ignore[arg-type]
