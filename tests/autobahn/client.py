"""Runs cases of the Autobahn test suite against a server; a program for ``.venv-autobahn``.

    python client.py ws://127.0.0.1:9000/ results.json 1.* 2.* ...

It stands for ``wstest --mode fuzzingclient``, which is for Python 2: the cases are the suite's own, and so is the
WebSocket client that they drive (``autobahn``).  A case is one connection, judged when that has ended.
"""

from __future__ import annotations

import codecs
import fnmatch
import json
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IConnector
from twisted.python.failure import Failure

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket import protocol as wire

sys.path.insert(0, str(Path(__file__).parent))
import cases

#: The cases give a server 0.5 to 10 s for what it should do at once, and then call it failed.  A busy machine may
#: need longer, so they wait this many times as long.  Where a case looks how fast a server is, nothing is changed.
PATIENCE = 10


def _octets(data: str | bytes | None) -> bytes | None:
    return data.encode("latin-1") if isinstance(data, str) else data


class Client(WebSocketClientProtocol):
    """One case's connection: what the cases call ``self.p``."""

    def __init__(self, factory: Run, case: Any) -> None:
        super().__init__()
        self.factory = factory
        self.connectionWasOpen = False
        self.createWirelog = False
        self.txFrameStats: dict[int, int] = {}
        self.run_case = case(self)
        self.begun = time.monotonic()

    # -- what comes -------------------------------------------------------------------------

    def onOpen(self) -> None:
        self.connectionWasOpen = True
        self.run_case.onOpen()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.run_case.onMessage(payload.decode("latin-1"), isBinary)

    def onPong(self, payload: bytes) -> None:
        self.run_case.onPong(payload.decode("latin-1"))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.run_case.onClose(wasClean, code, reason)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self.run_case.onConnectionLost(self.failedByMe)
        self.factory.over(self)

    # -- what the cases send: their strings are octets --------------------------------------

    def sendFrame(self, opcode: int, payload: str | bytes = b"", **options: Any) -> None:
        super().sendFrame(opcode, _octets(payload), **options)

    def sendMessage(self, payload: str | bytes, isBinary: bool = False, **options: Any) -> None:
        super().sendMessage(_octets(payload), isBinary, **options)

    def sendMessageFrameData(self, payload: str | bytes, sync: bool = False) -> Any:
        return super().sendMessageFrameData(_octets(payload), sync)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: str | bytes | None = None, **options: Any) -> None:
        super().sendCloseFrame(code, _octets(reasonUtf8), **options)

    def sendClose(self, code: int | None = None, reason: str | None = None) -> None:
        self.sendCloseFrame(code, reason)  # any code: that is what is tested

    def logTxFrame(self, header: Any, *rest: Any) -> None:
        self.txFrameStats[header.opcode] = self.txFrameStats.get(header.opcode, 0) + 1

    def logRxFrame(self, header: Any, payload: Any) -> None:
        pass

    def enableWirelog(self, enable: bool) -> None:
        """There is none."""

    # -- time -------------------------------------------------------------------------------

    def continueLater(self, delay: float, go_on: Any, tag: str | None = None) -> None:
        reactor.callLater(delay, lambda: self.state != self.STATE_CLOSED and go_on())

    def killAfter(self, delay: float) -> None:
        reactor.callLater(delay * PATIENCE, lambda: self.state != self.STATE_CLOSED and self._fail_connection())

    def closeAfter(self, delay: float) -> None:
        reactor.callLater(delay, lambda: None if self.state == self.STATE_CLOSED else self.sendClose())


class Run(WebSocketClientFactory):
    """Runs cases one after another."""

    def __init__(self, url: str, chosen: dict[str, Any]) -> None:
        super().__init__(url, useragent="AutobahnTestSuite")
        self.logFrames = True
        self.waiting = list(chosen.items())
        self.results: dict[str, dict[str, Any]] = {}
        self.id = ""
        self.case: Any = None

    def next(self) -> bool:
        """Take the next case; gives whether there is one."""
        if not self.waiting:
            return False
        self.id, self.case = self.waiting.pop(0)
        self.resetProtocolOptions()
        # As the suite has it; and a server may take its time to close when it has still much to read.
        self.setProtocolOptions(failByDrop=False, closeHandshakeTimeout=PATIENCE, serverConnectionDropTimeout=PATIENCE)
        self.setProtocolOptions(openHandshakeTimeout=5 * PATIENCE)
        return True

    def buildProtocol(self, address: object) -> Client:
        return Client(self, self.case)

    def over(self, client: Client) -> None:
        """A case has ended."""
        case = client.run_case
        self.results[self.id] = {
            "behavior": case.behavior,
            "behaviorClose": case.behaviorClose,
            "result": case.result,
            "resultClose": case.resultClose,
            "remoteCloseCode": client.remoteCloseCode,
            "seconds": round(time.monotonic() - client.begun, 3),
        }
        print(self.id, case.behavior, case.behaviorClose, flush=True)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        if self.next():
            connector.connect()
        else:
            reactor.stop()

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.results[self.id] = {"behavior": "FAILED", "behaviorClose": "FAILED", "result": str(reason.value)}
        self.clientConnectionLost(connector, reason)


class _Mask:
    """Masks as fast as Python can: the client's own takes the octets one by one."""

    def __init__(self, mask: bytes, length: int | None = None) -> None:
        self.mask = mask
        self.done = 0

    def pointer(self) -> int:
        return self.done

    def reset(self) -> None:
        self.done = 0

    def process(self, data: bytes) -> bytes:
        size = len(data)
        if not size:
            return data
        start = self.done & 3
        self.done += size
        mask = (self.mask[start:] + self.mask[:start]) * (size // 4 + 1)
        return (int.from_bytes(data, "big") ^ int.from_bytes(mask[:size], "big")).to_bytes(size, "big")


class _Utf8:
    """Looks at text as fast as Python can, for the same reason."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def validate(self, data: bytes) -> tuple[bool, bool, int, int]:
        try:
            self.decoder.decode(data)
        except UnicodeDecodeError as error:
            return False, False, error.start, error.start
        return True, not self.decoder.getstate()[0], len(data), len(data)


def main(url: str, results: str, patterns: list[str]) -> None:
    """Run the cases whose ids match one of the patterns and none that begins with ``-``."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("-")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("-")]
    chosen = {
        name: case
        for name, case in cases.load().items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in unwanted)
    }
    wire.create_xor_masker = _Mask
    wire.Utf8Validator = _Utf8
    run = Run(url, chosen)
    if run.next():
        reactor.connectTCP(run.host, run.port, run)
        reactor.run()
    Path(results).write_text(json.dumps(run.results, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
