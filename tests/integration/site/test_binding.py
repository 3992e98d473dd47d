"""Data binding and consumers that are classes, through an interface server and a Celery worker on Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.demo import fresh_streams
from tests.support.processes import ROOT
from tests.support.project import Project

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

#: Makes a user with a session, and prints the session's key.
LOG_IN = """
import django; django.setup()
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
user = get_user_model().objects.create_user("alice")
session = SessionStore()
session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session.save()
print(f"key={session.session_key}")
"""

#: Writes notes from a program that is neither the interface server nor a worker.
WRITE = """
import django; django.setup()
from django.db import transaction
from tests.project.models import Note
with transaction.atomic():
    try:
        with transaction.atomic():
            Note.objects.create(board="shop", text="lost")
            raise LookupError
    except LookupError:
        pass
    Note.objects.create(board="shop", text="kept")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("binding"), fresh_streams(redis_url))
    try:
        project.migrate()
        project.start()
        yield project
    finally:
        project.stop()


@pytest.fixture(scope="module")
def session_key(project: Project) -> str:
    return run(project, "log_in.py", LOG_IN).rpartition("key=")[2].strip()


def run(project: Project, name: str, program: str) -> str:
    """Run a program in the project's surroundings; gives its output."""
    path = project.records / name
    path.write_text(program)
    process = project.processes.start("python", str(path), env={**project.env, "PYTHONPATH": str(ROOT)})
    assert process.wait(60) == 0, process.output
    return process.output


def say(socket: ClientConnection, content: Any) -> None:
    socket.send(json.dumps(content))


def heard(socket: ClientConnection) -> Any:
    return json.loads(socket.recv(timeout=30))


class Socket:
    """A socket on the notes of a board.

    Args:
        connection: what has just been opened.
        board: whose notes.
    """

    def __init__(self, connection: ClientConnection, board: str) -> None:
        self.connection = connection
        self.board = board

    def asks(self, **payload: Any) -> None:
        """Send an action to the binding."""
        say(self.connection, {"stream": "notes", "payload": payload})

    def writes(self, failing: str) -> None:
        """Have a note written by a consumer that fails there."""
        say(self.connection, {"stream": "write", "payload": {"failing": failing}})

    def told(self) -> tuple[str, str]:
        """The next action and the text that it is about; or the stream of the consumer, and its word."""
        frame = heard(self.connection)
        payload = frame["payload"]
        return (payload["action"], payload["data"]["text"]) if frame["stream"] == "notes" else ("write", payload)

    def pk_of_the_next(self) -> int:
        """The primary key in the next frame."""
        return int(heard(self.connection)["payload"]["pk"])


@pytest.fixture
def opened(project: Project) -> Iterator[Any]:
    """Opens a socket on a board; it has joined the board's group."""
    with ExitStack() as stack:

        def open_one(board: str, key: str = "") -> Socket:
            url = f"{project.ws_url}/notes/{board}/?session_key={key}"
            return Socket(stack.enter_context(connect(url, open_timeout=30, close_timeout=5, proxy=None)), board)

        yield open_one


def test_clients_change_a_model_and_everybody_is_told(opened: Any, session_key: str) -> None:
    alice, stranger, other = opened("kitchen", session_key), opened("kitchen"), opened("garden", session_key)
    stranger.asks(action="create", data={"board": "kitchen", "text": "not allowed"})
    alice.asks(action="create", data={"board": "kitchen", "text": "buy tea"})
    assert stranger.told() == ("create", "buy tea")  # and nothing of what it may not do
    pk = alice.pk_of_the_next()
    alice.asks(action="update", pk=pk, data={"text": "buy green tea"})
    assert alice.told() == stranger.told() == ("update", "buy green tea")
    alice.asks(action="update", pk=pk, data={"board": "garden", "text": "pick mint"})
    assert alice.told() == stranger.told() == ("delete", "pick mint")
    assert other.told() == ("create", "pick mint")
    other.asks(action="delete", pk=pk)
    assert other.told() == ("delete", "pick mint")


def test_only_what_was_committed_is_told_and_in_its_turn(opened: Any, session_key: str, project: Project) -> None:
    alice = opened("cellar", session_key)
    alice.writes("within")  # of this nothing comes
    alice.writes("after")
    assert alice.told() == ("create", "failing after")
    alice.writes("not at all")
    assert [alice.told() for _ in range(3)] == [
        ("write", "before"),
        ("create", "failing not at all"),
        ("write", "after"),
    ]
    project.worker.wait_for_output("this transaction was committed")


def test_other_programs_changes_are_told(opened: Any, project: Project) -> None:
    anybody = opened("shop")
    run(project, "write.py", WRITE)
    assert anybody.told() == ("create", "kept")


def test_classes_with_options_and_with_other_attributes(project: Project) -> None:
    with ExitStack() as stack:
        for path, greeting in (("/greet/ann/", "hello ann"), ("/saluer/zoe/", "bonjour zoe")):
            socket = stack.enter_context(connect(f"{project.ws_url}{path}", open_timeout=30, proxy=None))
            say(socket, {"failures": 2})
            name = greeting.rpartition(" ")[2]
            assert heard(socket) == {"said": greeting, "path": path, "kwargs": {"name": name}, "retries": 2}
