"""RabbitMQ, PostgreSQL and options of the worker; rows that need one of them are left out without it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys

import kombu
import kombu.exceptions

from benchmarks import peers
from benchmarks.programs import ROOT, environment

#: The addresses of RabbitMQ and PostgreSQL, unless the environment has others.
RABBITMQ = "amqp://guest:guest@127.0.0.1:5672//"
POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"


class Unavailable(Exception):
    """A row cannot be measured on this machine, or with this version of channelsq.

    Attributes:
        need: the missing part, as named in :class:`benchmarks.targets.Target`.
    """

    def __init__(self, need: str, reason: str) -> None:
        super().__init__(f"no {need}: {' '.join(reason.split())}")
        self.need = need


class Vhost:
    """A virtual host on the local RabbitMQ, so that other queues stay untouched.

    With ``BENCH_RABBITMQ`` in the environment it is that URL instead, and nothing is created or deleted.

    Raises:
        Unavailable: RabbitMQ does not answer, or does not let this user create virtual hosts.
    """

    def __init__(self) -> None:
        given = os.environ.get("BENCH_RABBITMQ")
        self.url = given or RABBITMQ
        self._name = "" if given else f"channelsq-benchmarks-{secrets.token_hex(4)}"
        self._answers()
        if self._name:
            self._control("add_vhost", self._name)
            self._control("set_permissions", "-p", self._name, "guest", ".*", ".*", ".*")
            self.url = RABBITMQ.removesuffix("/") + self._name

    def _answers(self) -> None:
        with kombu.Connection(self.url, connect_timeout=3) as connection:
            try:
                connection.ensure_connection(max_retries=1, timeout=3)
            except kombu.exceptions.OperationalError as error:
                raise Unavailable("RabbitMQ", str(error)) from None

    def _control(self, *args: str) -> None:
        program = shutil.which("rabbitmqctl", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
        if program is None:
            raise Unavailable("RabbitMQ", "rabbitmqctl is not installed; BENCH_RABBITMQ names a virtual host to use")
        done = subprocess.run([program, "--quiet", *args], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Unavailable("RabbitMQ", f"rabbitmqctl {args[0]}: {done.stderr or done.stdout}")

    def delete(self) -> None:
        """Delete the virtual host with its queues."""
        if self._name:
            self._control("delete_vhost", self._name)


def postgres() -> str:
    """Return the URL of a PostgreSQL that answers: ``BENCH_POSTGRES``, else the one of this machine.

    Raises:
        Unavailable: it does not answer, or refuses this user.
    """
    url = os.environ.get("BENCH_POSTGRES", POSTGRES)
    code = "import sys, psycopg; psycopg.connect(sys.argv[1], connect_timeout=3).execute('SELECT 1')"
    done = subprocess.run([peers.PYTHON, "-c", code, url], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable("PostgreSQL", f"{done.stderr.strip().splitlines()[-1]} (BENCH_POSTGRES names another)")
    return url


def worker_option(name: str) -> None:
    """Make sure that ``celery worker`` has this option, which takes a number.

    Raises:
        Unavailable: it does not know the option.
    """
    args = [sys.executable, "-m", "celery", "-A", "benchmarks.sites.ours", "worker", name, "1", "--help"]
    nowhere = {"BENCH_REDIS": "redis://127.0.0.1:1/0", "BENCH_CELERY_BROKER": "redis://127.0.0.1:1/0"}
    done = subprocess.run(args, cwd=ROOT, env=environment(nowhere), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(name, (done.stderr or done.stdout).strip().splitlines()[-1])
