"""Django's admin, live: who else has an object open, what was saved, and changelists that follow the database."""

from channelsq.contrib.admin.live_sites import LiveAdminMixin

__all__ = ["LiveAdminMixin"]
