"""Requirements of tests: a test that lacks one is skipped, but fails in CI."""

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
