"""The project's own Celery app, and its settings that channelsq must know."""

from __future__ import annotations

import threading

from celery import Celery, current_app

from channelsq.core import celery_app_internals


def test_the_app_that_a_project_has_made_is_found_and_that_of_no_other_thread() -> None:
    found: list[Celery | None] = []

    def make() -> None:
        found.append(celery_app_internals.app_of_thread())
        app = Celery("shop")
        found.extend((app, celery_app_internals.app_of_thread()))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert found[0] is None
    assert isinstance(found[1], Celery)
    assert found[2] is found[1]


def test_consumers_are_registered_with_the_app_and_no_proxy_of_it() -> None:
    app = celery_app_internals.current_app()
    assert type(app) is Celery
    assert app is not current_app
    assert app == current_app


def test_a_setting_of_the_projects_is_kept_under_whatever_name_it_was_given() -> None:
    app = Celery("shop", set_as_current=False)
    app.config_from_object({"CELERY_WORKER_POOL": "solo", "CELERY_BROKER_HEARTBEAT": 5}, namespace="CELERY")
    assert celery_app_internals.is_chosen(app, "worker_pool")
    assert celery_app_internals.is_chosen(app, "broker_heartbeat")
    assert not celery_app_internals.is_chosen(app, "worker_concurrency")
    app.conf.worker_concurrency = 3
    assert celery_app_internals.is_chosen(app, "worker_concurrency")
