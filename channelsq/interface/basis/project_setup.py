"""The set-up of Django for an interface server, with one-line errors for unusable settings."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from channelsq.core import logs
from channelsq.core.settings_module import VARIABLE, find_settings
from channelsq.diagnostics.causes import explained
from channelsq.interface.basis.command_line import ConfigError

_LEVELS = (logging.ERROR, logging.INFO, logging.DEBUG, logging.DEBUG)


def import_from_here() -> None:
    """Let Python import the project's modules from the current folder."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def choose_settings() -> None:
    """Set ``DJANGO_SETTINGS_MODULE`` to the settings module of the project in the current folder.

    Raises:
        ConfigError: the project names no settings module.
    """
    found = find_settings(Path.cwd())
    if found is None:
        raise ConfigError(
            f"{VARIABLE} is not set, no manage.py here names one settings module, and there is no config.settings; "
            f"set {VARIABLE} to your settings module, or start in the folder of manage.py"
        )
    os.environ[VARIABLE] = found[0]


@contextmanager
def set_up(verbosity: int) -> Iterator[None]:
    """Set Django and the logs up; in the block a setting that cannot be used is a ConfigError.

    Args:
        verbosity: 0 to 3, see ``--verbosity``.

    Raises:
        ConfigError: the settings or apps of the project cannot be loaded.
    """
    import django
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    module = os.environ[VARIABLE]
    try:
        settings.configured or settings.INSTALLED_APPS  # noqa: B018
    except Exception as error:  # any error of the project's modules
        what = "be imported" if isinstance(error, ImportError) else "be used"
        raise ConfigError(f"the settings {module!r} ({VARIABLE}) cannot {what}: {explained(error)}") from error
    try:
        django.setup()
    except Exception as error:
        raise ConfigError(f"the apps in INSTALLED_APPS of {module!r} cannot be loaded: {explained(error)}") from error
    show_logs(verbosity)
    try:
        yield
    except ImproperlyConfigured as error:
        raise ConfigError(str(error)) from error


def show_logs(verbosity: int) -> None:
    """Write the logs to stderr, from levels that follow ``--verbosity`` (0 to 3)."""
    library_level = logging.DEBUG if verbosity >= 3 else logging.WARNING
    logs.show(
        {
            "channelsq": _LEVELS[verbosity],
            "uvicorn": library_level,
            "websockets": library_level,
            # Consumers that run in this process log their failures to this logger.
            "celery": library_level,
            "django": logging.WARNING if verbosity else logging.ERROR,
        }
    )
