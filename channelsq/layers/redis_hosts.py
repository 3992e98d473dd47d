"""``CONFIG["hosts"]``: each form in which a project may name its Redis servers, turned into a URL.

No I/O.  A URL is the only form that the rest of channelsq knows.
"""

from __future__ import annotations

import difflib
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from kombu.transport.redis import Channel

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.contract.broker_urls import shown
from channelsq.redis_io.pool_params import OPTIONS
from channelsq.redis_io.sentinel_urls import OF_SENTINELS, OF_SERVERS, read_sentinel_url

#: A server: its URL, host and port, or Sentinels with the name of their primary.
Host = str | tuple[str, int] | Mapping[str, Any]

#: The keys of a host with Sentinels.
_KEYS = frozenset({"sentinels", "master_name", "sentinel_kwargs", "username", "password", "db", *OF_SERVERS})

#: The keys of redis-py's that are options of Kombu's transport, for all hosts together.
_OF_TRANSPORT = frozenset({*Channel.from_transport_options, *OPTIONS}) - _KEYS

_FORM = '{"sentinels": [("localhost", 26379)], "master_name": "mymaster"}'

#: A host name, an IPv4 or an IPv6 address.
_NAME = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+(%[\w.-]+)?")


def urls_of(hosts: object, key: str = "hosts") -> list[str]:
    """Return the URLs of servers.

    Args:
        hosts: a list of servers.
        key: the key of ``CONFIG``, for errors.

    Raises:
        InvalidChannelLayerError: a value cannot be used; the text has no password.
    """
    if not isinstance(hosts, (list, tuple)) or not hosts:
        raise InvalidChannelLayerError(
            f"RedisChannelLayer's CONFIG[{key!r}] must be a list of URLs, (host, port) or dicts with Sentinels, such "
            f'as ["redis://localhost:6379/0"], [("localhost", 6379)] or [{_FORM}], '
            f"not {_described(hosts) if hosts else 'an empty one'}"
        )
    return [_url_of(host, f"RedisChannelLayer's CONFIG[{key!r}]", place) for place, host in enumerate(hosts)]


def _url_of(host: object, where: str, place: int) -> str:
    if isinstance(host, str):
        return host
    if isinstance(host, Mapping):
        return _sentinel_url(host, f"{where}[{place}]")
    address = _address(host)
    if address is not None:
        return f"redis://{address}/0"
    raise InvalidChannelLayerError(
        f"{where} must have a URL in a str, (host, port) with a number for the port, such as "
        f'("localhost", 6379), or a dict with Sentinels, such as {_FORM}, not {_described(host)}'
    )


def _address(host: object) -> str | None:
    """Return ``host:port`` as in a URL; None if the value is no pair of a name and a port."""
    match host:
        case [str(name), int(port)] if type(port) is int and 0 < port < 65536 and _NAME.fullmatch(name):
            return f"{f'[{name}]' if ':' in name else name}:{port}"
    return None


def _described(value: object) -> str:
    """Return a value in ``hosts`` for an error, without a password."""
    if isinstance(value, str):
        return f"the str {shown(value)!r}" if "://" in value else f"the str {value.rpartition('@')[2]!r}"
    if isinstance(value, (list, tuple)) and len(value) == 2 and "@" not in str(value):
        return repr(tuple(value))
    return f"a {type(value).__name__}"


# -- Sentinels, as channels_redis names them


def _sentinel_url(host: Mapping[str, Any], where: str) -> str:
    _check_keys(host, where)
    options = {"master_name": _text(host, "master_name", where)}
    options |= _options(host, OF_SERVERS, where)
    options |= {f"sentinel_{name}": value for name, value in _sentinel_options(host, where).items()}
    username, password = (_text(host, name, where, "") for name in ("username", "password"))
    login = f"{quote(username, '')}:{quote(password, '')}@" if username or password else ""
    db = host.get("db") or 0
    if type(db) is not int or db < 0:
        raise InvalidChannelLayerError(f"{where}['db'] must be the number of a database, such as 0, not {db!r}")
    urls = [f"sentinel://{login}{address}/{db}" for address in _sentinels(host["sentinels"], where)]
    url = f"{';'.join(urls)}?{urlencode(options)}"
    try:
        read_sentinel_url(url)
    except ValueError as error:
        raise InvalidChannelLayerError(f"{where} cannot be used: {error}") from error
    return url


