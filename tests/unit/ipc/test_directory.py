"""The directory of an IPCChannelLayer, and its access rights."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from channelsq import conf
from channelsq.exceptions import InvalidChannelLayerError
from channelsq.ipc import ipc_url
from channelsq.ipc.directory import default_directory, directory_of, is_temporary, make_private, open_private, url_of
from channelsq.layers import IPCChannelLayer


def test_each_prefix_has_a_directory_of_this_user() -> None:
    one, two = default_directory("one"), default_directory("two")
    assert one != two
    assert one.parent == two.parent == Path(tempfile.gettempdir()).resolve() / f"channelsq-{os.geteuid()}"


@pytest.mark.parametrize("path", ["/srv/my site/ipc", "/tmp/Upper?Case#", "/a"])
def test_urls_name_a_directory(path: str) -> None:
    assert directory_of(ipc_url(path)) == directory_of(url_of(Path(path))) == Path(path)


def test_urls_name_a_prefix() -> None:
    assert directory_of("ipc://mysite") == directory_of(ipc_url("mysite")) == default_directory("mysite")
    with pytest.raises(InvalidChannelLayerError, match="ipc://mysite"):
        directory_of("ipc://")


@pytest.mark.parametrize("prefix", ["", "..", ".hidden", "a/b", "é", "x" * 65, 5, None])
def test_bad_prefixes(prefix: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match="prefix of an IPCChannelLayer"):
        default_directory(prefix)


def test_the_directory_is_made_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = make_private(tmp_path / "ipc")
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert make_private(made) == made


def test_directories_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "mine").mkdir(mode=0o700)
    for name, says in (
        ("file", "no directory"),
        ("link", "no directory"),
        ("open", "chmod 700"),
        ("no/such", "cannot be used: No such file"),
    ):
        with pytest.raises(InvalidChannelLayerError, match=says) as raised:
            make_private(tmp_path / name)
        assert "['CONFIG']['path']" in str(raised.value)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(InvalidChannelLayerError, match=f"belongs to the user with the number {os.getuid()}"):
        make_private(tmp_path / "mine")


def test_the_layer_refuses_a_directory_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    layer = IPCChannelLayer(path=str(tmp_path / "open"))
    with pytest.raises(InvalidChannelLayerError, match="chmod 700"):
        _ = layer.url


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"path": "relative"}, "absolute path, not 'relative'"),
        ({"path": 5}, "absolute path, not 5"),
        ({"prefix": "a/b"}, "'a/b'"),
        ({"url": "redis://x"}, r"no CONFIG\['url'\]"),
        ({"channel_memory": 1000}, r"no CONFIG\['channel_memory'\].*'capacity' bounds"),
    ],
    ids=str,
)
def test_bad_configuration(config: Any, says: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=says):
        IPCChannelLayer(**config)


def test_channels_1_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    layer = IPCChannelLayer(prefix="mysite", expiry=30, group_expiry=500, capacity=10, channel_capacity={"a": 1})
    assert layer.own_url == ipc_url("mysite")
    assert not layer.in_process
    assert layer.is_on("ipc://mysite")
    assert not layer.is_on("ipc://another")
    assert default_directory("mysite").stat().st_mode & 0o777 == 0o700


def test_a_layer_that_chose_nothing_is_where_the_celery_app_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = IPCChannelLayer()
    monkeypatch.setattr(conf, "celery_broker_url", lambda app=None: ipc_url(tmp_path / "app"))
    assert layer.url == ipc_url(tmp_path / "app")
    monkeypatch.setattr(conf, "celery_broker_url", lambda app=None: "redis://elsewhere")
    assert layer.own_url == ipc_url("channelsq")
    assert IPCChannelLayer(path=tmp_path / "mine").is_on(ipc_url(tmp_path / "mine"))


def test_a_directory_that_was_exchanged_for_a_link_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, others = make_private(tmp_path / "mine"), make_private(tmp_path / "others")
    first_look = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        """Act as an attacker between the check and the use."""
        found = first_look(path)
        if path == mine and not os.path.islink(mine):
            mine.rmdir()
            mine.symlink_to(others)
        return found

    monkeypatch.setattr(Path, "lstat", lstat)
    with pytest.raises(InvalidChannelLayerError, match="cannot be used"):
        open_private(mine)


def test_which_directories_need_not_outlive_a_restart(tmp_path: Path) -> None:
    assert is_temporary(default_directory("mysite"))
    assert not is_temporary(make_private(tmp_path / "ipc"))
    memory = Path("/dev/shm")
    if memory.is_dir():
        place = Path(tempfile.mkdtemp(dir=memory))
        assert is_temporary(place)
        place.rmdir()
