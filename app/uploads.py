"""Files of messages: the check of an upload, and the response with a stored file."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.http import FileResponse
from django.template.defaultfilters import filesizeformat

from app.images import recognise
from app.models import Attachment
from app.models.files import ALT_LENGTH, NAME_LENGTH

#: The size if the settings have no ``CHAT_UPLOAD_SIZE``, in bytes.
DEFAULT_SIZE = 5 * 1024 * 1024

#: A served file runs no script and loads nothing, even if a browser opens it as a page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def size_limit() -> int:
    """Return the most bytes of a file."""
    return int(getattr(settings, "CHAT_UPLOAD_SIZE", DEFAULT_SIZE))


def attachment_of(upload: UploadedFile, alt: str) -> Attachment:
    """Return an unsaved attachment; raise ValidationError if the file is too large or empty."""
    name, size = readable_name(upload.name or ""), upload.size or 0
    if size > size_limit():
        has, most = (filesizeformat(each).replace("\xa0", " ") for each in (size, size_limit()))
        raise ValidationError(f"{name} has {has}, and the limit is {most}. Choose a smaller file.")
    if not size:
        raise ValidationError(f"{name} is empty. Choose a file with content.")
    image = recognise(upload)
    if image is None:
        return Attachment(file=upload, name=name, size=size)
    about: dict[str, Any] = {"image_type": image.type, "width": image.width, "height": image.height}
    return Attachment(file=upload, name=name, size=size, alt=alt[:ALT_LENGTH], **about)


def readable_name(name: str) -> str:
    """Return the name of a file without folders, control characters and overlength; the suffix stays."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(each for each in last if unicodedata.category(each)[0] != "C").strip()
    suffix = Path(clean).suffix[:20]
    return f"{clean.removesuffix(suffix)[: NAME_LENGTH - len(suffix)]}{suffix}" if clean else "file"


def response_with(attachment: Attachment) -> FileResponse:
    """Return a file for the browser: an image to show, all else to save; raise FileNotFoundError if it is gone."""
    stored = attachment.file.open("rb")
    is_image = bool(attachment.image_type)
    response = FileResponse(
        stored,
        as_attachment=not is_image,
        filename=attachment.name,
        content_type=attachment.image_type or "application/octet-stream",
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "private, max-age=86400, immutable"
    return response
