"""A check that the interface server's packages have supported versions."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from channelsq.interface.basis.config import ConfigError

logger = logging.getLogger("channelsq.interface")

#: The packages whose internals the interface server uses; workers need none of them.
_NEEDED = frozenset({"httptools", "uvicorn", "websockets"})


def check_packages() -> None:
    """Compare the installed versions with channelsq's own metadata; warn about newer ones.

    Raises:
        ConfigError: a package is missing, or older than the metadata ask for.
    """
    try:
        lines = requires("channelsq") or ()
    except PackageNotFoundError:  # a checkout that is not installed
        return
    for requirement in map(Requirement, lines):
        if requirement.name in _NEEDED and requirement.marker is None:
            _check(requirement)


def _check(requirement: Requirement) -> None:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        raise ConfigError(_text(f"{requirement.name} is not installed", requirement)) from None
    if requirement.specifier.contains(installed, prereleases=True):
        return
    text = _text(f"{requirement.name} {installed} is installed", requirement)
    if any(each.operator == ">=" and not each.contains(installed, prereleases=True) for each in requirement.specifier):
        raise ConfigError(text)
    logger.warning("%s", text, extra={"action": "newer_package"})


def _text(there: str, requirement: Requirement) -> str:
    return (
        f"{there}, and the interface server is made for {requirement}: install that, or give the interface server an "
        "environment of its own"
    )
