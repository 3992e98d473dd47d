"""The test of a module is found by its name: the folders below tests/unit/ are those of channelsq/."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import channelsq
from tests.support.processes import ROOT

PACKAGE = Path(channelsq.__file__).parent
UNIT = ROOT / "tests" / "unit"

#: Tests of the repository and of the package as a whole, which are no module's.
OF_THE_WHOLE = {
    "benchmarks",
    "distributions",
    "docs",
    "exports",
    "foreign_privates",
    "fuzz_targets",
    "hosted_checks",
    "house",
    "layout",
    "prose",
    "reference",
    "requirements",
    "types",
}

#: Tests of several modules of their folder, or of its ``__init__``.
OF_FOLDERS = {
    "contrib/admin_units",
    "worker/running/celery_internals",
    "ipc/kills",
    "transport/streams_url",
    "http/handler_parity",
}


def modules(folder: Path) -> set[str]:
    return {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}


def test_tests_are_named_for_a_module_of_their_folder() -> None:
    """``test_<module>.py``, or ``test_<module>_<subject>.py`` where a module has several."""
    lost = []
    for path in UNIT.rglob("test_*.py"):
        folder, name = path.relative_to(UNIT).parent, path.stem.removeprefix("test_")
        whole = name if folder == Path() else f"{folder.as_posix()}/{name}"
        if whole not in OF_THE_WHOLE | OF_FOLDERS and not any(
            name == module or name.startswith(f"{module}_") for module in modules(folder)
        ):
            lost.append(path.relative_to(ROOT).as_posix())
    assert not lost, "no module of this name; move or rename the test as its module was"


def test_the_exceptions_are_there() -> None:
    there = {
        (path.parent / path.stem.removeprefix("test_")).relative_to(UNIT).as_posix() for path in UNIT.rglob("test_*.py")
    }
    assert there >= OF_THE_WHOLE | OF_FOLDERS


def test_no_folder_of_tests_is_a_crowd() -> None:
    """Below tests/integration/ a folder is a subject."""
    folders = Counter(path.parent for path in (ROOT / "tests" / "integration").rglob("test_*.py"))
    assert not [folder for folder, count in folders.items() if count > 16 or folder.name == "integration"]


def test_marks_of_ways_stand_in_files_of_tests() -> None:
    """``make test-ways`` imports only the files in which one stands."""
    marked = [path for path in (ROOT / "tests").rglob("*.py") if "pytest.mark.ways(" in path.read_text()]
    assert len(marked) > 40
    assert not [path for path in marked if not path.name.startswith("test_")]
