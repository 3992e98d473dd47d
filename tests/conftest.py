"""Fixtures that several folders use; what they stand on is in tests/support/."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import needs
from tests.support.processes import Processes
from tests.support.sentinels import Sentinels, running_sentinels
from tests.support.servers import (
    RABBITMQ_DEFAULT,
    RabbitVhost,
    RedisServer,
    rabbitmq_answers,
    running_redis,
)

#: What takes longest, begun first when files are run at once: nobody waits in the end for one who began late.
_LONGEST = (
    "browser/test_first_project.py",
    "browser/test_accessibility.py",
    "integration/docs/test_docs_site.py",
    "transport/test_celery.py",
    "integration/faults/test_redis_is_full.py",
    "integration/worker/test_worker_ends.py",
    "integration/faults/test_redis_refuses.py",
    "integration/site/test_rolling_deploy.py",
    "integration/faults/test_shards.py",
    "integration/worker/test_hostile_consumers.py",
    "integration/faults/test_repeated_requests.py",
    "integration/interface/test_workers.py",
    "integration/faults/test_dead_interfaces.py",
    "integration/worker/test_channel_processes.py",
    "integration/faults/test_half_open_amqp.py",
    "integration/layers/test_two_brokers.py",
    "integration/worker/test_promises.py",
    "integration/worker/test_worker_life.py",
    "integration/commands/test_runserver.py",
    "integration/worker/test_worker.py",
    "browser/",
    "works/",
    "unit/test_types.py",
    "unit/worker/running/test_sentry_internals.py",
    "integration/faults/test_survival.py",
    "chaos/",
    "integration/faults/test_sentinel_failover.py",
    "integration/live/",
    "integration/site/",
    "integration/docs/test_tutorial.py",
    "integration/interface/test_cli.py",
    "contract/",
    "integration/",
    "transport/",
)

# On a busy machine a test may take its time over an example, and Hypothesis over making one.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


def pytest_configure() -> None:
    """Have Ctrl-C handled as in a terminal: a shell that runs the tests in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have an option for the ways that ``make test`` leaves to ``make test-ways``, and one for pictures."""
    parser.addoption("--other-ways", action="store_true", help="run the ways that are not usual, and nothing else")
    parser.addoption("--pictures", action="store_true", help="write docs/images/: run the tests that take pictures")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files out that have no other ways, where those are asked for: each process would import all the others."""
    if config.getoption("--other-ways") and collection_path.suffix == ".py":
        return "mark.ways" not in collection_path.read_text() or None
    return None


def _choose_ways(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the other ways out, or all but those; a test that is named is run in any case."""
    if any("::" in str(arg) for arg in config.args):
        return
    others = config.getoption("--other-ways")
    chosen: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        ways = item.get_closest_marker("ways")
        is_usual = ways is None or re.search(ways.args[0], item.name) is not None
        (left if is_usual is others else chosen).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=left)


def _choose_pictures(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out all tests but those that take pictures."""
    left = [item for item in items if "picture" not in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files for pytest-xdist; a single process begins with what it was asked for first."""
    _choose_ways(config, items)
    if config.getoption("--pictures"):
        _choose_pictures(config, items)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(here).as_posix()
        return next((place for place, start in enumerate(_LONGEST) if path.startswith(start)), len(_LONGEST))

    items.sort(key=rank)  # stable: within a rank as collected


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """More than there are cores: tests that run whole programs wait most of the time."""
    return 3 * min(os.cpu_count() or 1, 3) + 1


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A private Redis server for the whole session; a test that restarts one makes its own."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """The URL of the private Redis server; tests share it, so use a prefix of your own."""
    return redis_server.url


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """Private Sentinels with a primary and two replicas; a test that ends or moves the primary makes its own."""
    with running_sentinels(tmp_path_factory.mktemp("sentinels")) as made:
        yield made


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """``$RABBITMQ_URL``, or a virtual host of the tests' own on the local broker where that may be made."""
    given = os.environ.get("RABBITMQ_URL")
    url = given or RABBITMQ_DEFAULT
    problem = rabbitmq_answers(url)
    if problem is not None:
        needs.missing(f"no RabbitMQ at {url}: {problem}")
    vhost = RabbitVhost()
    if given is None and vhost.create():
        yield vhost.url
        vhost.delete()
    else:
        yield url


@pytest.fixture(scope="session")
def demo_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's database with its data, for ``tests.support.demo.Demo`` to copy."""
    from tests.support.demo import make_template

    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make_template(tmp_path_factory.mktemp("demo"))
    directory = tmp_path_factory.getbasetemp().parent / "demo"  # which pytest-xdist's processes share
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = directory / "made"
        if not made.exists():
            made.write_text(str(make_template(directory)))
    return Path(made.read_text())


@pytest.fixture
def processes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Processes]:
    """Starts the project's programs; stops them after the test and shows what they wrote if it failed."""
    running = Processes(tmp_path_factory.mktemp("processes"))
    yield running
    running.stop()
    report = request.node.stash.get(_call_report, None)
    if report is not None and report.failed:
        request.node.stash[_outputs] = list(running.report())


def pytest_collection_finish() -> None:
    """Leave thousands of tests, which live until the end, out of each garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """A Playwright ``Browser``.  A module's: in its thread no other event loop can be run meanwhile."""
    from tests.support.browsers import chromium_binary, run_chromium

    binary = chromium_binary()
    if binary is None:
        needs.missing("no Chromium: set CHROMIUM, or install it (apt install chromium-headless-shell, or chromium)")
    with run_chromium(binary) as browser:
        yield browser


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> object:
    """Takes a picture for the documentation, or checks the one that was taken: ``Pictures``."""
    from tests.support.pictures import Pictures

    return Pictures(writes=request.config.getoption("--pictures"))


_call_report = pytest.StashKey[pytest.TestReport]()
_outputs = pytest.StashKey[list[tuple[str, str]]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_call_report] = report
    elif report.when == "teardown":  # the call's report has left a process of pytest-xdist's by now
        outputs = item.stash.get(_outputs, [])
        report.sections.extend((f"output of {command} up to its teardown", output) for command, output in outputs)
    return report


_app_before = pytest.StashKey[object]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    from tests.support.apps import current_app

    item.stash[_app_before] = current_app()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Leave no connection open: Django looks at open ones around each request, which pytest-django forbids
    to the next test if that is one without the database.  Nor another Celery app current: the next test's
    shared tasks would be that app's."""
    from django.db import connections

    from tests.support.apps import current_app

    yield
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:  # of a test case whose next test goes on in it
            connection.close()
    left, before = current_app(), item.stash[_app_before]
    assert left is before, f"the test left {left!r} as Celery's current app, which was {before!r}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test fails the run: what was not run was not checked."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if needs.CI and exitstatus == 0 and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("\nCI: tests were skipped, which counts as a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
