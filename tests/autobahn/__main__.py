"""Runs the Autobahn WebSocket test suite: ``make autobahn``, or ``python -m tests.autobahn [case ...]``.

``"6.*" -6.4.*`` chooses cases, ``--install`` only makes ``.venv-autobahn``.  All cases take some minutes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.autobahn import running


def main(patterns: list[str]) -> int:
    """Run the cases against both; gives the exit code."""
    running.install()
    if patterns == ["--install"]:
        return 0
    if not any(not each.startswith("-") for each in patterns):
        patterns = ["*", *patterns]
    failed = False
    for name, start in (("whole stack", running.whole_stack), ("interface alone", running.interface_alone)):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="autobahn-") as folder, start(Path(folder)) as url:
            results = running.run(url, Path(folder), patterns, show=True)
        print(f"\n{name}, {time.monotonic() - began:.0f} s\n\n{running.table(results)}\n")
        print("\n".join(running.notable(results)), flush=True)
        failed = failed or not results or not all(each.passed for each in results)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
