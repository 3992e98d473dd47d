"""The demo, served in the three ways that it is promised to work in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, StorageState

from tests.support.chat import DESK, ChatUser, EnterLobby
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


@pytest.fixture(scope="module")
def logins() -> dict[tuple[str, str], StorageState]:
    """The cookies of users after their login, by site and name."""
    return {}


@pytest.fixture
def enter_lobby(chromium: Browser, site: Demo, logins: dict[tuple[str, str], StorageState]) -> Iterator[EnterLobby]:
    """Logs somebody in and enters the lobby; nothing may have gone wrong in any page at the end."""
    users: list[ChatUser] = []

    def enter(name: str, size: tuple[int, int] = DESK) -> ChatUser:
        # Passwords are slow to check, as they should be; once a site is enough.
        login = site.url, name
        user = ChatUser(chromium, site.url, name, size, logins.get(login))
        users.append(user)
        if login in logins:
            user.come_back()
        else:
            user.log_in()
            logins[login] = user.cookies
        user.enter("Lobby")
        return user

    yield enter
    errors = {user.name: user.errors for user in users if user.errors}
    for user in users:
        user.close()
    assert not errors
