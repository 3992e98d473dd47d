"""The form of all that pages get by their sockets."""

from __future__ import annotations

import json
from typing import Any


def frame(**content: Any) -> dict[str, Any]:
    """Return a WebSocket text frame with ``content`` as JSON, ready for a channel or a group."""
    return {"text": json.dumps(content, ensure_ascii=False)}
