"""The data of the live admin in a page."""

from __future__ import annotations

import json
import re


def data_of(html: str) -> dict[str, object]:
    """Return what the live admin has put into a page; {} if nothing."""
    found = re.search(r'<script id="channelsq-admin" type="application/json">(.*?)</script>', html)
    data: dict[str, object] = json.loads(found[1]) if found else {}
    return data