def _check_keys(host: Mapping[str, Any], where: str) -> None:
    """Raise InvalidChannelLayerError if a key is missing or unknown."""
    missing = [name for name in ("sentinels", "master_name") if name not in host]
    if missing:
        raise InvalidChannelLayerError(
            f"{where} is a dict without {missing[0]!r}; a dict names Sentinels, such as {_FORM}; write a server as a "
            'URL, such as "redis://:password@localhost:6379/0"'
        )
    for name in host:
        if name in _OF_TRANSPORT:
            raise InvalidChannelLayerError(
                f"{where} has the key {name!r}; move it to CONFIG['transport_options'], which are for every host"
            )
        if name not in _KEYS:
            raise InvalidChannelLayerError(f"{where} has the unknown key {name!r}; {_hint(name, _KEYS)}")


def _sentinels(sentinels: object, where: str) -> Sequence[str]:
    if not isinstance(sentinels, (list, tuple)) or not sentinels:
        raise InvalidChannelLayerError(
            f"{where}['sentinels'] must be a list of (host, port), such as [(\"localhost\", 26379)], "
            f"not {_described(sentinels) if sentinels else 'an empty one'}"
        )
    found = []
    for each in sentinels:
        address = _address(each)
        if address is None:
            raise InvalidChannelLayerError(
                f"{where}['sentinels'] must have (host, port) with a number for the port, such as "
                f'("localhost", 26379), not {_described(each)}'
            )
        found.append(address)
    return found


def _sentinel_options(host: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return the options of the connections to the Sentinels, as the query of a URL has them."""
    where = f"{where}['sentinel_kwargs']"
    chosen = host.get("sentinel_kwargs") or {}
    if not isinstance(chosen, Mapping):
        raise InvalidChannelLayerError(
            f"{where} must be a dict of redis-py's options for the connections to the Sentinels, such as "
            f'{{"password": …}}, not a {type(chosen).__name__}'
        )
    for name in chosen:
        if name in OF_SENTINELS:
            continue
        if name in _OF_TRANSPORT:
            raise InvalidChannelLayerError(
                f"{where} has the key {name!r}; move it to CONFIG['transport_options']['sentinel_kwargs'], which is "
                "for the Sentinels of every host"
            )
        raise InvalidChannelLayerError(f"{where} has the unknown key {name!r}; {_hint(name, OF_SENTINELS)}")
    login = {name: _text(chosen, name, where, "") for name in ("username", "password")}
    return {**{name: value for name, value in login.items() if value}, **_options(chosen, OF_SERVERS, where)}


def _options(chosen: Mapping[str, Any], names: frozenset[str], where: str) -> dict[str, str]:
    """Return the options of TLS that are set, as the query of a URL has them."""
    found: dict[str, str] = {}
    for name in sorted(names & chosen.keys()):
        value = chosen[name]
        if isinstance(value, bool):
            found[name] = "true" if value else "false"
        elif isinstance(value, ssl.VerifyMode):
            found[name] = value.name.removeprefix("CERT_").lower()
        elif name == "ssl_cert_reqs" and value is None:
            found[name] = "none"
        elif isinstance(value, str):
            found[name] = value
        elif value is not None:
            raise InvalidChannelLayerError(
                f"{where}[{name!r}] must be a str, True or False, not a {type(value).__name__}"
            )
    return found


def _text(chosen: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    """Return a text of a dict; its value is in no error, as it may be a password."""
    value = chosen.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (not value and default is None):
        described = "empty" if value == "" else f"a {type(value).__name__}"
        raise InvalidChannelLayerError(f"{where}[{name!r}] must be a str that is not empty, not {described}")
    return value


def _hint(name: object, known: frozenset[str]) -> str:
    found = difflib.get_close_matches(str(name), known, 1)
    return f"did you mean {found[0]!r}?" if found else f"known are {', '.join(sorted(known))}"
