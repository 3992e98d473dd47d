"""The groups of sockets that an interface server remembers."""

from __future__ import annotations

import time

import pytest

from channelsq.interface.presence import socket_groups as module
from channelsq.interface.presence.socket_groups import Memberships
from channelsq.layers.contract.membership_notes import Change, is_note, note, read_note
from channelsq.layers.wire import codec

ONE, TWO = "websocket.send.p!one", "websocket.send.p!two"


def restored(memberships: Memberships) -> list[tuple[str, str]]:
    return [(group, channel) for group, channel, _ in memberships.lost()]


def test_a_note_goes_to_the_process_of_the_socket() -> None:
    send = note(Change("room", ONE, joined=True))
    assert send is not None
    assert send.target == "websocket.send.p!"
    assert is_note(send.target)
    assert read_note(codec.unpack(send.body)) == Change("room", ONE, joined=True)
    left = note(Change("room", ONE, joined=False))
    assert left is not None
    assert read_note(codec.unpack(left.body)) == Change("room", ONE, joined=False)


@pytest.mark.parametrize("channel", ["http.response.p!x", "some-channel", "websocket.send", "chat.p!x", "a?b"])
def test_what_is_no_socket_has_nobody_to_be_told(channel: str) -> None:
    assert note(Change("room", channel, joined=True)) is None


@pytest.mark.parametrize("message", [{}, {"text": "x"}, {"joined": "room"}, {"joined": ["room", 1]}, {"left": []}])
def test_what_is_no_note(message: dict[str, object]) -> None:
    assert read_note(message) is None


def test_what_is_left_and_closed_is_not_restored() -> None:
    memberships = Memberships(60)
    for group, channel in (("a", ONE), ("b", ONE), ("a", TWO)):
        assert not memberships.changed(Change(group, channel, joined=True))
    assert not memberships.changed(Change("b", ONE, joined=False))
    assert not memberships.closed(TWO)
    assert restored(memberships) == [("a", ONE)]


def test_a_membership_is_restored_for_the_time_that_it_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    memberships = Memberships(60)
    memberships.changed(Change("a", ONE, joined=True))
    now += 40
    memberships.changed(Change("b", ONE, joined=True))
    assert memberships.lost() == [("a", ONE, 20.0), ("b", ONE, 60.0)]
    now += 30
    assert memberships.lost() == [("b", ONE, 30.0)]


def test_of_many_groups_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_GROUPS", 2)
    memberships = Memberships(60)
    for group in ("a", "b", "a", "c"):
        memberships.changed(Change(group, ONE, joined=True))
    assert restored(memberships) == [("a", ONE), ("c", ONE)]


def test_changes_that_were_written_elsewhere_are_written_here_too() -> None:
    memberships = Memberships(60)
    assert memberships.changed(Change("a", ONE, joined=True), is_elsewhere=True)
    assert memberships.changed(Change("a", TWO, joined=True), is_elsewhere=True)
    assert [begun[:2] for begun in memberships.afterwards().begun] == [("a", ONE), ("a", TWO)]
    assert memberships.changed(Change("a", ONE, joined=False), is_elsewhere=True)
    assert memberships.closed(TWO)
    assert memberships.afterwards() == ([], [("a", ONE)], [TWO])


def test_what_was_under_way_during_a_restoration_is_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    memberships = Memberships(60)
    memberships.changed(Change("a", ONE, joined=True))
    memberships.changed(Change("a", TWO, joined=True))
    memberships.lost()
    assert memberships.changed(Change("a", ONE, joined=False))
    assert memberships.changed(Change("b", ONE, joined=True))
    assert memberships.closed(TWO)
    afterwards = memberships.afterwards()
    assert afterwards.begun == [("b", ONE, 60.0)]
    assert afterwards.ended == [("a", ONE)]
    assert afterwards.gone == [TWO]
    assert memberships.afterwards() == ([], [], [])
    memberships.again(afterwards)
    assert memberships.afterwards() == afterwards
    now += 61  # all notes of that time have come
    assert not memberships.changed(Change("c", ONE, joined=True))


def test_members_are_the_channels_that_are_in_a_group_now() -> None:
    memberships = Memberships(60)
    for channel in (ONE, TWO):
        memberships.changed(Change("a", channel, joined=True))
    memberships.changed(Change("a", TWO, joined=False))
    assert memberships.channels() == [ONE]
    assert ONE in memberships
    assert TWO not in memberships


def test_gateways_are_told_of_the_groups_of_their_reply_channels() -> None:
    send = note(Change("room", "gateway.send.process!abc", joined=True))
    assert send is not None
    assert send.target == "gateway.send.process!"
