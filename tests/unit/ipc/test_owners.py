"""The living processes of a site."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from channelsq.ipc.owners import Owners

_OTHER = """
import sys
from pathlib import Path
from channelsq.ipc.owners import Owners
print(Owners(Path(sys.argv[1])).me, flush=True)
sys.stdin.read()
"""


def test_a_killed_process_is_known_to_be_dead(tmp_path: Path) -> None:
    mine = Owners(tmp_path / "owners")
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(tmp_path / "owners")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        number = int(other.stdout.readline())
        assert mine.is_alive(mine.me)
        assert mine.is_alive(number)
        other.kill()
        other.wait()
        assert not mine.is_alive(number)
        assert not mine.is_alive(number)
        assert mine.is_alive(mine.me)
