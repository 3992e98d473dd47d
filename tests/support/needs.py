"""What a test does without something it needs: it is skipped, but in CI it fails."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

CI = os.environ.get("CI", "").lower() not in ("", "0", "false")


def missing(reason: str) -> NoReturn:
    """Skip the test, or with CI set in the environment fail it."""
    if CI:
        pytest.fail(f"{reason} (skipped outside CI)", pytrace=False)
    pytest.skip(reason)
