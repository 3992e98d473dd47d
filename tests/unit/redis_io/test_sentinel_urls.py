"""URLs that name Sentinels."""

from __future__ import annotations

from typing import Any

import pytest

from channelsq.redis_io.pool_params import chosen_primary, url_params
from channelsq.redis_io.redis_internals import PrimaryConnection, PrimarySSLConnection
from channelsq.redis_io.sentinel_urls import is_sentinel_url, read_sentinel_url

THREE = "sentinel://:s%2Fecret@a:1;sentinel://b;sentinel://[::1]:3/4?master_name=mymaster"


def test_celerys_form_with_the_name_in_the_query() -> None:
    place = read_sentinel_url(THREE)
    assert place.sentinels == (("a", 1), ("b", 26379), ("::1", 3))
    assert (place.username, place.password, place.db, place.master_name) == (None, "s/ecret", 4, "mymaster")
    assert place.tls is None
    assert place.sentinel_options == {}


def test_kombu_gets_the_password_and_the_database_in_each_url() -> None:
    """It reads one of them, and another one after a failure."""
    place = read_sentinel_url(THREE)
    assert place.kombu_url == (
        "sentinel://:s%2Fecret@a:1/4;sentinel://:s%2Fecret@b:26379/4;sentinel://:s%2Fecret@[::1]:3/4"
    )
    assert "s%2Fecret" not in place.bare
    assert place.options({"lease": 3}) == {"lease": 3, "master_name": "mymaster"}


def test_options_of_servers_and_sentinels_stand_apart() -> None:
    place = read_sentinel_url(
        "sentinel-streams://anna:pw@a/0?master_name=m&ssl=true&ssl_ca_certs=/ca.pem&ssl_check_hostname=false"
        "&sentinel_username=bert&sentinel_password=geheim&sentinel_ssl_cert_reqs=none"
    )
    assert place.username == "anna"
    assert place.tls == {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}
    theirs = {"username": "bert", "password": "geheim", "ssl": True, "ssl_cert_reqs": "none"}
    assert place.sentinel_options == theirs
    assert place.options({})["sentinel_kwargs"] == theirs
    assert place.options({"sentinel_kwargs": {"password": "other"}})["sentinel_kwargs"]["password"] == "other"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sentinel://a;redis://:secret@b", "redis:// is no sentinel"),
        ("sentinel://a;sentinel-streams://b", "sentinel-streams:// stands beside sentinel://"),
        ("sentinel://:secret@a:port", "not a number from 1 to 65535"),
        ("sentinel://:secret@a:99999", "not a number from 1 to 65535"),
        ("sentinel://:sec/ret@a", "not a number from 1 to 65535"),
        ("sentinel://:26379", "has no host"),
        ("sentinel://a/mymaster", "the database 'mymaster' of a sentinel:// URL is not a number"),
        ("sentinel://a/0;sentinel://b/1", "different databases"),
        ("sentinel://:secret@a;sentinel://:other@b", "different passwords"),
        ("sentinel://a?master_name=x;sentinel://b?master_name=y", "different values of master_name"),
        ("sentinel://a?master_nme=x", "unknown option 'master_nme'; did you mean 'master_name'?"),
        ("sentinel://a?zzz=x", "unknown option 'zzz'; known are master_name, sentinel_password"),
        ("sentinel://a?sentinel_ssl_keyfile=/k", "has sentinel_ssl_keyfile without sentinel_ssl_certfile; write both"),
        ("sentinel://a?ssl=perhaps", "ssl of a sentinel:// URL is true or false, not 'perhaps'"),
    ],
)
def test_what_is_wrong_is_named(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match="sentinel") as caught:
        read_sentinel_url(url)
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_primary_has_one_name() -> None:
    place = read_sentinel_url(THREE)
    assert place.options({"master_name": "mymaster"})["master_name"] == "mymaster"
    with pytest.raises(ValueError, match="'mymaster' in the URL and 'other' in the transport options"):
        place.options({"master_name": "other"})
    with pytest.raises(ValueError, match=r"master_name is not set for the sentinels a:26379, b:2: add \?master_name="):
        read_sentinel_url("sentinel://a;sentinel://b:2").options({})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("sentinel://a;sentinel://b", "sentinel://b;sentinel://a:26379/0?master_name=x", True),
        ("sentinel://a?master_name=x", "sentinel://a?master_name=y", False),
        ("sentinel://a/1", "sentinel://a/0", False),
        ("sentinel://a", "sentinel://a;sentinel://b", False),
        ("sentinel://:p@a", "sentinel://:q@a", True),
    ],
)
def test_urls_of_one_database(one: str, other: str, same: bool) -> None:
    assert read_sentinel_url(one).is_same(read_sentinel_url(other)) is same


def test_other_urls_are_not_of_sentinels() -> None:
    assert not is_sentinel_url("redis://sentinel://")
    assert is_sentinel_url(THREE)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "master_name is not set"),
        ({"master_name": 3}, "master_name is 3"),
        ({"master_name": "m", "sentinel_kwargs": "pw"}, "sentinel_kwargs is a str"),
        ({"master_name": "m", "min_other_sentinels": -1}, "min_other_sentinels is -1"),
    ],
)
def test_transport_options_are_checked(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        chosen_primary([("a", 1)], options)


def test_pools_of_a_url() -> None:
    plain = url_params(THREE)
    assert issubclass(plain["connection_class"], PrimaryConnection)
    assert (plain["db"], plain["password"]) == (4, "s/ecret")
    assert "host" not in plain
    assert plain["primary"] is url_params(THREE)["primary"]
    assert issubclass(url_params(THREE + "&ssl=yes")["connection_class"], PrimarySSLConnection)
    assert url_params("redis://h:1/2")["host"] == "h"
