"""Certificates that nobody has signed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support import needs


def self_signed(directory: Path, name: str = "localhost", *others: str) -> tuple[Path, Path]:
    """Make a certificate and its key in ``directory``, and return both files.

    Args:
        directory: an existing one.
        name: the host's.
        others: more names as OpenSSL writes them, such as ``"IP:127.0.0.1"``.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        needs.missing("no openssl program")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-addext", "subjectAltName=" + ",".join((f"DNS:{name}", *others)), "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
