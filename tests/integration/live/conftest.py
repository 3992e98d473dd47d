"""The pools, and a page, of the tests of live tasks.

Django's task framework is there from Django 6.0 on: ``make matrix`` runs its tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import django
import pytest

from tests.support.live import Page
from tests.support.project import Project

collect_ignore = [] if django.VERSION >= (6, 0) else ["test_django_tasks.py"]


@pytest.fixture(scope="module", params=["threads", "prefork", "solo", "gevent"])
def pool(request: pytest.FixtureRequest) -> str:
    """Each pool of Celery's."""
    return str(request.param)


@pytest.fixture
def page(project: Project) -> Iterator[Page]:
    """A socket of the module's project."""
    with Page(f"{project.ws_url}/live/") as page:
        yield page
