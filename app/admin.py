"""The chat in Django's admin."""

from django.contrib import admin

from app.models import Attachment, Job, Message, Presence, Room


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):
    """Rooms."""

    list_display = ("name", "slug", "created_at")
    prepopulated_fields = {"slug": ("name",)}
    search_fields = ("name",)


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    """Messages, to look up and to delete."""

    list_display = ("sent_at", "room", "author", "text")
    list_filter = ("room",)
    list_select_related = ("room", "author")
    search_fields = ("text", "author__username")
    date_hierarchy = "sent_at"


@admin.register(Presence)
class PresenceAdmin(admin.ModelAdmin):
    """Open sockets, read-only."""

    list_display = ("user", "room", "channel", "seen_at")
    list_filter = ("room",)
    list_select_related = ("room", "user")

    def has_add_permission(self, request: object) -> bool:
        """Return False, as only browsers open sockets."""
        return False


@admin.register(Attachment)
class AttachmentAdmin(admin.ModelAdmin):
    """Files of messages."""

    list_display = ("name", "image_type", "size", "message")
    list_select_related = ("message__author",)
    fields = readonly_fields = ("message", "name", "image_type", "size", "alt")

    def has_add_permission(self, request: object) -> bool:
        """Return False, as only the chat attaches files."""
        return False


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    """Answers and imports, read-only."""

    list_display = ("created_at", "kind", "room", "author", "ended_at")
    list_filter = ("kind", "room")
    list_select_related = ("room", "author")
    exclude = ("ticket",)

    def has_add_permission(self, request: object) -> bool:
        """Return False, as only messages start jobs."""
        return False
