"""The documentation says what is there: links, examples, options, settings, checks."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from channelsq.contrib import django_tasks
from channelsq.handler import AsgiHandler, AsgiRequest, ViewConsumer
from channelsq.interface.basis.config import OPTIONS, parser
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.limits import LIMIT_OPTIONS, Limits
from channelsq.interface.basis.server_options import shown_size
from channelsq.interface.email.email_gateway import EmailGateway
from channelsq.interface.gateway import OPTIONS as GATEWAY_OPTIONS
from channelsq.interface.gateway import Gateway, GatewayConfig
from channelsq.interface.gateway.gateway_metrics import GAUGES, GatewayMetrics
from channelsq.interface.sms.sms_gateway import SmsGateway
from channelsq.layers import BaseChannelLayer, InMemoryChannelLayer, KombuChannelLayer, RedisChannelLayer
from channelsq.system_checks import checks, routing_checks
from tests.support.bindings import forgotten_afterwards
from tests.support.markdown import Block, blocks, doc_page, links, rows, without_blocks
from tests.support.processes import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_relative_links_resolve(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{link} does not exist"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def linked(page: Path) -> set[Path]:
    """Return the files that ``page`` links to."""
    return {(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link}


def test_names_of_pages_are_unique() -> None:
    names = [page.name for page in DOCS.rglob("*.md") if page.parent.name != "api" and "examples" not in page.parts]
    assert len(names) == len(set(names))


def test_every_page_is_found_from_the_readme_and_the_index() -> None:
    pages = set(DOCS.rglob("*.md")) - {DOCS / "index.md"} - set((DOCS / "examples").rglob("*.md"))
    lists = {DOCS / "reference" / "api" / "index.md", DOCS / "explanation" / "decisions" / "decisions.md"}
    below = {page for each in lists for page in each.parent.glob("*.md")} - lists
    assert linked(DOCS / "index.md") >= pages - below
    assert linked(ROOT / "README.md") >= pages - below - set((DOCS / "contributing").glob("c[oh]*.md"))
    for each in lists:
        assert linked(each) >= set(each.parent.glob("*.md")) - {each}


def test_decisions_are_short() -> None:
    records = list((DOCS / "explanation" / "decisions").glob("0*.md"))
    assert len(records) > 10
    assert all(len(page.read_text().splitlines()) <= 40 for page in records)


def test_the_tests_that_the_security_page_names_are_there() -> None:
    named = set(re.findall(r"`([\w/]+/test_\w+\.py)`", doc_page("security").read_text()))
    assert {name for name in named if not (ROOT / "tests" / name).exists()} == set()
    assert len(named) > 10


# -- examples ----------------------------------------------------------------------------------------

EXAMPLES = [
    pytest.param(block, id=f"{page.name}:{block.line}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "python"
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_examples_compile(block: Block) -> None:
    ast.parse(block.text)


def run(block: Block) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "docs_example"}
    with forgotten_afterwards():
        exec(compile(block.text, "example", "exec"), names)
    return names


@pytest.mark.parametrize("block", [each for each in EXAMPLES if each.values[0].runnable])  # type: ignore[union-attr]
def test_examples_run(block: Block) -> None:
    assert len(run(block)) > 1


def example(page: str, word: str) -> dict[str, Any]:
    """Return the names that the runnable example of ``page`` with ``word`` in it defines."""
    (block,) = [block for block in blocks(ROOT / page) if block.runnable and word in block.text]
    return run(block)


def test_the_readmes_consumer_is_ten_lines() -> None:
    (block,) = [block for block in blocks(ROOT / "README.md") if "channel_routing" in block.text]
    assert len([line for line in block.text.splitlines() if line]) == 10


def test_the_readmes_and_the_concepts_routings_match() -> None:
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.message import Message

    for page, word, path, kwargs in (
        ("README.md", "channel_routing", "/chat/tea/", {"room": "tea"}),
        ("docs/explanation/concepts.md", "include", "/game/tea/", {"room": "tea", "kind": "game"}),
    ):
        names = example(page, word)
        layer = ChannelLayerWrapper(InMemoryChannelLayer(), "default", names["channel_routing"])
        message = Message({"path": path}, "websocket.connect", layer)
        assert layer.router.match(message) == (names["connect"], kwargs)


def test_the_http_pages_consumers_answer() -> None:
    from channelsq.exceptions import ResponseLater
    from tests.support.layers import installed, message_on, replies, wrapped

    layer = wrapped(example("docs/how-to/build/http.md", "def ping")["channel_routing"])
    request = message_on(layer, "http.request", path="/ping/", method="GET", query_string=b"a=1")
    found = layer.router.match(request)
    assert found is not None
    found[0](request)
    (answer,) = replies(layer, request)
    assert (answer["status"], answer["content"]) == (200, b'{"path": "/ping/", "query": {"a": "1"}}')

    names = example("docs/how-to/build/http.md", "def poll")
    with installed(layer):
        with pytest.raises(ResponseLater):
            names["poll"](request)
        names["tell"]("news")
        assert [answer["content"] for answer in replies(layer, request)] == [b"news"]
        names["left"](request)
        assert layer.group_channels("news") == []


def test_the_exceptions_pages_consumers_have_their_effects() -> None:
    from channelsq.worker.running.execution import run_consumer
    from tests.support.layers import drain, installed, message_on, replies, wrapped

    names = example("docs/reference/exceptions.md", "class Problem")
    layer = wrapped(names["channel_routing"])
    with installed(layer):
        for channel, content, answers in (
            ("websocket.connect", {"path": "/chat/"}, [{"accept": True}]),
            ("websocket.connect", {"path": "/"}, [{"close": True}]),
            ("websocket.receive", {"text": "bye"}, [{"close": 4001}]),
            ("websocket.receive", {"text": "?"}, [{"text": "that was no JSON", "close": 4000}]),
            ("websocket.receive", {"text": '"tea"'}, []),
        ):
            message = message_on(layer, channel, **content)
            found = layer.router.match(message)
            assert found is not None
            run_consumer(found[0], message, "docs")
            assert replies(layer, message) == answers
        (order,) = drain(layer, "orders")
        assert order == {"order": "tea"}


def test_the_origin_pages_validators_take_what_they_say() -> None:
    from django.test import override_settings

    from channelsq.exceptions import DenyConnection
    from tests.support.layers import message_on, replies, wrapped

    layer = wrapped()
    for word, settings in (
        ("import allowed_hosts_only\n\n\n@", {"ALLOWED_HOSTS": ["example.com"]}),
        ("class trusted_origins_only", {"CSRF_TRUSTED_ORIGINS": ["https://example.com"]}),
    ):
        connect = example("docs/how-to/build/origins.md", word)["ws_connect"]
        with override_settings(**settings):
            good = message_on(layer, "websocket.connect", headers=[[b"origin", b"https://example.com"]])
            connect(good)
            assert replies(layer, good) == [{"accept": True}]
            with pytest.raises(DenyConnection):
                connect(message_on(layer, "websocket.connect", headers=[[b"origin", b"https://evil.example"]]))


def test_the_metrics_pages_signals_measure_consumers() -> None:
    from prometheus_client import REGISTRY

    from channelsq.signals import consumer_finished, consumer_started, worker_ready
    from channelsq.worker.running.execution import run_consumer
    from tests.support.layers import installed, message_on, wrapped

    def consumer(message: object) -> None:
        pass

    receivers = [(signal, list(signal.receivers)) for signal in (consumer_started, consumer_finished, worker_ready)]
    # Not among the runnable ones: it can run once in a process, as modules do.
    (block,) = [block for block in blocks(doc_page("metrics")) if block.language == "python"]
    names = run(block)
    try:
        layer = wrapped()
        with installed(layer):
            for _ in range(3):
                run_consumer(consumer, message_on(layer, "websocket.receive", text="x"), "docs")
        label = {"consumer": f"{consumer.__module__}.{consumer.__qualname__}"}
        assert REGISTRY.get_sample_value("consumer_seconds_count", label) == 3
        assert len(worker_ready.receivers) == len(receivers[2][1]) + 1
    finally:
        REGISTRY.unregister(names["SECONDS"])
        for signal, before in receivers:
            signal.receivers = before
            signal.sender_receivers_cache.clear()


def test_the_workers_examples_are_options_that_celery_gets() -> None:
    from celery import Celery

    from channelsq import route
    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.worker.running.consumer_tasks import ConsumerTasks

    names = example("docs/reference/worker.md", "@consumer")
    consumers = [names[name] for name in ("receive", "notify", "tick", "fetch", "wait_for_upload")]
    layer = ChannelLayerWrapper(
        InMemoryChannelLayer(), "default", [route(f"channel{n}", each) for n, each in enumerate(consumers)]
    )
    with Celery("example", set_as_current=False) as app:
        ConsumerTasks(app, layer)
        tasks = {name.rpartition(".")[2]: task for name, task in app.tasks.items() if "docs_example" in name}
        assert tasks["receive"].acks_late
        assert tasks["receive"].max_retries == 3
        assert not tasks["notify"].acks_late
        assert tasks["tick"].rate_limit == "100/s"
        assert tasks["fetch"].max_retries == 5
        assert tasks["wait_for_upload"].ignore_result


# -- pictures ----------------------------------------------------------------------------------------


def test_each_picture_is_shown_and_taken_by_a_test() -> None:
    """``picture`` itself checks format and size, in the tests that have the pages open."""
    found = {path.stem for path in (DOCS / "images").iterdir()}
    shown = [match for page in PAGES for match in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text())]
    assert {Path(target).stem for _, target in shown if "images/" in target} == found
    assert all(len(alternative.split()) > 5 for alternative, _ in shown)
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "browser").glob("test_*.py"))
    assert set(re.findall(r'\bpicture\([^"]+"([\w-]+)"', tests)) == found


# -- README ------------------------------------------------------------------------------------------


def test_the_readmes_two_commands_are_make_targets() -> None:
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Try it") : text.index("## On Redis")]
    commands = re.findall(r"^```sh\n(.+?)\n```$", section, re.MULTILINE | re.DOTALL)
    assert commands == ["make run", "make test"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[1] for command in commands} <= set(targets)


def test_the_contributors_commands_are_make_targets() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make (\w+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert named
    assert named <= targets


def test_the_readmes_first_paragraph_is_five_lines() -> None:
    first = (ROOT / "README.md").read_text().split("\n\n")[1]
    assert len(first.splitlines()) == 5


# -- tables ------------------------------------------------------------------------------------------


def test_the_interfaces_options_are_those_of_help() -> None:
    told = []
    text = " ".join(parser().format_help().partition("message and exit")[2].split())
    for match in re.finditer(
        r"(-v(?: LEVEL)?, )?(--[a-z-]+)(?: ([A-Z]+))? ((?:(?! \[env ).)*) \[env (\w+), default ([^]]*)\]", text
    ):
        short, flag, value, does, variable, default = match.groups()
        option = f"`{flag} {value}`" if value else f"`{flag}`"
        told.append(["`-v`, " + option if short else option, f"`{variable}`", default, does])
    written = [row for row in rows(doc_page("interface")) if len(row) == 4 and row[1].startswith("`CHANNELSQ_")]
    assert len(told) == text.count("[env ")
    assert written == told


@pytest.mark.parametrize("gateway", [SmsGateway, EmailGateway], ids=lambda gateway: gateway.protocol)
def test_the_gateways_options_are_those_of_help(gateway: type[Gateway]) -> None:
    written = {row[0]: row[1:] for row in rows(doc_page("interface-servers")) if len(row) == 3}
    for option in gateway.options:
        value = f" {option.metavar}" if option.metavar else ""
        short = f"`{option.short}`, " if option.short else ""
        default, does = written[f"{short}`{option.flag}{value}`"]
        assert does == option.help
        shared = option in GATEWAY_OPTIONS
        actual = getattr((GatewayConfig if shared else gateway.config_class)(), option.name)
        if option.shown_default is not None:
            assert default == option.shown_default
        elif isinstance(actual, bool):
            assert default == ("on" if actual else "off")
        else:
            assert default == (shown_size(actual) if option.metavar == "BYTES" else f"{actual}".removesuffix(".0"))


def test_the_gateways_metrics_are_those_of_the_page() -> None:
    written = {row[0].strip("`"): row[-1] for row in rows(doc_page("interface-servers")) if len(row) == 4}
    metrics = GatewayMetrics("sms", Counters(), lambda: dict.fromkeys(GAUGES, 0.0)).collect()
    suffixes = {"counter": "_total", "info": "_info"}
    told = {each.name + suffixes.get(each.type, ""): each.documentation for each in metrics}
    assert {name: written.get(name) for name in told} == told


LIMITS = [row for row in rows(doc_page("limits")) if len(row) == 5 and row[0] != "limit"]


def test_every_limit_with_an_option_is_there_with_its_default() -> None:
    timeouts = {"http_timeout", "accept_timeout", "order_timeout", "ping_interval", "ping_timeout"}
    options = [option for option in OPTIONS if option in LIMIT_OPTIONS or option.name in timeouts]
    assert len(options) == len(LIMIT_OPTIONS) + len(timeouts)
    for option in options:
        defaults = {row[1] for row in LIMITS if re.match(f"`{option.flag}`", row[4])}
        match = re.search(rf"env {option.variable}, default (\S+)\]", " ".join(parser().format_help().split()))
        assert match is not None
        assert defaults == {match[1]}, option.flag
    named = {flag for row in LIMITS for flag in re.findall(r"--[a-z-]+", row[4])}
    assert named <= {option.flag for option in OPTIONS}


def test_every_limit_without_an_option_is_there() -> None:
    limits = Limits()
    written = [row[1] for row in LIMITS if row[4] == "no"]
    assert f"{limits.backlog_messages}, or {limits.backlog_bytes // 1024**2} MiB" in written
    assert f"{limits.publish_patience:g} s" in written
    assert f"{limits.room_patience:g} s" in written
    assert f"{limits.worker_grace:g} s" in written
    assert f"{limits.close_timeout:g} s" in written
    assert any(each.startswith(f"{limits.body_chunk // 1024} KiB in") for each in written)


def test_what_the_limits_log_and_count_is_in_the_code() -> None:
    source = "".join(path.read_text() for path in (ROOT / "channelsq").rglob("*.py"))
    for row in LIMITS:
        for name in re.findall(r"`([\w.]+)`", row[3]):
            family, _, what = name.rpartition(".")
            if family.endswith("refused"):
                continue  # one counter for each status
            # http.<action> and websocket.<cause> are counted for what the interface server refuses itself
            assert f'"{name}"' in source or (family in ("http", "websocket") and f'"{what}"' in source), name


@pytest.mark.parametrize("layer", [BaseChannelLayer, KombuChannelLayer, RedisChannelLayer])
def test_every_config_key_is_there_with_its_default(layer: type) -> None:
    written = {row[0].strip("`"): row[1].strip("`") for row in rows(doc_page("settings")) if len(row) == 3}
    for name, parameter in inspect.signature(layer).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = parameter.default
            shown = f'"{default}"' if isinstance(default, str) else str(default)
            assert written.get(name) == shown, name


def test_every_check_is_there() -> None:
    ids = set(re.findall(r"channelsq\.[EW]\d{3}", inspect.getsource(checks)))
    written = [row[0].strip("`") for row in rows(doc_page("settings"))]
    assert {each for each in written if re.match(r"channelsq\.[EW]\d", each)} == ids
    assert ids


def test_every_check_is_raised_somewhere() -> None:
    source = inspect.getsource(checks).partition('"""')[2].partition('"""')[2] + inspect.getsource(routing_checks)
    source += inspect.getsource(django_tasks.backend)
    ids = {row[0].strip("`") for row in rows(doc_page("settings")) if row[0].startswith("`channelsq.")}
    assert {each for each in ids if re.search(r"[EW]\d{3}$", each)} == set(re.findall(r"channelsq\.[EW]\d{3}", source))


def test_the_numbers_of_http_are_true() -> None:
    written = {row[0].strip("`"): row[1] for row in rows(doc_page("http")) if len(row) == 3}
    for name in ("credit_chunks", "credit_messages", "credit_seconds", "credit_timeout", "full_timeout"):
        assert written[name] == str(getattr(ViewConsumer, name))
    assert written["AsgiHandler.chunk_size"] == f"{AsgiHandler.chunk_size // 1024} KiB"
    assert written["AsgiRequest.body_receive_timeout"] == str(AsgiRequest.body_receive_timeout)


def test_every_command_line_of_runserver_and_runworker_is_an_option() -> None:
    from channelsq.management.commands import runserver, runworker

    for page, command in (("development-server", runserver.Command()), ("worker", runworker.Command())):
        options = command.create_parser("manage.py", "command").format_help()
        named = [row[0] for row in rows(doc_page(page)) if row[0].startswith("`--")]
        assert named
        for flag in re.findall(r"--[a-z][\w-]+", " ".join(named)):
            assert flag in options or flag == "--loglevel", flag


def test_nothing_speaks_of_speed_without_a_benchmark() -> None:
    if (ROOT / "benchmarks").exists():
        return
    for page in PAGES:
        claim = re.search(r"\b(fast(er|est)?|blazing|lightning)\b", without_blocks(page), re.IGNORECASE)
        assert claim is None, f"{page.name}: {claim}"


def test_the_page_on_any_celery_has_the_options_the_settings_and_their_numbers() -> None:
    from celery.bin.worker import worker

    from channelsq.worker import sources_step
    from channelsq.worker.commands import event_relay, worker_options
    from channelsq.worker.sources import crew

    page = doc_page("any-celery").read_text()
    flags = {flag for option in worker_options.OPTIONS for flag in option.opts}
    assert set(re.findall(r"--channel-\w+", page)) == flags
    assert flags <= {flag for parameter in worker.params for flag in parameter.opts}
    assert f"{sources_step.DEFAULT_THREADS} threads" in page
    assert f"up to {crew.PREFETCH} messages for each of its threads" in page
    assert f"up to {event_relay.MOST:,} of them" in page
    for setting in ("CHANNEL_EVENTS", "CHANNEL_MAX_MESSAGES", "CHANNEL_MAX_MEMORY"):
        assert f"`{setting}" in page
        assert f"`{setting}`" in doc_page("settings").read_text()


# -- lines of logs


def _texts() -> list[str]:
    """Every text in the sources, with ``…`` for what is filled in."""
    found = []
    for path in (ROOT / "channelsq").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [str(each.value) if isinstance(each, ast.Constant) else "…" for each in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%(?:\.\d+)?[a-z]", "…", node.value))
    return found


def test_the_lines_that_the_troubleshooting_page_explains_are_in_the_code() -> None:
    page = without_blocks(doc_page("troubleshooting"))
    section = page[page.index("## In the interface server's log") : page.index("## In your own code")]
    first_cells = " ".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))
    lines = set(re.findall(r"`([^`]+)`", first_cells))
    texts = _texts()
    celerys = {"[Errno 111]", "Connection refused", "action"}
    missing = [
        part
        for line in lines - celerys
        for part in filter(None, (each.strip(" .") for each in re.split("…|: ", line)))
        if not any(part in text for text in texts)
    ]
    assert missing == []
    assert len(lines) > 30
