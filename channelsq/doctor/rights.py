"""The rights of the layer's Redis user: each command of the layer is tried, on the doctor's own keys."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from channelsq.doctor.findings import Finding, error, ok, warning
from channelsq.layers.redis_servers import RedisServer
from channelsq.redis_core.commands import Command
from channelsq.redis_core.operations import exchange
from channelsq.redis_io.away import ServerAway, as_away
from channelsq.redis_io.blocking import carry_out

#: Milliseconds after which the doctor's keys expire, should it die.
_LIFETIME = 60_000

_GROUP = "channelsq-doctor"


def check_rights(alias: str, server: RedisServer, client: Any) -> Iterator[Finding]:
    """Try the commands that the layer needs; a server that refuses to write is reported as well."""
    name = f"channelsq-doctor-{secrets.token_hex(6)}"
    keys = _keys(server, name)
    commands = [*_for_everything(), *_for_channels(server, keys), *_for_groups(server, keys)]
    missing: dict[str, None] = {}
    refusal: ServerAway | None = None
    try:
        replies = carry_out(client.connection_pool, exchange(*commands))
    except ServerAway as away:
        replies, refusal = [], away
    for command, reply in zip(commands, replies, strict=False):
        if isinstance(reply, NoPermissionError):
            missing[_missing(command, reply)] = None
        elif isinstance(reply, ResponseError):
            refusal = refusal or as_away(reply)
    for key in keys.values():  # one by one, as the user may not touch some of them
        with contextlib.suppress(RedisError):
            client.delete(key)
    yield from _findings(alias, server, client, list(missing), refusal)


def _findings(
    alias: str, server: RedisServer, client: Any, missing: list[str], refusal: ServerAway | None
) -> Iterator[Finding]:
    if missing:
        commands = [each for each in missing if not each.startswith("~")]
        patterns = [each for each in missing if each.startswith("~")]
        user = user_of(client)
        given = " ".join([*(f"+{each}" for each in commands), *patterns])
        denied = [f"run {', '.join(commands)}"] if commands else []
        denied += [f"use the keys {', '.join(each[1:] for each in patterns)}"] if patterns else []
        yield error(
            "redis.rights",
            f"The user {user} may not {', nor '.join(denied)}.",
            f"ACL SETUSER {user} {given}",
            alias,
            missing=missing,
        )
    elif refusal is not None:
        yield error(
            "redis.writes",
            f"It refuses to write: {refusal}",
            "Look at its memory, disk and role, above.",
            alias,
        )
    else:
        yield ok("redis.rights", "The user may run all commands that the layer needs.", alias)
    if server.has_streams:
        yield from _optional(alias, client)


def _optional(alias: str, client: Any) -> Iterator[Finding]:
    try:
        client.execute_command("CLIENT", "UNBLOCK", client.execute_command("CLIENT", "ID"))
    except NoPermissionError:
        yield warning(
            "redis.unblock",
            "The user may not run CLIENT ID and CLIENT UNBLOCK: a worker that ends waits for the end of its poll.",
            f"ACL SETUSER {user_of(client)} +client|id +client|unblock",
            alias,
        )


def _missing(command: Command, denied: NoPermissionError) -> str:
    """Return the argument for ``ACL SETUSER``: a command, or a pattern of keys."""
    if "key" in str(denied):
        own = [str(each) for each in command[1:] if "channelsq-doctor" in str(each)]
        return f"~{own[0].partition('channelsq-doctor')[0].removesuffix('{')}*" if own else f"~{command[1]!s}"
    parts = [str(each).lower() for each in command[:2]]
    return "|".join(parts) if parts[0] in ("xgroup", "xinfo", "script") else parts[0]


def user_of(client: Any) -> str:
    """Return the name of a client's Redis user."""
    try:
        name = client.execute_command("ACL", "WHOAMI")
    except ResponseError:
        return str(client.connection_pool.connection_kwargs.get("username") or "default")
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _keys(server: RedisServer, name: str) -> dict[str, str]:
    layer = server.layer
    start = str(layer.transport_options.get("global_keyprefix", ""))
    queue = layer.queue_prefix + name
    return {
        "stream": f"{start}stream:{queue}",
        "lease": f"{start}stream-lease:{name}",
        "dead": f"{start}stream-dead:{queue}",
        "list": f"{start}{queue}",
        "unacked": f"{start}{queue}.unacked",
        "index": f"{start}{queue}.unacked_index",
        "mutex": f"{start}{queue}.unacked_mutex",
        "group": f"{layer.prefix}:group:{{{name}}}",
        "expiry": f"{layer.prefix}:group:{{{name}}}:expiry",
        "member": f"{layer.prefix}:member:{name}",
        "sockets": f"{layer.prefix}:sockets:{name}",
        "process": f"{layer.prefix}:interface:{name}",
        "worker": f"{layer.prefix}:worker:{name}",
    }


