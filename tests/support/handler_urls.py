"""Views that the tests of the HTTP handler run."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotModified,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from channelsq import Channel
from channelsq.exceptions import ResponseLater
from channelsq.handler import AsgiRequest

events: list[str] = []


@csrf_exempt
def echo(request: HttpRequest) -> JsonResponse:
    files = {
        name: [file.name, file.size, file.content_type, file.read().decode("latin-1")]
        for name, file in request.FILES.items()
        if isinstance(file, UploadedFile)
    }
    return JsonResponse(
        {
            "method": request.method,
            "path": request.path,
            "path_info": request.path_info,
            "full": request.get_full_path(),
            "url": request.build_absolute_uri(),
            "scheme": request.scheme,
            "secure": request.is_secure(),
            "script_name": request.META["SCRIPT_NAME"],
            "reversed": reverse("echo"),
            "GET": dict(request.GET.lists()),
            "POST": dict(request.POST.lists()),
            "FILES": files,
            "COOKIES": request.COOKIES,
            "headers": {name: value for name, value in sorted(request.headers.items()) if name != "Content-Length"},
            "remote": request.META.get("REMOTE_ADDR"),
            "server": [request.META["SERVER_NAME"], request.META["SERVER_PORT"]],
            "content_type": request.content_type,
        }
    )


@csrf_exempt
def body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, content_type="application/octet-stream")


@csrf_exempt
def json_sum(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"sum": sum(json.loads(request.body)["numbers"])})


@csrf_exempt
def upload(request: HttpRequest) -> JsonResponse:
    file = request.FILES["file"]
    assert isinstance(file, UploadedFile)
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return JsonResponse(
        {
            "size": file.size,
            "sha256": digest.hexdigest(),
            "temporary": isinstance(file, TemporaryUploadedFile),
            "title": request.POST["title"],
        }
    )


def cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("cookies")
    response.set_cookie("a", "1", httponly=True, samesite="Lax")
    response.set_cookie("b", "two words; and more", path="/x")
    response.delete_cookie("c")
    return response


def visits(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


@csrf_protect
def form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_token(request) if request.method == "GET" else request.POST["text"])


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(["one ", "två ", b"three"])


def long_stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[bytes]:
        try:
            for number in range(int(request.GET["n"])):
                events.append(f"part {number}")
                yield b"x" * int(request.GET.get("size", 10))
        finally:
            events.append("closed")

    return StreamingHttpResponse(parts(), content_type="text/plain")


def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        try:
            for number in range(int(request.GET["n"])):
                await asyncio.to_thread(events.append, f"part {number}")
                assert asyncio.get_running_loop() is loop
                yield f"{number} "
        finally:
            events.append("closed")

    return StreamingHttpResponse(parts(), content_type="text/plain")


language: ContextVar[str] = ContextVar("language", default="none")


def quiet_stream(request: HttpRequest) -> StreamingHttpResponse:
    """A part, and then none until ``events`` says "go"; what it sets in its context stays."""

    async def parts() -> AsyncIterator[str]:
        language.set("sv")
        try:
            if request.GET.get("first"):
                yield "first "
            while "go" not in events:
                await asyncio.sleep(0.01)
            yield f"second in {language.get()}"
        finally:
            events.append("closed")

    return StreamingHttpResponse(parts(), content_type="text/plain")


def broken_stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[bytes]:
        try:
            yield b"begun"
            raise RuntimeError("the stream broke")
        finally:
            events.append("closed")

    return StreamingHttpResponse(parts())


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"), filename="urls.txt", as_attachment=True)


def big_file(request: HttpRequest) -> FileResponse:
    spool = tempfile.TemporaryFile()  # noqa: SIM115
    spool.write(bytes(range(256)) * 4096 * 3)
    spool.seek(0)
    return FileResponse(spool, content_type="application/octet-stream")


def memory_file(request: HttpRequest) -> FileResponse:
    return FileResponse(io.BytesIO(b"in memory"), filename="memory.pdf")


def big(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"y" * int(request.GET["n"]))


def not_found(request: HttpRequest) -> HttpResponse:
    raise Http404("there is no such thing")


def forbidden(request: HttpRequest) -> HttpResponse:
    raise PermissionDenied


def suspicious(request: HttpRequest) -> HttpResponse:
    raise SuspiciousOperation("odd")


def error(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError("the view failed")


def leave(request: HttpRequest) -> HttpResponse:
    raise SystemExit(3)


def later(request: HttpRequest) -> HttpResponse:
    assert isinstance(request, AsgiRequest)
    assert request.reply_channel is not None
    Channel("somewhere", channel_layer=request.reply_channel.channel_layer).send(
        {"answer_to": request.reply_channel.name}, immediately=True
    )
    raise ResponseLater


async def async_later(request: HttpRequest) -> HttpResponse:
    assert isinstance(request, AsgiRequest)
    raise request.ResponseLater


def no_content(request: HttpRequest) -> HttpResponse:
    return HttpResponse("not allowed here", status=204, headers={"Content-Length": "16"})


def not_modified(request: HttpRequest) -> HttpResponse:
    return HttpResponseNotModified(headers={"ETag": '"x"'})


def redirect(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=302, headers={"Location": "/æ/".encode().decode("latin-1")})


async def async_view(request: HttpRequest) -> HttpResponse:
    await asyncio.to_thread(lambda: None)
    return HttpResponse("async")


def none(request: HttpRequest) -> None:
    return None


urlpatterns = [
    path("echo/", echo, name="echo"),
    path("body/", body),
    path("json/", json_sum),
    path("upload/", upload),
    path("cookies/", cookies),
    path("visits/", visits),
    path("form/", form),
    path("stream/", stream),
    path("long-stream/", long_stream),
    path("async-stream/", async_stream),
    path("quiet-stream/", quiet_stream),
    path("broken-stream/", broken_stream),
    path("file/", file),
    path("big-file/", big_file),
    path("memory-file/", memory_file),
    path("big/", big),
    path("not-found/", not_found),
    path("forbidden/", forbidden),
    path("suspicious/", suspicious),
    path("error/", error),
    path("leave/", leave),
    path("later/", later),
    path("async-later/", async_later),
    path("no-content/", no_content),
    path("not-modified/", not_modified),
    path("redirect/", redirect),
    path("async/", async_view),
    path("none/", none),  # type: ignore[arg-type]  # a view must return a response, which is what is tested
    path("", lambda request: HttpResponse("root")),
]
