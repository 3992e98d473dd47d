"""The page of the dashboard.  Its content comes through its socket."""

from __future__ import annotations

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, get_script_prefix, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from channelsq import conf
from channelsq.contrib.dashboard.dashboard_users import may_act, may_look


@require_safe
@never_cache
def dashboard(request: HttpRequest) -> HttpResponse:
    """Return the page for staff.

    Raises:
        Http404: the dashboard is off.
        PermissionDenied: the user is not staff.
    """
    chosen = conf.dashboard_settings()
    if not chosen.is_on:
        raise Http404("The dashboard is off: DEBUG is off, and CHANNEL_DASHBOARD has no 'enabled': True.")
    if not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path(), _login_url())
    if not may_look(request.user):
        raise PermissionDenied("The dashboard is for staff.")
    context = {
        "socket": get_script_prefix().rstrip("/") + chosen.path,
        "every": int(chosen.every * 1000),
        "may_act": may_act(request.user),
    }
    return render(request, "channelsq/dashboard/dashboard.html", context)


def _login_url() -> str | None:
    """Return the login page of the admin; None, which stands for ``LOGIN_URL``, if the site has no admin."""
    try:
        return reverse("admin:login")
    except NoReverseMatch:
        return None