def _for_everything() -> Iterator[Command]:
    yield ("PING",)
    yield ("MULTI",)
    yield ("EXEC",)
    yield ("TIME",)
    yield "EVAL", "return 1", 0
    yield "SCRIPT", "LOAD", "return 1"
    yield "EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0
    yield "SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"  # redis-py's, before scripts in a pipeline
    yield "SCAN", 0, "MATCH", "channelsq-doctor-nothing", "COUNT", 1


def _for_channels(server: RedisServer, keys: dict[str, str]) -> Iterator[Command]:
    if not server.has_channels:
        return
    if not server.has_streams:
        yield from _for_lists(server, keys)
        return
    stream = keys["stream"]
    yield "XADD", stream, "1-1", "m", "1"
    yield "PEXPIRE", stream, _LIFETIME
    yield "XGROUP", "CREATE", stream, _GROUP, "0", "MKSTREAM"
    yield "XGROUP", "CREATECONSUMER", stream, _GROUP, "one"
    yield "XREADGROUP", "GROUP", _GROUP, "one", "COUNT", 1, "STREAMS", stream, ">"
    yield "XPENDING", stream, _GROUP
    yield "XINFO", "GROUPS", stream
    yield "XINFO", "CONSUMERS", stream, _GROUP
    yield "XCLAIM", stream, _GROUP, "two", 0, "1-1", "JUSTID"
    yield "XACK", stream, _GROUP, "1-1"
    yield "XGROUP", "DELCONSUMER", stream, _GROUP, "two"
    yield "XLEN", stream
    yield "XRANGE", stream, "-", "+", "COUNT", 1
    yield "XREAD", "COUNT", 1, "STREAMS", stream, "0"
    yield "XDEL", stream, "1-1"
    yield "XTRIM", stream, "MINID", "1-1"
    yield "EXISTS", stream
    yield "SET", keys["lease"], "1", "PX", _LIFETIME
    yield "XADD", keys["dead"], "MAXLEN", 1, "1-1", "m", "1"
    yield "DEL", keys["dead"]


def _for_lists(server: RedisServer, keys: dict[str, str]) -> Iterator[Command]:
    """Yield the commands of Kombu's own transport: its keys are checked by name, commands are tried on others."""
    start = str(server.layer.transport_options.get("global_keyprefix", ""))
    for name in ("unacked", "unacked_index", "unacked_mutex"):
        yield "EXISTS", start + str(server.layer.transport_options.get(f"{name}_key", name))
    yield "LPUSH", keys["list"], "1"
    yield "RPUSH", keys["list"], "1"
    yield "PEXPIRE", keys["list"], _LIFETIME
    yield "LLEN", keys["list"]
    yield "LINDEX", keys["list"], -1
    yield "BRPOP", keys["list"], "0.01"
    yield "RPOP", keys["list"]
    yield "HSET", keys["unacked"], "one", "1"
    yield "PEXPIRE", keys["unacked"], _LIFETIME
    yield "WATCH", keys["unacked"]
    yield "HGET", keys["unacked"], "one"
    yield "HDEL", keys["unacked"], "one"
    yield ("UNWATCH",)
    yield "ZADD", keys["index"], 1, "one"
    yield "PEXPIRE", keys["index"], _LIFETIME
    yield "ZREVRANGEBYSCORE", keys["index"], "2", "0", "LIMIT", 0, 1
    yield "ZREM", keys["index"], "one"
    yield "SET", keys["mutex"], "1", "NX", "PX", _LIFETIME
    yield "DEL", keys["mutex"]


def _for_groups(server: RedisServer, keys: dict[str, str]) -> Iterator[Command]:
    if not server.has_groups:
        return
    group, expiry, member = keys["group"], keys["expiry"], keys["member"]
    yield "SADD", group, "one"
    yield "PEXPIRE", group, _LIFETIME
    yield "ZADD", expiry, 1, "one"
    yield "PEXPIRE", expiry, _LIFETIME
    yield "SADD", member, "one"
    yield "PEXPIRE", member, _LIFETIME
    yield "SMEMBERS", group
    yield "SISMEMBER", group, "one"
    yield "SCARD", group
    yield "ZCARD", expiry
    yield "ZREVRANGE", expiry, 0, 0, "WITHSCORES"
    yield "ZRANGEBYSCORE", expiry, "-inf", "1"
    yield "ZREM", expiry, "one"
    yield "ZREMRANGEBYSCORE", expiry, "-inf", "0"
    yield "SREM", group, "one"
    yield "HSET", keys["sockets"], "one", "/"
    yield "PEXPIRE", keys["sockets"], _LIFETIME
    yield "HLEN", keys["sockets"]
    yield "HSCAN", keys["sockets"], 0
    yield "HDEL", keys["sockets"], "one"
    yield "SET", keys["process"], "1", "PX", _LIFETIME
    yield "SET", keys["worker"], "1", "PX", _LIFETIME
    yield "MGET", keys["process"], keys["worker"]
    yield "GET", keys["process"]
    yield "EXISTS", keys["process"]
    yield "DEL", keys["process"]
