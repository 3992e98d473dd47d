"""The processes of an IPC layer, of which a test says which are dead."""

from __future__ import annotations

from channelsq.ipc.store import Store


class FakeOwners:
    """Says which processes live."""

    def __init__(self, store: Store) -> None:
        self._me = store._me
        self.dead: set[int] = set()

    @property
    def me(self) -> int:
        return self._me

    def is_alive(self, number: int) -> bool:
        return number not in self.dead

    def hand_over(self, store: Store, number: int) -> None:
        """What this process holds is another's, which then dies."""
        with store._reading() as connection:
            connection.execute("UPDATE messages SET owner = ? WHERE owner IS NOT NULL", (number,))
        self.dead.add(number)
        store.sweep(now=True)
