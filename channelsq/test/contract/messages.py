"""Sending and receiving."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest

from channelsq.exceptions import ChannelNotLocal
from channelsq.layers import BaseChannelLayer
from channelsq.test.contract.fixtures import LayerFixtures, MakeLayer, Unique, receive, wait_until


class MessageContract(LayerFixtures):
    """Tests of sending, receiving, and ``!`` and ``?`` channels."""

    def test_a_message_comes_out_as_it_went_in(self, layer: BaseChannelLayer, unique: Unique) -> None:
        message: dict[str, Any] = {
            "text": "é ✓ 𝄞", "bytes": b"\x00\xff\x80", "none": None, "true": True, "int": -(2**63), "max": 2**63 - 1,
            "float": 1.5, "list": [1, [b"a", "b"]], "dict": {"k": {"deep": []}}, "empty": {},
        }  # fmt: skip
        layer.send(unique("c"), message)
        assert receive(layer, unique("c")) == (unique("c"), message)

    def test_tuples_arrive_as_lists(self, layer: BaseChannelLayer, unique: Unique) -> None:
        layer.send(unique("c"), {"pair": (b"a", b"b")})
        assert receive(layer, unique("c"))[1] == {"pair": [b"a", b"b"]}

    def test_first_in_first_out(self, layer: BaseChannelLayer, unique: Unique) -> None:
        for number in range(20):
            layer.send(unique("c"), {"n": number})
        assert [receive(layer, unique("c"))[1]["n"] for _ in range(20)] == list(range(20))

    def test_nothing_there(self, layer: BaseChannelLayer, unique: Unique) -> None:
        assert layer.receive([unique("c")]) == (None, None)
        assert layer.receive([]) == (None, None)

    def test_blocking_receive_gives_up(self, make_layer: MakeLayer, unique: Unique) -> None:
        layer = make_layer()
        started = time.monotonic()
        assert layer.receive([unique("c")], block=True) == (None, None)
        assert time.monotonic() - started >= layer.block_timeout * 0.9

    def test_blocking_receive_wakes_for_a_message(self, layer: BaseChannelLayer, unique: Unique) -> None:
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(receive(layer, unique("c"))))
        thread.start()
        layer.send(unique("c"), {"n": 1})
        thread.join(5)
        assert got == [(unique("c"), {"n": 1})]

    def test_each_message_goes_to_one_reader(self, layer: BaseChannelLayer, unique: Unique) -> None:
        got: list[int] = []
        lock = threading.Lock()

        def read() -> None:
            while True:
                _channel, message = layer.receive([unique("c")])
                with lock:
                    if message is not None:
                        got.append(message["n"])
                    elif len(got) >= 60:
                        return

        for number in range(60):
            layer.send(unique("c"), {"n": number})
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(got) == list(range(60))

    def test_several_channels_at_once(self, layer: BaseChannelLayer, unique: Unique) -> None:
        layer.send(unique("a"), {"n": 1})
        layer.send(unique("b"), {"n": 2})
        got = dict(receive(layer, unique("a"), unique("b"), unique("c")) for _ in range(2))
        assert got == {unique("a"): {"n": 1}, unique("b"): {"n": 2}}

    @pytest.mark.parametrize("channels", ["abc", b"abc"])
    def test_receive_takes_a_list(self, layer: BaseChannelLayer, channels: Any) -> None:
        with pytest.raises(TypeError, match=re.escape(f"[{channels!r}]")):
            layer.receive(channels)

    def test_receive_many_is_receive(self, layer: BaseChannelLayer, unique: Unique) -> None:
        layer.send(unique("c"), {"n": 1})
        assert wait_until(lambda: layer.receive_many([unique("c")])[1], "the message") == {"n": 1}

    def test_changing_the_dict_after_the_send_changes_nothing(self, layer: BaseChannelLayer, unique: Unique) -> None:
        message: dict[str, Any] = {"list": [1]}
        layer.send(unique("c"), message)
        message["list"].append(2)
        message["more"] = True
        assert receive(layer, unique("c"))[1] == {"list": [1]}

    def test_a_delayed_message_waits(self, layer: BaseChannelLayer, unique: Unique) -> None:
        prepared = layer.prepare(unique("c"), {"n": 1}, delay=0.3)
        assert prepared.delay == 0.3
        with pytest.raises(ValueError, match="delay"):
            layer.prepare(unique("c"), {}, delay=-1)
        with pytest.raises(ValueError, match="delay"):
            layer.prepare(layer.new_channel("reply!"), {}, delay=1)

    def test_new_channels_are_new_and_keep_their_type(self, layer: BaseChannelLayer) -> None:
        for pattern in ("reply!", "body?"):
            first, second = layer.new_channel(pattern), layer.new_channel(pattern)
            assert first != second
            assert first.startswith(pattern[:-1])
            assert pattern[-1] in first[:-1]
        with pytest.raises(TypeError, match="'plain'"):
            layer.new_channel("plain")

    def test_single_reader_channel(self, layer: BaseChannelLayer) -> None:
        channel = layer.new_channel("body?")
        layer.send(channel, {"content": b"x"})
        assert receive(layer, channel) == (channel, {"content": b"x"})

    def test_process_channel_by_full_name_and_by_prefix(self, layer: BaseChannelLayer) -> None:
        one, two = layer.new_channel("reply!"), layer.new_channel("reply!")
        prefix = one[: one.index("!") + 1]
        layer.send(one, {"n": 1})
        layer.send(two, {"n": 2})
        layer.send(one, {"n": 3})
        assert receive(layer, two) == (two, {"n": 2})
        assert receive(layer, prefix) == (one, {"n": 1})
        assert receive(layer, prefix) == (one, {"n": 3})

    @pytest.mark.parametrize("channel", ["reply.somebodyelse!", "reply.somebodyelse!x"])
    def test_a_process_channel_of_another_process_is_refused(self, layer: BaseChannelLayer, channel: str) -> None:
        with pytest.raises(ChannelNotLocal, match=re.escape(repr(channel))):
            layer.receive([channel])

    def test_a_send_to_another_process_is_no_error(self, layer: BaseChannelLayer) -> None:
        layer.send("reply.somebodyelse!x", {"text": "hello"})

    def test_listener(self, layer: BaseChannelLayer) -> None:
        one, two = layer.new_channel("reply!"), layer.new_channel("reply!")
        prefix = one[: one.index("!") + 1]
        got: list[tuple[list[str], dict[str, Any], str | None]] = []
        listener = layer.listen(prefix, lambda channels, message, group: got.append((sorted(channels), message, group)))
        try:
            for number in range(10):
                layer.send(one, {"n": number})
            layer.group_add("both", one)
            layer.group_add("both", two)
            layer.send_group("both", {"text": "to both"})
            wait_until(lambda: sum(len(channels) for channels, _, _ in got) == 12, "all messages")
            assert [message["n"] for channels, message, group in got if channels == [one] and group is None] == list(
                range(10)
            )
            # One delivery for all members in this process, so that a frame is made once.
            assert got[-1] == (sorted([one, two]), {"text": "to both"}, "both")
        finally:
            listener.stop()
        layer.send(one, {"n": 99})
        assert receive(layer, one) == (one, {"n": 99})
        assert got[-1][1] == {"text": "to both"}

    def test_dispatch_keeps_order_and_snapshots(self, layer: BaseChannelLayer, unique: Unique) -> None:
        reply = layer.new_channel("reply!")
        layer.group_add("room", reply)
        layer.dispatch(
            [
                layer.prepare(reply, {"n": 1}),
                layer.prepare_group("room", {"n": 2}),
                layer.prepare(unique("work"), {"n": 0}),
                layer.prepare(reply, {"n": 3}),
            ]
        )
        found = [receive(layer, reply)[1]["n"] for _ in range(3)]
        assert sorted(found) == [1, 2, 3]
        # On several servers a message to a group and one to a channel have no order.
        ordered = [1, 2, 3] if len(layer.parts) == 1 else [1, 3]
        assert [number for number in found if number in ordered] == ordered
        assert receive(layer, unique("work"))[1] == {"n": 0}
