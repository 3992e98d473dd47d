"""Parts that need a package which channelsq alone does not install."""

from __future__ import annotations

from typing import Any

from django.utils.module_loading import import_string

from channelsq.interface.basis.command_line import ConfigError


def import_with(package: str, path: str, *, needed_by: str, extra: str, otherwise: str = "") -> Any:
    """Import an object whose module needs an optional package.

    Args:
        package: the package's import name.
        path: the import path of the object.
        needed_by: what needs the package, for the error text.
        extra: the extra of channelsq's that installs it.
        otherwise: another remedy, such as ``"omit --metrics"``.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        return import_string(path)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        remedy = f"pip install 'channelsq[{extra}]'" + (f", or {otherwise}" if otherwise else "")
        raise ConfigError(f"{needed_by} needs the package {package}: {remedy}") from None
