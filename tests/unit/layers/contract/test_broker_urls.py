"""URLs that cannot be read are refused before anything tries to connect."""

from __future__ import annotations

import pytest

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers import KombuChannelLayer, RedisChannelLayer
from channelsq.layers.contract.broker_urls import shown


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


SEVERAL = "redis://:secret@a:1/0;redis://:geheim@b:2/0"


def test_groups_need_one_redis() -> None:
    layer = KombuChannelLayer(url=SEVERAL)
    with pytest.raises(
        InvalidChannelLayerError, match=r"one Redis.*a:1/0;redis://.*b:2/0 is not one: set .*groups_url"
    ) as caught:
        _ = layer.groups_url
    assert "secret" not in str(caught.value)
    assert "geheim" not in str(caught.value)
    layer.forget_channel("a!b")  # nothing to forget
    assert KombuChannelLayer(url=SEVERAL, groups_url="redis://c").groups_url == "redis://c"


SENTINELS = "sentinel://:secret@a:1;sentinel://b:2/3"


@pytest.mark.parametrize("kind", [KombuChannelLayer, RedisChannelLayer])
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (SENTINELS, r"master_name is not set for the sentinels a:1, b:2: add \?master_name="),
        (f"{SENTINELS}?master_nme=m", "unknown option 'master_nme'; did you mean 'master_name'"),
        ("sentinel://:secret@a;sentinel://:geheim@b?master_name=m", "different passwords"),
        (f"{SENTINELS};redis://c", "stands beside|is no sentinel|needs a redis"),
    ],
)
def test_sentinels(kind: type[KombuChannelLayer], url: str, reason: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=reason) as caught:
        _ = kind(url=url).in_process
    assert "secret" not in str(caught.value)
    assert "geheim" not in str(caught.value)
    with pytest.raises(InvalidChannelLayerError, match=rf"'groups_url'\].*({reason})") as caught:
        kind(url="redis://host", groups_url=url)
    assert "secret" not in str(caught.value)


def test_sentinels_that_can_be_read() -> None:
    layer = KombuChannelLayer(url=SENTINELS, transport_options={"master_name": "m"})
    assert layer.is_one_redis
    assert layer.groups_url == SENTINELS
    options = layer.open_connection().transport_options or {}
    assert (options["master_name"], layer.url) == ("m", SENTINELS)
    layer = RedisChannelLayer(url=f"{SENTINELS}?master_name=m")
    assert layer.kombu_url == "sentinel-streams://:secret@a:1;sentinel-streams://b:2/3?master_name=m"
    assert layer.groups_url == f"{SENTINELS}?master_name=m"
    assert layer.is_on("sentinel://b:2/3;sentinel://a:1")
    assert not layer.is_on("sentinel://b:2/4;sentinel://a:1")
    assert not layer.is_on("redis://a:1/3")
    with pytest.raises(InvalidChannelLayerError, match="'m' in the URL and 'n' in the transport options"):
        _ = RedisChannelLayer(url=f"{SENTINELS}?master_name=m", transport_options={"master_name": "n"}).url


@pytest.mark.parametrize("url", ["redis://:secret@a:1;amqp://:geheim@b:2", "amqp://u:secret@host:x"])
def test_layers_for_redis_refuse_the_rest_without_its_password(url: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match="needs a redis:// or rediss:// URL, not") as caught:
        RedisChannelLayer(url=url)
    assert "secret" not in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://:secret@a:1/0", "redis://:**@a:1/0"),
        (SEVERAL, "redis://:**@a:1/0;redis://:**@b:2/0"),
        ("amqp://u:secret@host:x//", "amqp://…"),
    ],
)
def test_urls_for_people(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize("name", ["url", "groups_url"])
def test_what_is_no_text(name: str) -> None:
    config = {"url": "redis://host", name: 6379}
    with pytest.raises(InvalidChannelLayerError, match=rf"'{name}'.*not 6379"):
        KombuChannelLayer(**config)  # type: ignore[arg-type]
