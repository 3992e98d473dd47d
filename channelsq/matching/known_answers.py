"""A cache of the routes that claimed messages of one channel, by the values that filters match."""

from __future__ import annotations

from typing import Any

#: The most answers in the cache of a channel, and the most characters of the values of one answer.
_MOST_ANSWERS, _LONGEST_QUESTION = 1000, 500


class KnownAnswers:
    """A cache of the routes that claimed messages of one channel, by the values of their filters' keys.

    The same few paths occur again and again, and matching regular expressions is most of the cost of routing.

    Args:
        keys: the message keys of the filters; None if the keys are unknown.
    """

    def __init__(self, keys: list[str] | None) -> None:
        self.known: dict[Any, Any] = {}
        self._keys = keys
        self._key = keys[0] if keys is not None and len(keys) == 1 else None

    def question(self, content: dict[str, Any]) -> Any:
        """Return the values that decide the answer.

        Raises:
            TypeError: the keys are unknown.
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
                    return  # no filter matches such a value, and its size is not bounded
                size += len(value)
        if size > _LONGEST_QUESTION:
            return
        if len(self.known) >= _MOST_ANSWERS:
            self.known.clear()
        self.known[asked] = found
