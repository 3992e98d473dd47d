"""URLs that name Sentinels: the form of Celery, with the primary's name in the query.

``sentinel://:password@host1:26379;sentinel://host2:26379;sentinel://host3:26379/0?master_name=mymaster``

User, password and database are those of the Redis servers.  Each may stand in any of the URLs, and applies to all.
Options in the query that begin with ``sentinel_`` are for the connections to the Sentinels.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

#: The URL schemes of Kombu's own transport, and of the transport on streams.
SCHEMES = frozenset({"sentinel", "sentinel-streams"})

#: The port of a Sentinel whose URL has none.
PORT = 26379

_FORM = "sentinel://:password@host1:26379;sentinel://host2:26379/0?master_name=mymaster"

#: Options of a TLS connection, as redis-py names them.
_TLS = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"})
#: The options of the connections to the servers.
OF_SERVERS = _TLS | {"ssl"}

#: The options of the connections to the Sentinels, which have ``sentinel_`` in front in a URL.
OF_SENTINELS = frozenset({"username", "password"}) | OF_SERVERS
_KNOWN = {"master_name", *OF_SERVERS, *(f"sentinel_{name}" for name in OF_SENTINELS)}

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class SentinelUrl:
    """The content of a URL.

    Args:
        scheme: one of :data:`SCHEMES`.
        sentinels: host and port of each Sentinel.
        username, password, db: of the Redis servers.
        master_name: the name under which the Sentinels know the primary; None if the URL leaves it out.
        tls: redis-py's options of a TLS connection to the servers; None for plain connections.
        sentinel_options: redis-py's options of the connections to the Sentinels.
    """

    scheme: str
    sentinels: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = None
    db: int = 0
    master_name: str | None = None
    tls: Mapping[str, Any] | None = None
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bare(self) -> str:
        """The URLs without password and options, which Kombu can parse."""
        return ";".join(f"{self.scheme}://{_netloc(host)}:{port}/{self.db}" for host, port in self.sentinels)

    @property
    def kombu_url(self) -> str:
        """The URLs without options, each with the password: Kombu reads one of them."""
        login = f"{quote(self.username or '', '')}:{quote(self.password or '', '')}@"
        login = login if self.username or self.password else ""
        return ";".join(f"{self.scheme}://{login}{_netloc(host)}:{port}/{self.db}" for host, port in self.sentinels)

    def options(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return Kombu's transport options with those of the URL added.

        Args:
            chosen: the project's own.

        Raises:
            ValueError: both name a primary, and not the same; or neither does.
        """
        theirs = chosen.get("master_name")
        if self.master_name and theirs and theirs != self.master_name:
            raise ValueError(
                f"master_name is {self.master_name!r} in the URL and {theirs!r} in the transport options; leave one out"
            )
        name = self.master_name or theirs
        if not name:
            raise missing_name(self.sentinels)
        found = {**chosen, "master_name": name}
        if self.sentinel_options:
            found["sentinel_kwargs"] = {**self.sentinel_options, **(chosen.get("sentinel_kwargs") or {})}
        return found

    def is_same(self, other: SentinelUrl) -> bool:
        """Return whether two URLs are of one database: by the same Sentinels, in any order."""
        return (
            self.scheme == other.scheme
            and set(self.sentinels) == set(other.sentinels)
            and (self.db, self.username) == (other.db, other.username)
            and (not self.master_name or not other.master_name or self.master_name == other.master_name)
        )


def is_sentinel_url(url: str) -> bool:
    """Return whether a URL, or the first of several, names a Sentinel."""
    return url.partition("://")[0] in SCHEMES


def missing_name(sentinels: Iterable[tuple[str, int]]) -> ValueError:
    """Return the error for Sentinels without the name of a primary."""
    places = ", ".join(f"{host}:{port}" for host, port in sentinels)
    return ValueError(
        f"master_name is not set for the sentinels {places}: add ?master_name=… to the URL, or set it in the transport "
        "options (for Celery's broker on sentinel:// only there); it is the name in their configuration (sentinel "
        "monitor <name> …), such as mymaster"
    )


