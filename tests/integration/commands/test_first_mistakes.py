"""Mistakes of the first hour, made in a project of ``startproject``: what each program says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.fresh import FreshProject
from tests.support.processes import Process, Processes

WORKER = ("celery", "-A", "shop", "worker", "--pool", "threads", "-c", "1", "--loglevel", "WARNING")
RUNWORKER = ("python", "manage.py", "runworker")
INTERFACE = ("python", "-m", "channelsq.interface", "--port", "0")

#: What every program says where the routing cannot be read, in front of the cause.
UNREADABLE = "CHANNEL_LAYERS['default']['ROUTING'] cannot be read: cannot import the routing 'shop.routing.{}': "
REMEDY = "ROUTING is a list of route() and include(), or the dotted path to one"


@pytest.fixture
def project(tmp_path: Path) -> FreshProject:
    return FreshProject(tmp_path / "shop")


def start(processes: Processes, project: FreshProject, *programs: tuple[str, ...]) -> list[Process]:
    """Start some programs in the project's folder, all at once."""
    return [processes.start(*program, cwd=project.folder) for program in programs]


def refusals(started: list[Process]) -> list[str]:
    """Wait for the end of programs, none of which may go on; return what they have said, without line ends."""
    codes = [process.wait() for process in started]
    assert 0 not in codes
    return [" ".join(process.output.split()) for process in started]


def mistake(project: FreshProject, path: str, old: str, new: str) -> None:
    """Make a mistake: an edit, or lines at the end of a file if there is nothing to replace."""
    if old:
        project.replace(path, old, new)
    else:
        project.append(path, new)


@pytest.mark.parametrize(
    ("path", "old", "new", "attribute", "cause"),
    [
        (
            "shop/settings.py", "routing.channel_routing", "routing.chanel_routing", "chanel_routing",
            "module 'shop.routing' has nothing called 'chanel_routing'; did you mean 'channel_routing'?",
        ),
        (
            "shop/consumers.py", "", "\nraise RuntimeError('no key')\n", "channel_routing",
            "RuntimeError: no key (shop/consumers.py, line 11)",
        ),
    ],
    ids=["name", "raises"],
)  # fmt: skip
def test_a_routing_that_cannot_be_read(
    processes: Processes, project: FreshProject, path: str, old: str, new: str, attribute: str, cause: str
) -> None:
    mistake(project, path, old, new)
    *ended, interface = start(processes, project, WORKER, RUNWORKER, INTERFACE)
    said = UNREADABLE.format(attribute) + cause
    for output in refusals(ended):
        assert said in output
        assert REMEDY in output
        assert "on no broker" not in output
        assert "Traceback" not in output
    # It needs no routing, and says in development that the workers cannot start.
    interface.wait_for_output("listening on")
    assert f"no worker can start: {said}" in interface.output


def test_a_layer_that_cannot_be_made(processes: Processes, project: FreshProject) -> None:
    mistake(project, "shop/settings.py", "RedisChannelLayer", "RedisChanelLayer")
    said = "module 'channelsq.layers' has nothing called 'RedisChanelLayer'; did you mean 'RedisChannelLayer'?"
    for output in refusals(start(processes, project, WORKER, RUNWORKER, INTERFACE)):
        assert (
            f"CHANNEL_LAYERS['default']['BACKEND'] 'channelsq.layers.RedisChanelLayer' cannot be imported: {said}"
            in output
        )
        assert "Traceback" not in output


def test_settings_and_apps_that_raise(processes: Processes, project: FreshProject) -> None:
    mistake(project, "shop/celery.py", "", "\nraise RuntimeError('no broker')\n")
    (output,) = refusals(start(processes, project, INTERFACE))
    assert output.startswith(
        "channelsq interface: the settings 'shop.settings' (DJANGO_SETTINGS_MODULE) cannot be used"
    )
    assert output.endswith("RuntimeError: no broker (shop/celery.py, line 10)")


# -- what nobody's check can find: the application is not there


def test_an_application_that_is_not_installed(processes: Processes, project: FreshProject) -> None:
    mistake(project, "shop/settings.py", '    "channelsq",\n', "")
    project.replace("shop/settings.py", "CELERY_BROKER_URL = ", 'CELERY_BROKER_URL = "memory://"\nREDIS_URL = ')
    worker, interface = start(processes, project, WORKER, INTERFACE)
    said = '"channelsq" is not in INSTALLED_APPS: '
    worker.wait_for_output(re.escape(f"this worker reads no channels: {said}"))
    interface.wait_for_output("listening on")
    assert interface.output.count(said) == 1
    shell = ("python", "manage.py", "shell", "-c", "from channelsq import Group; Group('a'); Group('b')")
    (shell_process,) = start(processes, project, shell)
    assert shell_process.wait() == 0
    assert shell_process.output.count(said) == 1
    worker.kill()
    interface.kill()


def test_a_celery_app_that_discovers_no_tasks(processes: Processes, project: FreshProject) -> None:
    mistake(project, "shop/celery.py", "app.autodiscover_tasks()\n", "")
    project.replace("shop/settings.py", "CELERY_BROKER_URL = ", 'CELERY_BROKER_URL = "memory://"\nREDIS_URL = ')
    (worker,) = start(processes, project, WORKER)
    worker.wait_for_output(r"this worker reads no channels: .*call app\.autodiscover_tasks\(\)")
    worker.kill()


def test_a_celery_app_that_django_does_not_import(processes: Processes, project: FreshProject) -> None:
    project.write("shop/__init__.py", "")
    check, runworker = start(processes, project, ("python", "manage.py", "check"), RUNWORKER)
    assert check.wait() == 0
    for output in (*refusals([runworker]), check.output):
        assert "channelsq.W010) Django does not import the Celery app in shop.celery" in output
        assert "Write into shop/__init__.py: from shop.celery import app as celery_app" in output
    assert "CommandError: Django has loaded no Celery app" in runworker.output
