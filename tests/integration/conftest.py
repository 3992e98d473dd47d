"""What several integration tests share."""

from __future__ import annotations

import pytest

from tests.support.brokers import Broker


@pytest.fixture(scope="module", params=["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker that the project is promised to run on; groups are in Redis for all.

    ``redis-streams``, whose transport has tests of its own, is for tests that ask for it.
    """
    redis_url = request.getfixturevalue("redis_url").rsplit("/", 1)[0] + "/3"
    if request.param == "redis":
        return Broker(redis_url, redis_url)
    if request.param == "redis-streams":
        return Broker(redis_url.replace("redis:", "redis-streams:"), redis_url)
    return Broker(request.getfixturevalue("rabbitmq_url"), redis_url)
