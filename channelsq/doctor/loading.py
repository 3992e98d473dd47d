"""Loading of a project's settings and applications, with the cause of a failure."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from channelsq.core.settings_module import VARIABLE, find_settings
from channelsq.diagnostics.causes import explained
from channelsq.doctor.findings import Finding, error, ok

_CHECK = "settings"


def load(folder: Path) -> list[Finding]:
    """Load the settings, then the applications; return a finding, an error if that failed.

    Args:
        folder: the folder of the project.
    """
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    found = find_settings(folder)
    if found is None:
        return [
            error(
                _CHECK,
                f"{VARIABLE} is not set, no manage.py in {folder} names one settings module, and there is no "
                "config.settings.",
                f"Run this in your project's folder, or set {VARIABLE}, such as shop.settings.",
            )
        ]
    module, source = found
    os.environ[VARIABLE] = module
    problem = _import_settings(module, folder) or _set_up(folder)
    return [problem or ok(_CHECK, f"The settings {module} ({source}) are loaded.", module=module)]


def _import_settings(module: str, folder: Path) -> Finding | None:
    from django.conf import settings

    try:
        settings.configured or settings.INSTALLED_APPS  # noqa: B018
    except Exception as failure:
        text = f"The settings {module} cannot be imported: {explained(failure)}."
        return error(_CHECK, text, _remedy(failure, module, folder))
    return None


def _set_up(folder: Path) -> Finding | None:
    import django

    try:
        django.setup()
    except Exception as failure:
        text = f"The applications in INSTALLED_APPS cannot be loaded: {explained(failure)}."
        return error(_CHECK, text, _remedy(failure, "", folder))
    return None


def _remedy(failure: Exception, module: str, folder: Path) -> str:
    if isinstance(failure, ModuleNotFoundError) and failure.name:
        if module and (module == failure.name or module.startswith(f"{failure.name}.")):
            others = ", ".join(_candidates(folder))
            there = f" Modules that look like settings here: {others}." if others else ""
            return f"Correct {VARIABLE}, or run this in the folder that has {module.partition('.')[0]}/.{there}"
        return f"Install {failure.name.partition('.')[0]} for {sys.executable}, or correct the name."
    if isinstance(failure, KeyError) and failure.args:
        return f"If {failure.args[0]} is an environment variable: set it here as your processes have it."
    if isinstance(failure, SyntaxError):
        return "Correct that line."
    return "Correct the settings, or set the environment variables that they read, as your processes have them."


def _candidates(folder: Path) -> Iterator[str]:
    """Yield modules of the folder that look like settings."""
    for path in sorted([*folder.glob("*/settings.py"), *folder.glob("*/settings/*.py")])[:10]:
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(folder).with_suffix("").parts)


def check_installed() -> Iterator[Finding]:
    """Check whether channelsq is an application of the project."""
    from django.apps import apps

    if apps.is_installed("channelsq"):
        yield ok("settings.installed", '"channelsq" is in INSTALLED_APPS.')
    else:
        yield error(
            "settings.installed",
            '"channelsq" is not in INSTALLED_APPS: no worker consumes channels, and no command is known.',
            'Put "channelsq" first in INSTALLED_APPS.',
        )
