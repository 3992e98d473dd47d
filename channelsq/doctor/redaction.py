"""Removal of secrets from printed texts, also from those of other libraries."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from django.conf import settings

#: Names of environment variables and settings whose values are secrets.
_SECRET_NAMES = re.compile(r"SECRET|(PASSWORD|PASSWD|TOKEN|API_?KEY|CREDENTIALS?)$", re.IGNORECASE)

#: Shorter values would be cut out of innocent sentences, as would these words, which are default passwords.
_SHORTEST = 4
_NO_SECRETS = frozenset({"celery", "channelsq", "default", "django", "guest", "postgres", "rabbitmq", "redis"})

#: User and password in a URL.  The password may contain any character; the host follows the last ``@``.
_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s'\"]*@")

_LEFT_OUT = "***"


class Redaction:
    """A filter that removes passwords and keys from texts.

    Args:
        urls: URLs whose passwords are removed everywhere.
    """

    def __init__(self, urls: Iterable[str] = ()) -> None:
        found = {*_passwords(urls), *_of_environment(), *_of_settings()} - _NO_SECRETS
        secrets = sorted((re.escape(each) for each in found if len(each) >= _SHORTEST), key=len, reverse=True)
        self._secrets = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(secrets)})(?![A-Za-z0-9])") if secrets else None

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        text = _IN_URL.sub(rf"\1{_LEFT_OUT}@", text)
        return text if self._secrets is None else self._secrets.sub(_LEFT_OUT, text)

    def of_data(self, value: Any) -> Any:
        """Return data with every text in it filtered."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {key: self.of_data(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of_data(each) for each in value]
        return value


def _passwords(urls: Iterable[str]) -> Iterator[str]:
    for url in urls:
        for each in url.split(";"):
            credentials, at, _ = each.partition("://")[2].rpartition("@")
            password = credentials.partition(":")[2]
            if at and password:
                yield from (password, unquote(password), quote(unquote(password), safe=""))


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name):
            yield value
        elif "://" in value:
            yield from _passwords([value])


def _of_settings() -> Iterator[str]:
    if not settings.configured:
        return
    for name in dir(settings):
        if name.isupper() and _SECRET_NAMES.search(name):
            value = getattr(settings, name, None)
            for each in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(each, str):
                    yield each
    for database in getattr(settings, "DATABASES", {}).values():
        if isinstance(database, dict) and isinstance(database.get("PASSWORD"), str):
            yield database["PASSWORD"]
