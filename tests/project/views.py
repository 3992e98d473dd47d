"""Views that show how Django's requests and responses come through the channel."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from django.core.files.uploadedfile import UploadedFile
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from channelsq import Group
from tests.project.records import record, wait_for_go


def hello(request: HttpRequest) -> HttpResponse:
    """Say hello, and tell the group ``room`` about it."""
    Group("room").send({"text": "from a view"})
    return HttpResponse("hello")


@csrf_exempt
def upload(request: HttpRequest) -> JsonResponse:
    """Return the parts of a form with a file."""
    uploaded = request.FILES["file"]
    assert isinstance(uploaded, UploadedFile)
    digest = hashlib.sha256()
    for chunk in uploaded.chunks():
        digest.update(chunk)
    return JsonResponse({"name": uploaded.name, "sha256": digest.hexdigest(), "title": request.POST["title"]})


def download(request: HttpRequest) -> HttpResponseBase:
    """The file TEST_FILE."""
    return FileResponse(Path(os.environ["TEST_FILE"]).open("rb"), as_attachment=True, filename="größe.bin")


def stream(request: HttpRequest) -> HttpResponseBase:
    """A first part; a second one when the test has seen the first."""

    def parts() -> Iterator[str]:
        yield "first\n"
        yield "second\n" if wait_for_go("stream.go") else "the test did not see the first part\n"

    return StreamingHttpResponse(parts(), content_type="text/plain")


def endless(request: HttpRequest) -> HttpResponseBase:
    """Streams until the client has had enough; records that its generator was closed."""

    def parts() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            record("endless", "closed")

    return StreamingHttpResponse(parts())


def ticks(request: HttpRequest) -> HttpResponseBase:
    """Server-sent events: a tick every hundredth of a second, for ever or ``?n=`` times."""

    def events() -> Iterator[str]:
        for number in itertools.islice(itertools.count(), int(request.GET["n"]) if "n" in request.GET else None):
            yield f"data: {number}\n\n"
            time.sleep(0.01)

    return StreamingHttpResponse(events(), content_type="text/event-stream")


def slow(request: HttpRequest) -> HttpResponse:
    """Answers when the test lets it."""
    record("slow", "begun")
    return HttpResponse("at last" if wait_for_go("slow.go") else "the test did not let it go")


def cookies(request: HttpRequest) -> JsonResponse:
    """Give two cookies, and show those that came."""
    response = JsonResponse(request.COOKIES)
    response.set_cookie("first", "1", httponly=True, samesite="Lax")
    response.set_cookie("second", json.dumps([2, "ü"]), max_age=60)
    return response


def count(request: HttpRequest) -> HttpResponse:
    """Return how often this session has been here."""
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(str(request.session["count"]))


def framing(request: HttpRequest) -> HttpResponse:
    """A view that sets headers which are the server's."""
    headers = {"Transfer-Encoding": "chunked", "Connection": "close", "Keep-Alive": "timeout=1", "X-Own": "yes"}
    return HttpResponse("framed", headers=headers)


def broken(request: HttpRequest) -> HttpResponse:
    """A view with a fault."""
    raise RuntimeError("this view always fails, and the password is s3cret")
