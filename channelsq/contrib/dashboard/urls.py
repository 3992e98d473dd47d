"""The URL of the dashboard: ``path("-/dashboard/", include("channelsq.contrib.dashboard.urls"))``."""

from __future__ import annotations

from django.urls import path

from channelsq.contrib.dashboard import views

app_name = "channelsq_dashboard"

urlpatterns = [path("", views.dashboard, name="dashboard")]
