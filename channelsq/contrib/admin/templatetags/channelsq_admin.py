"""``{% channelsq_admin %}``: the script and data of a live admin page; empty on other pages."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.context import Context
from django.templatetags.static import static
from django.urls import get_script_prefix
from django.utils.html import format_html, format_html_join, json_script
from django.utils.safestring import SafeString

from channelsq import conf
from channelsq.contrib.admin.live_sites import admin_of
from channelsq.contrib.admin.open_pages import CHANGE, LIST, MOST_ROWS, OpenPage, digest_of, now
from channelsq.contrib.admin.page_texts import page_texts

register = template.Library()

_SCRIPTS = (
    "channelsq/js/websocketbridge.js",
    *(f"channelsq/admin/{name}.js" for name in ("bar", "form", "list", "live")),
)


@register.simple_tag(takes_context=True)
def channelsq_admin(context: Context, kind: str) -> str | SafeString:
    """Return the script, the stylesheet and the data of a live page.

    Args:
        context: the context of the admin's template.
        kind: the kind of template: change, history, delete or list.
    """
    request, opts = getattr(context, "request", None), context.get("opts")
    user = getattr(request, "user", None)
    site = getattr(request, "current_app", None)
    if (
        opts is None
        or user is None
        or not user.is_authenticated
        or not site
        or admin_of(site, opts.label_lower) is None
    ):
        return ""
    page = _page(context, kind, site, opts.label_lower, str(user.pk))
    if page is None:
        return ""
    data = {
        "page": page.signed(),
        "kind": kind,
        "url": get_script_prefix().rstrip("/") + conf.admin_path(),
        "rows": page.rows,
        "bound": _is_bound(context, kind),
        "texts": page_texts(),
    }
    # Set by Django 6.0 and later: django.template.context_processors.csp.
    nonce = context.get("csp_nonce")
    with_nonce = format_html(' nonce="{}"', nonce) if nonce else ""
    return format_html(
        '<link rel="stylesheet" href="{}"{}>\n{}\n{}',
        static("channelsq/admin/live.css"),
        with_nonce,
        json_script(data, "channelsq-admin"),
        format_html_join("\n", '<script src="{}" defer{}></script>', ((static(each), with_nonce) for each in _SCRIPTS)),
    )


def _is_bound(context: Context, kind: str) -> bool:
    """Return whether a form on the page shows the user's input instead of the stored values."""
    if kind == LIST:
        return context["cl"].formset is not None and bool(context["cl"].formset.is_bound)
    return kind == CHANGE and bool(context["adminform"].form.is_bound)


def _page(context: Context, kind: str, site: str, label: str, user: str) -> OpenPage | None:
    is_bound = _is_bound(context, kind)
    if kind == LIST:
        rows = list(context["cl"].result_list)[:MOST_ROWS]
        keys = tuple(str(each.pk) for each in rows)
        return OpenPage(kind, site, label, "", user, now(), "" if is_bound else digest_of(rows), keys)
    shown: Any = context.get("original") or context.get("object")
    if shown is None or shown.pk is None:
        return None
    return OpenPage(kind, site, label, str(shown.pk), user, now(), "" if is_bound else digest_of([shown]))
