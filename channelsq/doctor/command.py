"""The command: its options, the examinations in order, and the output of their findings."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from channelsq.core.bounded import within
from channelsq.doctor.findings import Finding, Level, as_json, error, exit_code, not_applicable, summary
from channelsq.doctor.redaction import Redaction
from channelsq.doctor.screen import Screen
from channelsq.version import __version__

Examination = Callable[[], Iterable[Finding]]

#: Seconds that an examination may take in all, besides the time for workers to answer.
_PATIENCE = 20.0

#: The exit code after Ctrl-C, as in a shell.
_INTERRUPTED = 130

_FAIL_LEVELS = {"warning": Level.WARNING, "error": Level.ERROR, "never": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print a report for programs.")
    parser.add_argument(
        "--fail-level",
        choices=_FAIL_LEVELS,
        default="error",
        help="Exit with 1 from this level on (default: error).",
    )
    parser.add_argument("--layer", action="append", metavar="ALIAS", help="Look at this layer only; may be repeated.")
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="CHECK",
        help="Leave out findings of this name, such as echo or 'redis.*'; may be repeated.",
    )
    parser.add_argument("--quiet", action="store_true", help="Leave out what is in order.")
    parser.add_argument(
        "--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="For workers to answer (default: 5)."
    )
    parser.add_argument(
        "--url",
        type=_websocket_url,
        metavar="URL",
        help="Try the echo by way of this interface server, such as wss://chat.example.com, instead of a temporary "
        "one.",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError(f"give seconds above 0, up to 600, not {text!r}")
    return value


def _websocket_url(text: str) -> str:
    """Return the URL of an interface server for sockets; it may also be written as http:// or https://."""
    scheme, separator, rest = text.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    if not separator or scheme not in ("ws", "wss") or not rest.strip("/"):
        raise argparse.ArgumentTypeError(f"give a URL such as wss://chat.example.com, not {text!r}")
    return f"{scheme}://{rest}"


