"""Which route claimed messages of one channel, by the values that its filters look at."""

from __future__ import annotations

from typing import Any

#: Answers that are kept for each channel, and the characters of what was asked that one of them may have.
_MOST_ANSWERS, _LONGEST_QUESTION = 1000, 500


class KnownAnswers:
    """A cache of the routes that claimed messages of one channel, by the values of their filters' keys.

    The same few paths occur again and again, and matching regular expressions is most of the cost of routing.

    Args:
        keys: the message keys of the filters; None if they cannot be known.
    """

    def __init__(self, keys: list[str] | None) -> None:
        self.known: dict[Any, Any] = {}
        self._keys = keys
        self._key = keys[0] if keys is not None and len(keys) == 1 else None

    def question(self, content: dict[str, Any]) -> Any:
        """Return the values that decide the answer.

        Raises:
            TypeError: they are unknown.
        """
        if self._key is not None:
            return content.get(self._key)
        if self._keys is None:
            raise TypeError
        return tuple([content.get(key) for key in self._keys])

    def note(self, asked: Any, found: Any) -> None:
        """Cache an answer, unless the question is too long."""
        size = 0
        for value in asked if type(asked) is tuple else (asked,):
            if value is not None:
                if not isinstance(value, (str, bytes)):
                    return  # no filter matches it; it may be of any size
                size += len(value)
        if size > _LONGEST_QUESTION:
            return
        if len(self.known) >= _MOST_ANSWERS:
            self.known.clear()
        self.known[asked] = found
