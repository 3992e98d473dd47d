"""The directory that the processes of one site share, which no other user can enter."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from pathlib import Path
from urllib.parse import quote

from kombu.utils.url import url_to_parts

from channelsq.exceptions import InvalidChannelLayerError

#: The scheme of broker URLs.
SCHEME = "ipc"

_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


def check_prefix(prefix: object) -> str:
    """Return ``prefix`` if it is a valid name of a directory; raise InvalidChannelLayerError otherwise."""
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InvalidChannelLayerError(
            f"the prefix of an IPCChannelLayer must be 1 to 64 ASCII letters, digits, '-', '_' and '.', the first no "
            f"'.', not {prefix!r}"
        )
    return prefix


def default_directory(prefix: str) -> Path:
    """Return the default directory of a site: among the temporary files, one for each user and prefix.

    It is not the user's runtime directory, which a service and a shell of the same user may see differently, and which
    is deleted when the user logs out.
    """
    return Path(tempfile.gettempdir()).resolve() / f"channelsq-{os.geteuid()}" / check_prefix(prefix)


def url_of(directory: Path | str) -> str:
    """Return the broker URL of a directory, an absolute path."""
    return f"{SCHEME}://{quote(str(directory))}"


def ipc_url(place: str | os.PathLike[str]) -> str:
    """Return the broker URL of a site without a broker, for ``CELERY_BROKER_URL``.

    Args:
        place: the ``prefix`` of the IPCChannelLayer, or its ``path``.

    Raises:
        InvalidChannelLayerError: ``place`` is neither an absolute path nor a prefix.
    """
    path = os.fspath(place)
    return url_of(path if os.path.isabs(path) else default_directory(path))


def directory_of(url: str) -> Path:
    """Return the directory that a broker URL names.

    Raises:
        InvalidChannelLayerError: the URL names no directory.
    """
    _, host, _, _, _, path, _ = url_to_parts(url)
    return directory_from(host, path)


def directory_from(host: str | None, path: str | None) -> Path:
    """Return the directory for the host and path of a URL."""
    if path and path != "/":
        return Path("/" + path.lstrip("/"))
    if host and host != "localhost":
        return default_directory(host)
    raise InvalidChannelLayerError("the ipc:// URL names no directory; write ipc://mysite or ipc:///srv/mysite/ipc")


def make_private(directory: Path) -> Path:
    """Create ``directory`` for this user alone, unless it exists; return it.

    Raises:
        InvalidChannelLayerError: it cannot be created, belongs to another user, or is open to others.
    """
    os.close(open_private(directory))
    return directory


def open_private(directory: Path) -> int:
    """Return a descriptor of a directory; create it as :func:`make_private` does.

    The checks apply to the opened directory, even if its path changes later.

    Raises:
        InvalidChannelLayerError: see :func:`make_private`.
    """
    shared = Path(tempfile.gettempdir()).resolve()
    try:
        if directory.parent.parent == shared:
            os.close(_open(directory.parent))
        return _open(directory)
    except OSError as error:
        raise InvalidChannelLayerError(
            f"the directory {directory} of the IPC channel layer cannot be used: {error.strerror}; {_REMEDY}"
        ) from error


def is_temporary(directory: Path) -> bool:
    """Return whether nothing in a directory need survive the machine's next restart."""
    shared = Path(tempfile.gettempdir()).resolve()
    return directory.parent.parent == shared or _is_in_memory(directory)


def _is_in_memory(directory: Path) -> bool:
    """Return whether a directory is on a file system in memory; False if the system does not tell."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for mount in mounts:
        before, _, behind = mount.partition(" - ")
        if before.split()[2] == wanted:
            return behind.split()[0] in ("tmpfs", "ramfs")
    return False


_REMEDY = "set CHANNEL_LAYERS['default']['CONFIG']['path'] to a directory of this user's own"


def _open(directory: Path) -> int:
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    _check(directory, directory.lstat())
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check(directory, os.fstat(opened))
    except BaseException:
        os.close(opened)
        raise
    return opened


def _check(directory: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidChannelLayerError(f"{directory}, for the IPC channel layer, is no directory; {_REMEDY}")
    if found.st_uid != os.geteuid():
        raise InvalidChannelLayerError(
            f"the directory {directory} of the IPC channel layer belongs to the user with the number {found.st_uid}, "
            f"and this process runs as {os.geteuid()}; run all processes of the site as one user, or {_REMEDY}"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise InvalidChannelLayerError(
            f"others than its owner can enter the directory {directory} of the IPC channel layer; chmod 700 it, or "
            f"{_REMEDY}"
        )
