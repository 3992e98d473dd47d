"""A layer that is written outside of channelsq passes the published contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from channelsq.layers import BaseChannelLayer
from channelsq.test.contract import LayerContract, MakeLayer, QueueContract, StatisticsContract
from tests.contract.directory_layer import DirectoryChannelLayer


class TestDirectoryLayer(LayerContract, QueueContract, StatisticsContract):
    """All of the contract but what workers need."""

    @pytest.fixture
    def make_layer(self, tmp_path: Path) -> Iterator[MakeLayer]:
        made: list[BaseChannelLayer] = []

        def make(**config: Any) -> BaseChannelLayer:
            made.append(DirectoryChannelLayer(path=tmp_path, **config))
            return made[-1]

        yield make
        for layer in made:
            layer.flush()
            layer.close()


def test_workers_cannot_read_it(tmp_path: Path) -> None:
    layer = DirectoryChannelLayer(path=tmp_path)
    assert not layer.has_source
    with pytest.raises(NotImplementedError, match="DirectoryChannelLayer has no source for workers"):
        layer.source(None)  # type: ignore[arg-type]
