"""The views' addresses."""

from django.urls import path

from channelsq.security.tokens import token_view
from tests.project import answers, hostile, members, repeats, views

urlpatterns = [
    path("", views.hello),
    path("upload/", views.upload),
    path("download/", views.download),
    path("stream/", views.stream),
    path("endless/", views.endless),
    path("ticks/", views.ticks),
    path("slow/", views.slow),
    path("cookies/", views.cookies),
    path("count/", views.count),
    path("broken/", views.broken),
    path("framing/", views.framing),
    path("release/", answers.release_view),
    path("log-in/<slug:name>/", members.log_in),
    path("token/", token_view),
    path("repeats/parts/", repeats.parts),
    path("repeats/charge/", repeats.charge),
    path("repeats/digest/", repeats.digest),
    path("repeats/endless/", repeats.endless),
    path("repeats/silent/", repeats.silent),
    path("repeats/later/", repeats.handed_on),
    path("park-view/<slug:name>", answers.parking_view),
    path("hostile/view/<way>/", hostile.view),
    path("hostile/async_view/<way>/", hostile.async_view),
    path("hostile/stream/<way>/", hostile.stream),
    path("hostile/async_stream/<way>/", hostile.async_stream),
]
