"""A file that says that it is a terminal."""

from __future__ import annotations

import io


class FakeTerminal(io.StringIO):
    """Keeps what is written, with its colours."""

    def isatty(self) -> bool:
        return True
