"""Stores in directories of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from channelsq.ipc.store import Store, store_at


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Store]:
    """A store."""
    found = store_at(tmp_path / "ipc")
    yield found
    found.close()
