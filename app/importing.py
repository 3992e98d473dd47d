"""The rows of an import: from the CSV file of a message, or samples."""

from __future__ import annotations

import csv
import io

from app.models import TEXT_LENGTH, Job
from channelsq.live import PublicError

#: The most rows of a file.
MOST_ROWS = 500

#: The number of sample rows.
SAMPLES = 40

_FIRST = ("Ada", "Grace", "Alan", "Barbara", "Edsger", "Frances", "Donald", "Radia")
_THINGS = ("tea", "oats", "biscuits", "filters", "cups")
_PLACES = ("the second shelf", "the cupboard", "the shop", "the cellar", "the meeting room")


def rows_of(job: Job) -> list[str]:
    """Return the texts of the messages that a job imports.

    Raises:
        PublicError: the file is too long, not CSV in UTF-8, or has a row without a text.
    """
    if not hasattr(job.message, "attachment"):
        return list(map(sample, range(SAMPLES)))
    with job.message.attachment.file.open("rb") as file:
        return read_csv(file.read())


def sample(number: int) -> str:
    """Return a made-up row; the same for the same number."""
    name, thing = _FIRST[number % len(_FIRST)], _THINGS[number % len(_THINGS)]
    place = _PLACES[(number // 3) % len(_PLACES)]
    return f"{name}: {number % 7 + 2} packs of {thing} went to {place}."


def read_csv(data: bytes) -> list[str]:
    """Return the column ``text`` of a CSV file, after the column ``name`` if there is one; errors as :func:`rows_of`.

    Without a header ``text`` the first column is the text.
    """
    try:
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise PublicError(f"The file cannot be read: {error}. Save it as CSV in UTF-8.") from error
    rows = [(number, line) for number, line in enumerate(lines, 1) if any(map(str.strip, line))]
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    text, name = (header.index(each) if each in header and "text" in header else -1 for each in ("text", "name"))
    rows = rows[1:] if text >= 0 else rows
    if not rows:
        raise PublicError("The file has no rows. Write a column 'text' with one message in each row.")
    if len(rows) > MOST_ROWS:
        raise PublicError(f"The file has {len(rows)} rows, and the limit is {MOST_ROWS}. Divide it.")
    return [_message(number, line, max(text, 0), name) for number, line in rows]


def _message(number: int, line: list[str], text: int, name: int) -> str:
    said = line[text].strip() if text < len(line) else ""
    if not said:
        raise PublicError(f"Row {number} has no text. Fill the column, or delete the row.")
    by = f"{line[name].strip()}: " if 0 <= name < len(line) and line[name].strip() else ""
    whole = f"{by}{said}"
    if len(whole) > TEXT_LENGTH:
        raise PublicError(f"Row {number} has {len(whole)} characters, and the limit is {TEXT_LENGTH}. Shorten it.")
    return whole
