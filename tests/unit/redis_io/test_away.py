"""The errors of a Redis that mean that it is away for now."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError

from channelsq.redis_core.scripts import SETTLE
from channelsq.redis_core.server_errors import CODES, is_away
from channelsq.redis_io.away import ServerAway, as_away
from tests.support.refusals import full
from tests.support.servers import RedisServer

AWAY = [
    "READONLY You can't write against a read only replica.",
    "NOREPLICAS Not enough good replicas to write.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "LOADING Redis is loading the dataset in memory",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN Hash slot not served",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "ERR max number of clients reached",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.",
]
FAULTS = [
    "BUSYGROUP Consumer Group name already exists",
    "BUSYKEY Target key name already exists.",
    "NOGROUP No such key 'x' or consumer group 'kombu'",
    "NOSCRIPT No matching script.",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "NOPERM this user has no permissions to run the 'eval' command",
    "UNBLOCKED the stream key no longer exists",
    "EXECABORT Transaction discarded because of previous errors.",
    "ERR unknown command 'OOM'",
    "",
]


@pytest.mark.parametrize("text", AWAY)
def test_away(text: str) -> None:
    assert is_away(text)


@pytest.mark.parametrize("text", FAULTS)
def test_faults_are_none(text: str) -> None:
    assert not is_away(text)


@pytest.mark.parametrize("text", AWAY)
def test_as_redis_py_has_them(text: str) -> None:
    """It takes the codes off, with no way to know them again in its older versions."""
    from redis._parsers.base import BaseParser

    error = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    if not isinstance(error, ResponseError):
        return  # a ConnectionError already
    for code in (getattr(error, "status_code", None), None):
        error.status_code = code
        away = as_away(error)
        assert isinstance(away, ServerAway)
        assert str(away) == text
        assert away.full == text.startswith("OOM")
        assert text in repr(away)


def test_the_script_knows_the_same_codes() -> None:
    table = re.search(r"local AWAY = \{(.*?)\}", SETTLE.text, re.DOTALL)
    assert table is not None
    assert set(re.findall(r"([A-Z]+) = true", table[1])) == CODES


@pytest.mark.redis
def test_a_refusal_inside_of_the_script_ends_it_before_the_acknowledgements(redis_server: RedisServer) -> None:
    """As on a server that does not know the script's flags: nothing that was refused counts as done."""
    flags, _, rest = SETTLE.text.partition("\n")
    assert flags == "#!lua flags=no-cluster,allow-oom"
    with redis.Redis(port=redis_server.port, db=9) as client:
        client.flushdb()
        client.xadd("kept", {"m": "1"})
        words: list[Any] = [5, "XADD", "sent", "*", "m", "2", 2, "DEL", "kept"]
        with full(redis_server), pytest.raises(redis.ResponseError) as raised:
            client.eval(rest, 0, *words)
        assert as_away(raised.value) is not None
        assert client.exists("kept") == 1
        with full(redis_server):
            assert client.eval(SETTLE.text, 0, *words) == []  # with them it is done as a whole
        assert client.exists("kept") == 0
        assert client.xlen("sent") == 1
        client.flushdb()
