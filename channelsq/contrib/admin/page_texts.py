"""The texts of the live admin's pages, in the language of the page."""

from __future__ import annotations

from django.utils.translation import gettext as _


def page_texts() -> dict[str, str]:
    """Return the texts of a page, by their names in the page's script."""
    return {
        "region": _("Who else is here, and what has changed"),
        "edits": _("%(name)s is editing this, too, since %(time)s"),
        "looks": _("%(name)s is looking at this, since %(time)s"),
        "youEdit": _("You have this open in another window, too, since %(time)s"),
        "more": _("and %(count)s more"),
        "saved": _("%(name)s saved this at %(time)s. Changed: %(fields)s"),
        "youSaved": _("You saved this in another window at %(time)s. Changed: %(fields)s"),
        "changed": _("This was changed at %(time)s. Changed: %(fields)s"),
        "added": _("%(name)s (added)"),
        "removed": _("%(name)s (removed)"),
        "reload": _("Reload and keep my input"),
        "reloadOnly": _("Reload"),
        "deleted": _("%(name)s deleted this at %(time)s. It cannot be saved any more."),
        "youDeleted": _("You deleted this in another window at %(time)s. It cannot be saved any more."),
        "gone": _("This was deleted at %(time)s. It cannot be saved any more."),
        "kept": _("Reloaded. Your input is back in: %(fields)s"),
        "both": _("Changed by both, with your input in the form: %(fields)s"),
        "lost": _("Please enter again: %(fields)s"),
        "rowsChanged": _("Changed: %(count)s"),
        "rowsRemoved": _("Removed: %(count)s"),
        "rowsAdded": _("Added: %(count)s"),
        "rowChanged": _("changed"),
        "rowRemoved": _("removed"),
        "rowElsewhere": _("changed, no longer on this page"),
        "unknown": _("There may be other changes."),
        "refresh": _("Refresh"),
        "offline": _("Connection lost. Changes of others are not shown until it is back."),
    }
