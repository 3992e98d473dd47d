"""The state of a model's file: stored or not.

A private part of Django; ``tests/unit/binding/test_stored.py`` pins it.
"""

from __future__ import annotations

from django.db.models.fields.files import FieldFile


def is_stored(file: FieldFile) -> bool:
    """Return whether the file is in its storage, under its final name."""
    return bool(file._committed)  # type: ignore[attr-defined]
