"""URLs with the dashboard and no admin."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("-/dashboard/", include("channelsq.contrib.dashboard.urls"))]
