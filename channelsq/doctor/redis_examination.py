"""The Redis servers of a layer: version, memory, persistence, role, latency, clock, connections."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from channelsq.doctor.findings import Finding, error, ok, warning
from channelsq.doctor.rights import check_rights, user_of
from channelsq.layers.eviction import DROPPED
from channelsq.layers.redis_servers import RedisServer, is_old, version_of
from channelsq.redis_core.server_errors import NEEDED

#: The number of timed round trips, and the seconds from which their median is reported.
_PINGS, _SLOW = 20, 0.005

#: Seconds by which this machine's clock may differ from the server's, as in the log.
_CLOCKS_APART = 5.0

#: Parts of a limit from which the use is reported; the second is an error.
_FULL, _VERY_FULL = 0.8, 0.95

#: An answer of INFO.
_Info = dict[str, Any]


class ServerExamination:
    """The examination of one Redis of a layer.

    Args:
        alias: the layer's alias.
        server: the Redis.
    """

    def __init__(self, alias: str, server: RedisServer) -> None:
        self._alias = alias
        self._server = server
        self._what = {
            (True, True): "channels and groups",
            (True, False): "channels",
            (False, True): "groups",
        }[server.has_channels, server.has_groups]

    def __call__(self) -> Iterator[Finding]:
        """Check the server; an error that ends the examination is its last finding."""
        for finding in self._look():
            yield replace(finding, data={"server": self._server.shown, **finding.data})

    def _look(self) -> Iterator[Finding]:
        where = f"The Redis of the {self._what}, {self._server.shown},"
        yield from self._check_sentinels()
        try:
            with self._server.connected() as client:
                client.ping()
                yield ok("redis.reachable", f"{where} answers.", self._alias)
                yield from self._examine(client)
        except (redis.AuthenticationError, NoPermissionError) as refused:
            yield error(
                "redis.reachable",
                f"{where} does not let this process in: {refused}",
                "Correct user and password in the URL; write special characters percent-encoded.",
                self._alias,
            )
        except (redis.RedisError, OSError) as away:
            yield error(
                "redis.reachable",
                f"{where} does not answer: {away}",
                "Start it, correct the URL in CHANNEL_LAYERS, or open the way to it (firewall, private network).",
                self._alias,
            )

    def _check_sentinels(self) -> Iterator[Finding]:
        primary = self._server.primary
        if primary is None:
            return
        problems = [problem for _, problem in primary.states() if problem is not None]
        count = len(primary.sentinels)
        name = f"{count} sentinels name the primary {primary.name!r}"
        if problems:
            yield warning(
                "redis.sentinels",
                f"{count - len(problems)} of {name}: {'; '.join(problems)}.",
                "Start those that are missing: more than half of all must agree on a failover.",
                self._alias,
                sentinels=count,
                problems=len(problems),
            )
        elif count < 3:
            yield warning(
                "redis.sentinels",
                f"The URL names {count} sentinel{'' if count == 1 else 's'}.",
                "Run three or more, on different machines, and name all of them in the URL.",
                self._alias,
                sentinels=count,
                problems=0,
            )
        else:
            yield ok("redis.sentinels", f"{name}.", self._alias, sentinels=count, problems=0)

    def _examine(self, client: Any) -> Iterator[Finding]:
        yield from self._check_version(client)
        yield from self._check_info(client)
        yield from self._check_latency(client)
        yield from self._check_clock(client)
        yield from check_rights(self._alias, self._server, client)

    def _check_info(self, client: Any) -> Iterator[Finding]:
        try:
            names = ("memory", "stats", "persistence", "replication", "clients")
            sections = {name: client.info(name) for name in names}
        except redis.ResponseError as refused:
            yield warning(
                "redis.info",
                f"The user may not run INFO, so that memory, policy, persistence and role are not known: {refused}",
                f"ACL SETUSER {user_of(client)} +info, or look at the server yourself.",
                self._alias,
            )
            return
        yield from self._check_role(sections["replication"])
        yield from self._check_policy(sections["memory"])
        yield from self._check_memory(sections["memory"])
        yield from self._check_evicted(sections["stats"])
        yield from self._check_persistence(client, sections["persistence"])
        yield from self._check_clients(sections["clients"])

    # -- version and role

    def _check_version(self, client: Any) -> Iterator[Finding]:
        version = version_of(client) or "a server of an unknown version"
        try:
            old = self._server.has_streams and is_old(client)
        except redis.ResponseError:  # scripts are forbidden, which the check of rights reports
            old = False
        if old:
            yield error(
                "redis.version",
                f"It is {version}; channels need {NEEDED}.",
                "Upgrade the server, use Valkey, or use channelsq.layers.KombuChannelLayer.",
                self._alias,
                version=version,
            )
        else:
            yield ok("redis.version", f"It is {version}.", self._alias, version=version)

    def _check_role(self, section: _Info) -> Iterator[Finding]:
        role = section.get("role", "master")
        if role != "master":
            yield error(
                "redis.role",
                f"It is a {role}, which takes no writes.",
                "Put the URL of the master into CHANNEL_LAYERS.",
                self._alias,
                role=role,
            )
        else:
            replicas = section.get("connected_slaves", 0)
            text = f"It is a master with {replicas} replica{'' if replicas == 1 else 's'}."
            yield ok("redis.role", text, self._alias, replicas=replicas)

    # -- memory

    def _check_policy(self, section: _Info) -> Iterator[Finding]:
        policy, limit, used = (section.get(name) for name in ("maxmemory_policy", "maxmemory", "used_memory"))
        policy = str(policy or "unknown")
        dropped = DROPPED.get(policy.partition("-")[0])
        numbers = {"policy": policy, "maxmemory": limit, "used": used}
        if dropped and limit:
            yield error(
                "redis.policy",
                f"maxmemory-policy is {policy}: when the server is full it drops {dropped}.",
                "Set maxmemory-policy to noeviction.",
                self._alias,
                **numbers,
            )
        elif dropped:
            yield warning(
                "redis.policy",
                f"maxmemory-policy is {policy}, which does nothing as long as maxmemory is 0.",
                "Set maxmemory-policy to noeviction before you set maxmemory.",
                self._alias,
                **numbers,
            )
        else:
            yield ok("redis.policy", f"maxmemory-policy is {policy}.", self._alias, **numbers)

    def _check_memory(self, section: _Info) -> Iterator[Finding]:
        limit, used = section.get("maxmemory"), section.get("used_memory")
        if not limit or not isinstance(used, int):
            yield ok("redis.memory", f"It uses {_size(used)}, without a limit of its own (maxmemory).", self._alias)
            return
        part = used / limit
        text = f"It uses {_size(used)} of {_size(limit)} ({part:.0%})."
        remedy = "Raise maxmemory, or look with `manage.py channels` for what fills it: a full server refuses messages."
        if part >= _VERY_FULL:
            yield error("redis.memory", text, remedy, self._alias, used=used, maxmemory=limit)
        elif part >= _FULL:
            yield warning("redis.memory", text, remedy, self._alias, used=used, maxmemory=limit)
        else:
            yield ok("redis.memory", text, self._alias, used=used, maxmemory=limit)

    def _check_evicted(self, section: _Info) -> Iterator[Finding]:
        evicted = section.get("evicted_keys", 0)
        if evicted:
            yield warning(
                "redis.evicted",
                f"It has dropped {evicted} keys to make room since it was started: messages, groups or leases.",
                "Set maxmemory-policy to noeviction, and give it more memory.",
                self._alias,
                evicted=evicted,
            )
        else:
            yield ok("redis.evicted", "It has dropped no key to make room since it was started.", self._alias)

    def _check_clients(self, section: _Info) -> Iterator[Finding]:
        connected, most = section.get("connected_clients", 0), section.get("maxclients")
        if most and connected / most >= _FULL:
            yield warning(
                "redis.clients",
                f"{connected} of {most} connections are taken (maxclients).",
                "Raise maxclients, or run fewer processes; CONFIG['connections'] bounds those of a process.",
                self._alias,
                connected=connected,
                maxclients=most,
            )
        else:
            limit = f" of {most}" if most else ""
            yield ok("redis.clients", f"{connected}{limit} connections are taken.", self._alias, connected=connected)

    # -- persistence

    def _check_persistence(self, client: Any, section: _Info) -> Iterator[Finding]:
        failed = [
            name
            for name, field in (
                ("snapshot (RDB)", "rdb_last_bgsave_status"),
                ("append-only file", "aof_last_write_status"),
            )
            if section.get(field, "ok") != "ok"
        ]
        if failed:
            yield error(
                "redis.persistence",
                f"Its last {' and '.join(failed)} could not be written; it then refuses all writes (MISCONF).",
                "Look at its log: its disk may be full, or its directory not writable.",
                self._alias,
            )
            return
        appends, snapshots = bool(section.get("aof_enabled")), _snapshots(client)
        kept = [name for name, on in (("an append-only file", appends), ("snapshots", snapshots)) if on]
        if kept:
            yield ok("redis.persistence", f"It keeps its data in {' and '.join(kept)}.", self._alias, kept=kept)
        elif snapshots is None:
            yield ok(
                "redis.persistence",
                "It has no append-only file; whether it writes snapshots cannot be asked (CONFIG is forbidden).",
                self._alias,
            )
        else:
            yield warning(
                "redis.persistence",
                "It keeps nothing on disk: its restart loses all messages that wait, and groups until their sockets' "
                "interface servers have written them again.",
                "Set appendonly yes, unless that loss is acceptable.",
                self._alias,
            )

    # -- latency and clock

    def _check_latency(self, client: Any) -> Iterator[Finding]:
        times = []
        for _ in range(_PINGS):
            began = time.perf_counter()
            client.ping()
            times.append(time.perf_counter() - began)
        median, longest = statistics.median(times), max(times)
        text = f"A round trip takes {median * 1000:.2f} ms (median of {_PINGS}; longest {longest * 1000:.2f} ms)."
        numbers = {"median_ms": round(median * 1000, 3), "longest_ms": round(longest * 1000, 3)}
        if median > _SLOW:
            remedy = "Run it near interface servers and workers, in the same zone: each message takes some round trips."
            yield warning("redis.latency", text, remedy, self._alias, **numbers)
        else:
            yield ok("redis.latency", text, self._alias, **numbers)

    def _check_clock(self, client: Any) -> Iterator[Finding]:
        began = time.time()
        try:
            seconds, microseconds = client.time()
        except redis.ResponseError:
            return  # the check of rights reports it
        middle = (began + time.time()) / 2
        apart = middle - (seconds + microseconds / 1_000_000)
        side = "ahead of" if apart > 0 else "behind"
        text = f"This machine's clock is {abs(apart):.3f} s {side} the server's."
        if abs(apart) > _CLOCKS_APART:
            remedy = "Set both by NTP: delays, and Kombu's visibility_timeout, go by the clocks of machines."
            yield warning("redis.clock", text, remedy, self._alias, seconds=round(apart, 3))
        else:
            yield ok("redis.clock", text, self._alias, seconds=round(apart, 3))


def _snapshots(client: Any) -> bool | None:
    """Return whether a server writes snapshots by itself; None if that is forbidden to ask."""
    try:
        return bool(client.config_get("save").get("save"))
    except redis.ResponseError:
        return None


def _size(number: Any) -> str:
    if not isinstance(number, int):
        return "an unknown amount of memory"
    value = float(number)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
