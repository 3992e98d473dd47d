"""The doctor, run as an operator runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.support.processes import Processes


class Report:
    """The output of one run.

    Args:
        code: its exit code.
        output: all that it wrote.
    """

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output

    @property
    def told(self) -> dict[str, Any]:
        """The JSON."""
        told: dict[str, Any] = json.loads(self.output[self.output.index("{\n") :])
        return told

    @property
    def levels(self) -> dict[str, str]:
        """The level of each check; of one that has several findings the last."""
        return {each["check"]: each["level"] for each in self.told["findings"]}

    def __getitem__(self, check: str) -> dict[str, Any]:
        """The one finding of a check."""
        (finding,) = [each for each in self.told["findings"] if each["check"] == check]
        assert isinstance(finding, dict)
        return finding


def run_doctor(processes: Processes, env: Mapping[str, str], *args: str, program: str = "django") -> Report:
    """Run ``python -m django doctor --json``, or ``python -m channelsq doctor``."""
    process = processes.start("python", "-m", program, "doctor", "--json", *args, env=env)
    return Report(process.wait(90), process.output)
