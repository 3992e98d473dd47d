"""The record of delivered messages, which every thread may change."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import memory

from channelsq.transport.recording_qos import RecordingQoS


class ListingQoS(RecordingQoS):
    """A QoS that lists what it gives back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.given_back: list[str] = []
        super().__init__(*args, **kwargs)

    def restore_unacked(self) -> None:
        self.given_back += self._unacked
        self._unacked.clear()


@pytest.fixture
def qos(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(memory.Channel, "do_restore", True)
    with Connection("memory://") as connection:
        yield ListingQoS(connection.default_channel, 2)


def test_the_prefetch_window_counts_what_is_not_acknowledged(qos: ListingQoS) -> None:
    assert (qos.can_consume(), qos.can_consume_max_estimate()) == (True, 2)
    qos.append("one", "1")
    qos.append("two", "2")
    assert (qos.can_consume(), qos.can_consume_max_estimate()) == (False, 0)
    assert qos.get("1") == "one"
    qos.ack("1")
    qos.ack("1")
    assert not qos.holds("1")
    assert (qos.can_consume(), qos.can_consume_max_estimate()) == (True, 1)
    qos.prefetch_count = 0
    assert (qos.can_consume(), qos.can_consume_max_estimate()) == (True, None)


def test_a_smaller_window_leaves_no_negative_room(qos: ListingQoS) -> None:
    qos.append("one", "1")
    qos.append("two", "2")
    qos.prefetch_count = 1
    assert qos.can_consume_max_estimate() == 0


def test_what_is_held_is_given_back_once(qos: ListingQoS) -> None:
    qos.append("one", "1")
    qos.append("two", "2")
    qos.ack("1")
    qos.restore_unacked_once()
    qos.append("three", "3")
    qos.restore_unacked_once()
    assert qos.given_back == ["2"]


def test_a_channel_that_restores_nothing_gives_nothing_back(qos: ListingQoS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Channel, "do_restore", False)
    qos.append("one", "1")
    qos.restore_unacked_once()
    assert qos.given_back == []


def test_a_process_that_ends_gives_back_what_it_holds() -> None:
    code = """
from kombu import Connection
from channelsq.transport.recording_qos import RecordingQoS

class Printing(RecordingQoS):
    def restore_unacked(self):
        print("given back", *self._unacked, flush=True)

connection = Connection("memory://")
channel = connection.default_channel
channel.do_restore = True
Printing(channel).append("one", "1")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "given back 1\n", done.stderr
