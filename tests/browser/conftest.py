"""The demo, served in the three ways that it is promised to work in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.demo import Demo, fresh_redis


@pytest.fixture(
    scope="module",
    params=[
        "runserver",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=[pytest.mark.redis, pytest.mark.rabbitmq]),
    ],
)
def site(
    request: pytest.FixtureRequest, demo_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    """``runserver`` alone; or an interface server and a worker, on Redis or on RabbitMQ with groups in Redis."""
    env = {}
    if request.param != "runserver":
        env["REDIS_URL"] = fresh_redis(request.getfixturevalue("redis_url"))
    if request.param == "rabbitmq":
        env["BROKER_URL"] = request.getfixturevalue("rabbitmq_url")
    demo = Demo(demo_template, tmp_path_factory.mktemp(request.param), env)
    try:
        if request.param == "runserver":
            demo.start_runserver("--noreload")
        else:
            demo.start_interface()
            demo.start_worker()
        yield demo
    finally:
        demo.stop()
