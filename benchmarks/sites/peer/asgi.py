"""The ASGI application, laid out as Channels' documentation says."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.sites.peer.settings")
django_application = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # type: ignore[import-untyped]  # noqa: E402 - after setup
from django.urls import path  # noqa: E402

from benchmarks.sites.peer import consumers  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": URLRouter(
            [
                path("echo/sync/", consumers.EchoSync.as_asgi()),
                path("echo/async/", consumers.EchoAsync.as_asgi()),
                path("wait/<int:us>/sync/", consumers.WaitSync.as_asgi()),
                path("query/sync/", consumers.QuerySync.as_asgi()),
                path("query/async/", consumers.QueryAsync.as_asgi()),
                path("fan/core/<slug:group>/", consumers.FanCore.as_asgi()),
                path("fan/pubsub/<slug:group>/", consumers.FanPubsub.as_asgi()),
            ]
        ),
    }
)
