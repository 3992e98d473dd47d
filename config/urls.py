"""The demo project's URLs."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("-/dashboard/", include("channelsq.contrib.dashboard.urls")),
    path("admin/", admin.site.urls),
    path("", include("app.urls")),
]
