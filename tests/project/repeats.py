"""Views and consumers that tell how often they ran, for tests in which their worker dies."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from channelsq import Channel, consumer
from channelsq.exceptions import ResponseLater
from channelsq.handler import AsgiHandler
from channelsq.message import Message
from tests.project.records import record, wait_for_go

#: Bytes of a part.
PART = 64 * 1024


def _part(number: int) -> bytes:
    """A part that says which one it is, and of which process."""
    return (b"%04d %08d" % (number, os.getpid())).ljust(PART, b".")


def parts(request: HttpRequest) -> HttpResponseBase:
    """Stream 30 parts; wait for the test before the part ``stop``."""
    record("parts", os.getpid())
    stop = int(request.GET["stop"])

    def made() -> Iterator[bytes]:
        for number in range(30):
            if number == stop:
                record("parts-waits", os.getpid())
                wait_for_go("parts.go")
            yield _part(number)

    response = StreamingHttpResponse(made(), content_type="application/octet-stream")
    if "length" in request.GET:
        response["Content-Length"] = str(30 * PART)
    return response


@csrf_exempt
def charge(request: HttpRequest) -> HttpResponse:
    """Charge a card, which takes as long as the test wants."""
    record("charges", f"{request.method} {request.GET['card']}")
    return HttpResponse("charged" if wait_for_go("charge.go") else "the test did not let it go")


@csrf_exempt
def digest(request: HttpRequest) -> JsonResponse:
    """Tell what came of a body, or of a form with a file."""
    file = request.FILES["file"] if request.FILES else request
    assert not isinstance(file, list)
    content = b"".join(iter(lambda: file.read(PART), b""))
    record("digests", len(content))
    return JsonResponse({"size": len(content), "sha256": hashlib.sha256(content).hexdigest()})


def endless(request: HttpRequest) -> HttpResponseBase:
    """Stream for ever."""

    def made() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 100
                time.sleep(0.05)
        finally:
            record("endless-closed", "sync")

    return StreamingHttpResponse(made())


async def silent(request: HttpRequest) -> HttpResponseBase:
    """Send a part, and wait for ever for the next."""

    async def made() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            record("endless-closed", "async")

    return StreamingHttpResponse(made())


def handed_on(request: HttpRequest) -> HttpResponse:
    """Have the consumer of ``answer`` answer."""
    Channel("answer").send({"reply_channel": request.reply_channel.name})  # type: ignore[attr-defined]
    raise ResponseLater


def answer(message: Message) -> None:
    """Answer in parts for a view; wait for the test in the middle."""
    record("answers", os.getpid())
    response = StreamingHttpResponse([_part(0), _part(1), _part(2)])
    for number, content in enumerate(AsgiHandler.encode_response(response)):
        if number == 2:
            record("answers-wait", os.getpid())
            wait_for_go("answer.go")
        assert message.reply_channel is not None
        message.reply_channel.send(content, immediately=True)


@consumer(rerun=False)
def pay(message: Message) -> None:
    """Pay what a frame says, which takes as long as the test wants."""
    record("payments", message["text"])
    if message["text"] == "slow":
        wait_for_go("pay.go")
    assert message.reply_channel is not None
    message.reply_channel.send({"text": f"paid {message['text']}"})


def raw(message: Message, card: str) -> None:
    """Answer requests without a view, as slowly as the test wants."""
    record("charges", f"{message['method']} {card}")
    wait_for_go("charge.go")
    assert message.reply_channel is not None
    message.reply_channel.send({"status": 200, "content": b"charged"})