class Doctor:
    """One run of the command.

    Args:
        options: the options of :func:`add_arguments`.
        out: the stream for the report.
        folder: the folder of the project, if its settings must be loaded; None if they are.
    """

    def __init__(self, options: Any, out: Any, folder: Path | None = None) -> None:
        self._options = options
        self._out = out
        self._folder = folder
        self._fail_level = _FAIL_LEVELS[options["fail_level"]]
        self._screen = None if options["as_json"] else Screen(out, quiet=options["quiet"])
        self._redacted = Redaction([options["url"] or ""])
        self.findings: list[Finding] = []

    def run(self) -> int:
        """Examine everything and report; return the exit code."""
        if self._screen is not None:
            self._screen.say(f"channelsq {__version__} doctor")
        try:
            self._examine()
        except KeyboardInterrupt:
            return _INTERRUPTED
        if self._screen is None:
            self._out.write(as_json(self.findings, self._fail_level) + "\n")
        else:
            self._screen.say(f"\n{summary(self.findings)}")
        return exit_code(self.findings, self._fail_level)

    def _examine(self) -> None:
        from channelsq.doctor import loading

        if self._folder is not None:
            folder = self._folder
            if self._has_error("settings", self._look("settings", lambda: loading.load(folder))):
                return
        self._redacted = Redaction([*_urls(), self._options["url"] or ""])
        if self._has_error("settings.installed", self._look("settings", loading.check_installed)):
            return
        self._examine_project()
        for alias in self._aliases():
            self._examine_layer(alias)

    def _examine_project(self) -> None:
        from channelsq.doctor import brokers, machine, project

        self._look("settings.checks", project.check_settings)
        self._look("celery.app", project.check_celery)
        if self._is_wanted("celery.broker"):
            self._look("celery.broker", brokers.check_celerys_broker)
        self._look("machine.files", machine.check_files)

    def _aliases(self) -> Iterator[str]:
        from channelsq import conf
        from channelsq.exceptions import InvalidChannelLayerError

        try:
            known = list(conf.layer_configs())
        except InvalidChannelLayerError:
            return  # the checks report it
        for alias in self._options["layer"] or ():
            if alias not in known:
                remedy = f"Name one of CHANNEL_LAYERS: {', '.join(known) or 'there is none'}."
                self._add(error("layer", f"There is no layer {alias!r}.", remedy))
        yield from [alias for alias in known if alias in (self._options["layer"] or known)]

    def _examine_layer(self, alias: str) -> None:
        from channelsq.asgi import channel_layers
        from channelsq.doctor.brokers import check_broker
        from channelsq.doctor.consumers import ConsumersExamination
        from channelsq.doctor.echo import check_echo
        from channelsq.doctor.redis_examination import ServerExamination
        from channelsq.exceptions import ChannelsqError
        from channelsq.layers.redis_servers import redis_servers

        try:
            layer = channel_layers[alias]
            servers = redis_servers(layer.channel_layer)
        except (ChannelsqError, ValueError, ImportError) as problem:
            self._add(error("layer", f"The layer cannot be used: {problem}", "Correct CHANNEL_LAYERS.", alias))
            return
        found: list[Finding] = []
        if not any(server.has_channels for server in servers):
            found += self._look("broker", lambda: check_broker(layer), alias)
        for server in servers:
            found += self._look("redis", ServerExamination(alias, server), alias)
        away = any(each.level is Level.ERROR and each.check.endswith((".reachable", ".version")) for each in found)
        consumers = ConsumersExamination(layer, self._options["timeout"])
        if away:
            self._add(not_applicable("echo", "Consumers and an echo were not tried, as a server is missing.", alias))
            return
        self._look("consumers", consumers, alias)
        if not self._is_wanted("echo"):
            return
        if consumers.none_consume:
            self._add(not_applicable("echo", "An echo was not tried, as no worker runs.", alias))
            return
        self._look("echo", lambda: check_echo(layer, self._options["timeout"], self._options["url"]), alias)

    # -- findings

    def _look(self, name: str, examination: Examination, alias: str | None = None) -> list[Finding]:
        """Run an examination within its time limit; record and return its findings, also that it failed."""
        found: list[Finding] = []
        limit = _PATIENCE + 3 * self._options["timeout"]
        problem: tuple[str, str] | None = None
        try:
            within(limit, lambda: found.extend(examination()))  # one by one: findings before a failure count
        except KeyboardInterrupt:
            raise
        except TimeoutError:
            text = f"Checking {name} took longer than {limit:g} s and was stopped."
            problem = text, "Look at the findings above, and try again."
        except BaseException as failure:
            text = f"Checking {name} failed: {type(failure).__name__}: {failure}"
            problem = text, "Correct that, or skip it: doctor --skip."
        result = list(found)
        if problem is not None:
            result.append(error(name, *problem, alias))
        for finding in result:
            self._add(finding)
        return result

    def _add(self, finding: Finding) -> None:
        if not self._is_wanted(finding.check):
            return
        finding = Finding(
            finding.check,
            finding.level,
            self._redacted(finding.text),
            self._redacted(finding.remedy),
            finding.layer,
            self._redacted.of_data(finding.data),
        )
        self.findings.append(finding)
        if self._screen is not None:
            self._screen.show(finding)

    def _is_wanted(self, check: str) -> bool:
        return not any(fnmatch.fnmatchcase(check, pattern) for pattern in self._options["skip"])

    @staticmethod
    def _has_error(check: str, found: Iterable[Finding]) -> bool:
        return any(each.level is Level.ERROR and each.check == check for each in found)


def _urls() -> Iterator[str]:
    """Yield the URLs that contain passwords."""
    from channelsq import conf
    from channelsq.exceptions import ChannelsqError

    app: Any = conf.celery_app()
    for value in (conf.celery_broker_url(app), app.conf.broker_write_url, app.conf.result_backend):
        if isinstance(value, str):
            yield value
    try:
        configs = conf.layer_configs()
    except ChannelsqError:
        return
    for entry in configs.values():
        config = entry.get("CONFIG") if isinstance(entry, dict) else None
        for value in _texts(config):
            if "://" in value:
                yield value


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
