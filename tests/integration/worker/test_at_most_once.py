"""A message that runs at most once is gone from the streams before its run, even if that ends the worker."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from channelsq.asgi import ChannelLayerWrapper
from channelsq.channel import Channel
from channelsq.layers import RedisChannelLayer
from tests.support.project import Project
from tests.support.servers import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.timeout(60)]


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_it_is_acknowledged_before_it_runs(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, pool: str
) -> None:
    url = redis_url.replace("redis:", "redis-streams:").rsplit("/", 1)[0] + "/7"
    layer = ChannelLayerWrapper(RedisChannelLayer(url=url), "default", [])
    project = Project(tmp_path, url, {"TEST_FAST": "1"})
    try:
        worker = project.new_worker("-P", pool, "-Q", "dies")
        Channel("dies", channel_layer=layer).send({})
        worker.wait()
        assert len(project.recorded("dies")) == 1
        with redis.Redis(port=redis_server.port, db=7) as client:
            assert client.xlen("stream:dies") == 0
            assert client.delete("stream:dies") == 1
    finally:
        layer.close()
        project.stop()
