"""Django's admin, live: it shows other editors of an object and new changes, and updates changelists."""

from channelsq.contrib.admin.live_sites import LiveAdminMixin

__all__ = ["LiveAdminMixin"]