def read_sentinel_url(url: str) -> SentinelUrl:
    """Return the content of one URL, or of several that are separated by semicolons.

    Raises:
        ValueError: the URL cannot be used; the text has no password.
    """
    parts = [_Part(each) for each in url.split(";") if each]
    scheme = parts[0].scheme
    for part in parts:
        if part.scheme != scheme:
            raise ValueError(f"{part.scheme}:// stands beside {scheme}://; all of the URLs are sentinels': {_FORM}")
    options: dict[str, str] = {}
    for part in parts:
        for name, value in part.options.items():
            if options.setdefault(name, value) != value:
                raise ValueError(f"the URLs of the sentinels have different values of {name}; write it once")
    servers, theirs = _divided(options)
    return SentinelUrl(
        scheme,
        tuple(dict.fromkeys((part.host, part.port) for part in parts)),
        username=_one("users", (part.username for part in parts)),
        password=_one("passwords", (part.password for part in parts)),
        db=_one("databases", (part.db for part in parts)) or 0,
        master_name=options.get("master_name") or None,
        tls=_tls_of(servers),
        sentinel_options=theirs,
    )


class _Part:
    """One URL.

    Args:
        url: the URL.
    """

    def __init__(self, url: str) -> None:
        self.scheme, separator, rest = url.partition("://")
        if not separator or self.scheme not in SCHEMES:
            shown = f"{self.scheme}://" if separator else "a URL without a scheme"  # the rest may hold a password
            raise ValueError(f"{shown} is no sentinel; write it as {_FORM}")
        split = urlsplit(f"//{rest}")
        try:
            port = split.port
        except ValueError as error:
            raise ValueError(
                f"the port of a {self.scheme}:// URL is not a number from 1 to 65535; write it as {_FORM}, with "
                "special characters in the password percent-encoded"
            ) from error
        if not split.hostname:
            raise ValueError(f"a {self.scheme}:// URL has no host; write it as {_FORM}")
        self.host, self.port = unquote(split.hostname), port or PORT
        self.username = unquote(split.username) if split.username else None
        self.password = unquote(split.password) if split.password else None
        path = split.path.strip("/")
        if path and not path.isdecimal():
            raise ValueError(f"the database {path!r} of a {self.scheme}:// URL is not a number; write it as {_FORM}")
        self.db = int(path) if path else None
        self.options = dict(parse_qsl(split.query, keep_blank_values=True))
        for name in self.options:
            if name not in _KNOWN:
                found = difflib.get_close_matches(name, _KNOWN, 1)
                hint = f"did you mean {found[0]!r}?" if found else f"known are {', '.join(sorted(_KNOWN))}"
                raise ValueError(f"a {self.scheme}:// URL has the unknown option {name!r}; {hint}")


def _one(what: str, values: Iterable[Any]) -> Any:
    found = list(dict.fromkeys(value for value in values if value is not None))
    if len(found) > 1:
        raise ValueError(f"the URLs of the sentinels have different {what}; write it once: the servers share it")
    return found[0] if found else None


def _netloc(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _divided(options: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options for the servers, and redis-py's keyword arguments for the Sentinels."""
    servers = {name: _value(name, value) for name, value in options.items() if name in OF_SERVERS}
    theirs = {
        name.removeprefix("sentinel_"): _value(name, value)
        for name, value in options.items()
        if name.startswith("sentinel_")
    }
    if any(name in _TLS for name in theirs):
        theirs.setdefault("ssl", True)
    for prefix, chosen in (("", servers), ("sentinel_", theirs)):
        if "ssl_keyfile" in chosen and "ssl_certfile" not in chosen:
            raise ValueError(
                f"a sentinel:// URL has {prefix}ssl_keyfile without {prefix}ssl_certfile; write both, or neither"
            )
    return servers, theirs


def _value(name: str, value: str) -> Any:
    if not name.endswith(("ssl", "ssl_check_hostname")):
        return value
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise ValueError(f"the option {name} of a sentinel:// URL is true or false, not {value!r}") from None


def _tls_of(options: dict[str, Any]) -> dict[str, Any] | None:
    if not options.pop("ssl", bool(options)):
        return None
    return {"ssl_cert_reqs": "required", **options}
