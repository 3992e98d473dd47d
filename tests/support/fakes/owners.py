"""The processes of an IPC layer, of which a test says which are dead."""

from __future__ import annotations

from channelsq.ipc.store import Store


class FakeOwners:
    """Says which processes live.

    Args:
        store: the store that asks.
    """

    def __init__(self, store: Store) -> None:
        self._me = store.me
        self.dead: set[int] = set()
        store._owners = self  # type: ignore[assignment]

    @property
    def me(self) -> int:
        return self._me

    def is_alive(self, number: int) -> bool:
        return number not in self.dead

    def hand_over(self, store: Store, number: int) -> None:
        """Have another process hold what this one does, and die."""
        store.write(lambda tx: tx.connection.execute("UPDATE held SET owner = ?", (number,)))
        self.dead.add(number)
        store.sweep(now=True)
