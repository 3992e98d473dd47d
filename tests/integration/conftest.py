"""Fixtures that several integration tests share."""

from __future__ import annotations

import pytest

from tests.support.brokers import Broker, make_broker


@pytest.fixture(scope="module", params=["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker that the project is promised to run on; groups are in Redis for all.

    ``redis-streams``, whose transport has tests of its own, is for tests that ask for it.
    """
    return make_broker(request)
