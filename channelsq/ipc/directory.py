"""The directory that the processes of one site share: which it is, and that nobody else can write into it."""

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

#: That of broker URLs.
SCHEME = "ipc"

_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


def check_prefix(prefix: object) -> str:
    """``prefix``, if a directory can be called so; else raises InvalidChannelLayerError."""
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InvalidChannelLayerError(
            f"the prefix of an IPCChannelLayer must be 1 to 64 ASCII letters, digits, '-', '_' and '.', the first no "
            f"'.', not {prefix!r}"
        )
    return prefix


def default_directory(prefix: str) -> Path:
    """The directory of a site that chose none: among the temporary files, one for each user and prefix.

    Not the user's runtime directory, which a service and a shell of the same user may see differently, and which
    is deleted when the user logs out.
    """
    return Path(tempfile.gettempdir()).resolve() / f"channelsq-{os.geteuid()}" / check_prefix(prefix)


def url_of(directory: Path | str) -> str:
    """The broker URL of a directory, an absolute path."""
    return f"{SCHEME}://{quote(str(directory))}"


def ipc_url(place: str | os.PathLike[str]) -> str:
    """The broker URL of a site without a broker, for ``CELERY_BROKER_URL``.

    Args:
        place: the ``prefix`` of the IPCChannelLayer, or its ``path``.

    Raises:
        InvalidChannelLayerError: it is neither an absolute path nor a prefix.
    """
    path = os.fspath(place)
    return url_of(path if os.path.isabs(path) else default_directory(path))


def directory_of(url: str) -> Path:
    """The directory that a broker URL names.

    Raises:
        InvalidChannelLayerError: it names none.
    """
    _, host, _, _, _, path, _ = url_to_parts(url)
    return directory_from(host, path)


def directory_from(host: str | None, path: str | None) -> Path:
    """The same for a URL that Kombu has taken apart."""
    if path and path != "/":
        return Path("/" + path.lstrip("/"))
    if host and host != "localhost":
        return default_directory(host)
    raise InvalidChannelLayerError("the ipc:// URL names no directory; write ipc://mysite or ipc:///srv/mysite/ipc")


def make_private(directory: Path) -> Path:
    """Make ``directory`` for this user alone, unless it is there; return it.

    Raises:
        InvalidChannelLayerError: it cannot be made, is another user's, or others can enter it.
    """
    os.close(open_private(directory))
    return directory


def open_private(directory: Path) -> int:
    """Return a descriptor of a directory, as :func:`make_private` makes it.

    The checks are of the directory that was opened, whatever its path leads to a moment later.

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
    """Whether nothing in a directory need outlive the machine's next restart."""
    shared = Path(tempfile.gettempdir()).resolve()
    return directory.parent.parent == shared or _is_in_memory(directory)


def _is_in_memory(directory: Path) -> bool:
    """Whether a directory is on a file system of the machine's memory; False where the system does not say."""
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
