"""The examples of the page on testing are tests that pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.markdown import blocks, doc_page
from tests.support.processes import ROOT, environment


def test_the_examples_of_the_page_on_testing_pass(tmp_path: Path) -> None:
    examples = [block for block in blocks(doc_page("testing")) if block.runnable]
    for number, block in enumerate(examples):
        (tmp_path / f"test_example_{number}.py").write_text(block.text)
    (tmp_path / "example_settings.py").write_text(
        "from tests.settings import *\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}\n"
    )
    # Only where channelsq is installed as this checkout, an import hook of the installation stands beside its plugin.
    editable = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
    command = ["-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "-W", editable]
    command += ["--rootdir", ".", "-c", "/dev/null", "-v"]
    done = subprocess.run(
        [sys.executable, *command, "--ds", "example_settings"],
        cwd=tmp_path,
        env=environment({"PYTHONPATH": f"{tmp_path}:{ROOT}"}),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for number in range(len(examples)):
        assert f"test_example_{number}.py::" in done.stdout
