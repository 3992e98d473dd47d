"""Records: small documents that processes share."""

from __future__ import annotations

import threading

from channelsq.layers import BaseChannelLayer
from channelsq.layers.groups.records import RecordStore
from channelsq.test.contract.fixtures import LayerFixtures, MakeLayer, Unique, wait_until


def records_of(layer: BaseChannelLayer) -> RecordStore:
    """Return the records of a layer that has some."""
    assert layer.records is not None
    return layer.records


class RecordContract(LayerFixtures):
    """Tests of ``records``, for layers that have a place for them."""

    def test_fields_are_written_and_read(self, layer: BaseChannelLayer, unique: Unique) -> None:
        records = records_of(layer)
        assert records.read(unique("a")) == {}
        records.write(unique("a"), {"one": b"1", "two": b"\x00\xff"}, 60)
        records.write(unique("a"), {"two": b"2", "three": b""}, 60)
        assert records.read(unique("a")) == {"one": b"1", "two": b"2", "three": b""}
        assert records.read(unique("b")) == {}

    def test_a_record_can_be_deleted(self, layer: BaseChannelLayer, unique: Unique) -> None:
        records = records_of(layer)
        records.write(unique("a"), {"one": b"1"}, 60)
        records.write(unique("b"), {"one": b"1"}, 60)
        records.delete(unique("a"))
        records.delete(unique("a"))
        assert records.read(unique("a")) == {}
        assert records.read(unique("b")) == {"one": b"1"}

    def test_a_field_is_changed_by_its_value(self, layer: BaseChannelLayer, unique: Unique) -> None:
        records, seen = records_of(layer), []

        def work(value: bytes | None) -> bytes | None:
            seen.append(value)
            return (value or b"") + b"x"

        assert records.change(unique("a"), "one", work, 60) == b"x"
        assert records.change(unique("a"), "one", work, 60) == b"xx"
        assert seen == [None, b"x"]
        assert records.read(unique("a")) == {"one": b"xx"}

    def test_a_change_can_change_nothing(self, layer: BaseChannelLayer, unique: Unique) -> None:
        records = records_of(layer)
        assert records.change(unique("a"), "one", lambda value: None, 60) is None
        assert records.read(unique("a")) == {}
        records.change(unique("a"), "one", lambda value: b"1", 60)
        assert records.change(unique("a"), "one", lambda value: None, 60) == b"1"

    def test_processes_change_a_field_one_after_another(self, make_layer: MakeLayer, unique: Unique) -> None:
        one = make_layer()
        layers = [one] if one.in_process else [one, make_layer()]

        def count(layer: BaseChannelLayer) -> None:
            for _ in range(50):
                records_of(layer).change(unique("a"), "n", lambda value: b"%d" % (int(value or 0) + 1), 60)

        threads = [threading.Thread(target=count, args=[layer]) for layer in [*layers, *layers]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert records_of(one).read(unique("a")) == {"n": b"%d" % (50 * len(threads))}

    def test_a_change_starts_from_what_another_process_wrote(self, make_layer: MakeLayer, unique: Unique) -> None:
        one = make_layer()
        other = one if one.in_process else make_layer()
        records_of(one).change(unique("a"), "one", lambda value: b"1", 60)
        records_of(other).write(unique("a"), {"one": b"2"}, 60)
        seen: list[bytes | None] = []

        def look(value: bytes | None) -> bytes | None:
            seen.append(value)
            return None

        assert records_of(one).change(unique("a"), "one", look, 60) == b"2"
        assert seen[-1] == b"2"

    def test_a_record_ends_with_all_its_fields(self, layer: BaseChannelLayer, unique: Unique) -> None:
        records = records_of(layer)
        records.write(unique("a"), {"one": b"1", "two": b"2"}, 0.2)
        wait_until(lambda: not records.read(unique("a")), "the record to end")
        records.write(unique("a"), {"two": b"new"}, 60)
        assert records.read(unique("a")) == {"two": b"new"}

    def test_a_change_lets_a_record_live_longer(self, layer: BaseChannelLayer, unique: Unique) -> None:
        records = records_of(layer)
        records.write(unique("a"), {"one": b"1"}, 0.3)
        records.change(unique("a"), "two", lambda value: b"2", 60)
        records.write(unique("b"), {"one": b"1"}, 0.3)
        wait_until(lambda: not records.read(unique("b")), "the other record to end")
        assert records.read(unique("a")) == {"one": b"1", "two": b"2"}

    def test_flush_deletes_records_of_its_own_prefix(self, layer: BaseChannelLayer, unique: Unique) -> None:
        records = records_of(layer)
        records.write(unique("a"), {"one": b"1"}, 60)
        layer.flush()
        assert records.read(unique("a")) == {}
