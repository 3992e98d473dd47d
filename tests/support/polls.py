"""The polls project of Django's tutorial with channelsq, and the live admin as docs/how-to/build/admin.md adds it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from tests.support.demo import QUICK
from tests.support.markdown import blocks, doc_page
from tests.support.ports import free_port
from tests.support.processes import Process, Processes

PASSWORD = "polls-example"

_MODELS = """\
from django.db import models


class Question(models.Model):
    question_text = models.CharField(max_length=200)
    pub_date = models.DateTimeField("date published")

    def __str__(self):
        return self.question_text


class Choice(models.Model):
    question = models.ForeignKey(Question, on_delete=models.CASCADE)
    choice_text = models.CharField(max_length=200)
    votes = models.IntegerField(default=0)

    def __str__(self):
        return self.choice_text
"""

_ADMIN = """\
from django.contrib import admin

from .models import Choice, Question


class ChoiceInline(admin.TabularInline):
    model = Choice
    extra = 2


class QuestionAdmin(admin.ModelAdmin):
    fieldsets = [
        (None, {"fields": ["question_text"]}),
        ("Date information", {"fields": ["pub_date"], "classes": ["collapse"]}),
    ]
    inlines = [ChoiceInline]
    list_display = ["question_text", "pub_date"]
    list_filter = ["pub_date"]
    search_fields = ["question_text"]


admin.site.register(Question, QuestionAdmin)
"""

_CELERY = """\
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""

#: With channelsq, as docs/how-to/begin/add-to-your-project.md says.
_SETTINGS = """
import os

INSTALLED_APPS = ["channelsq", "polls", *INSTALLED_APPS]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channelsq.layers.RedisChannelLayer",
        "CONFIG": {"url": os.environ["REDIS_URL"]},
        "ROUTING": "mysite.routing.channel_routing",
    }
}
CELERY_BROKER_URL = os.environ["REDIS_URL"]
CELERY_WORKER_POOL = "threads"
CELERY_WORKER_CONCURRENCY = 4
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
MIDDLEWARE = [*MIDDLEWARE, "mysite.policy.strict"]
DATABASES["default"]["OPTIONS"] = {"timeout": 20, "transaction_mode": "IMMEDIATE"}
"""

#: A content security policy without anything inline, as careful projects have one.
_POLICY = """\
def strict(get_response):
    def middleware(request):
        response = get_response(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
        return response

    return middleware
"""

_ROUTING = """\
from channelsq import include, route
from channelsq.staticfiles import StaticFilesConsumer

channel_routing = [
    route("http.request", StaticFilesConsumer()),
]
"""

_PEOPLE = """
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from polls.models import Choice, Question

for name in ("alice", "bob"):
    User.objects.create_superuser(name, password=%(password)r, first_name="<b>Bob</b>" if name == "bob" else "")
reader = User.objects.create_user("reader", password=%(password)r, is_staff=True)
reader.user_permissions.add(Permission.objects.get(codename="view_question"))
User.objects.create_user("stranger", password=%(password)r, is_staff=True)
for text in ("What's new?", "What's up?", "Where to?"):
    question = Question.objects.create(question_text=text, pub_date=timezone.now())
    question.choice_set.create(choice_text="Not much")
    question.choice_set.create(choice_text="The sky")
"""


class PollsSite:
    """Its files, database and processes.

    Args:
        folder: an existing, empty one.
        redis_url: of a database of its own.
        files: contents by path, in place of the tutorial's or beside them.
        settings: what is added to the settings.
    """

    def __init__(
        self, folder: Path, redis_url: str, files: Mapping[str, str] | None = None, settings: str = ""
    ) -> None:
        self.folder = folder
        self.processes = Processes(folder / "logs")
        self.port = free_port()
        self.env = {"DJANGO_SETTINGS_MODULE": "mysite.settings", "REDIS_URL": redis_url}
        self._files = files or {}
        self._settings = settings
        self.interface: Process
        self.worker: Process

    @property
    def url(self) -> str:
        """The URL of the interface server."""
        return f"http://127.0.0.1:{self.port}"

    def make(self) -> None:
        """Make the project as it was before the live admin."""
        self.run("python", "-m", "django", "startproject", "mysite", ".")
        self.run("python", "manage.py", "startapp", "polls")
        files = {
            "polls/models.py": _MODELS,
            "polls/admin.py": _ADMIN,
            "mysite/celery.py": _CELERY,
            "mysite/__init__.py": "from .celery import app as celery_app\n",
            "mysite/policy.py": _POLICY,
            "mysite/routing.py": _ROUTING,
            **self._files,
        }
        for name, text in files.items():
            (self.folder / name).write_text(text)
        with (self.folder / "mysite" / "settings.py").open("a") as file:
            file.write(_SETTINGS + self._settings)

    def add(self) -> None:
        """Add the two lines of docs/how-to/build/admin.md."""
        shown = [block for block in blocks(doc_page("admin")) if block.language == "diff"]
        assert [block.file for block in shown] == ["mysite/settings.py", "mysite/routing.py"]
        for block in shown:
            below, (added,) = block.text.partition("\n")[0][1:], re.findall(r"^\+(.*)$", block.text, re.MULTILINE)
            path = self.folder / block.file
            text = path.read_text()
            assert text.count(f"{below}\n") == 1
            path.write_text(text.replace(f"{below}\n", f"{below}\n{added}\n"))

    def fill(self) -> None:
        """Make the database, with users and questions."""
        self.run("python", "manage.py", "makemigrations", "polls", "--verbosity", "0")
        self.run("python", "manage.py", "migrate", "--verbosity", "0")
        self.shell(_PEOPLE % {"password": PASSWORD})

    def start(self, *options: str) -> None:
        """Start both programs."""
        self.start_interface(*options)
        self.start_worker()

    def start_interface(self, *options: str) -> None:
        """``python -m channelsq.interface``."""
        self.interface = self._start("python", "-m", "channelsq.interface", "--port", str(self.port), *options)
        self.interface.wait_for_port(self.port)

    def start_worker(self) -> None:
        """``celery -A mysite worker``."""
        self.worker = self._start("celery", "-A", "mysite", "worker", "--loglevel", "INFO", *QUICK)
        self.worker.wait_for_output(r"\bready\.", timeout=60)

    def shell(self, code: str) -> str:
        """Run code in ``manage.py shell``; return what it writes."""
        return self.run("python", "manage.py", "shell", "-v", "0", "-c", code)

    def run(self, *args: str) -> str:
        """Run a program to its end; return its output."""
        process = self.processes.start(*args, env=self.env, cwd=self.folder)
        assert process.wait(60) == 0, process.output
        return process.output

    def _start(self, *args: str) -> Process:
        return self.processes.start(*args, env=self.env, cwd=self.folder)


class Editor:
    """A member of the staff with a browser of their own.

    Args:
        browser: Chromium.
        site: the site, or the address of another one.
        name: who it is.
        size: of the window.
        password: what is typed.
        options: of the browser's context.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        name: str,
        size: tuple[int, int] = (1280, 800),
        password: str = PASSWORD,
        **options: str,
    ) -> None:
        self.url = url
        self.name = name
        self._password = password
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, locale=options.get("locale", "en-GB"), timezone_id="UTC"
        )
        self.context.set_default_timeout(20_000)
        self.errors: list[str] = []
        self.page = self.tab()

    def tab(self) -> Page:
        """Open another tab."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)
        return page

    def _hear(self, line: ConsoleMessage) -> None:
        if line.type == "error" and not line.location["url"].endswith("/favicon.ico"):
            self.errors.append(f"{line.text} ({line.location['url']})")

    def log_in(self, admin: str = "/admin/") -> None:
        """Fill in the admin's login form."""
        self.page.goto(f"{self.url}{admin}login/?next={admin}")
        self.page.fill("[name=username]", self.name)
        self.page.fill("[name=password]", self._password)
        self.page.click("[type=submit]")
        expect(self.page.locator("#user-tools")).to_be_visible()

    def opens(self, path: str, page: Page | None = None) -> Page:
        """Open a page, and wait until it is live."""
        page = page or self.page
        page.goto(f"{self.url}{path}")
        self.is_live(page)
        return page

    def is_live(self, page: Page | None = None) -> None:
        """Wait until a page has been let in."""
        expect((page or self.page).locator("html")).to_have_attribute("data-channelsq-admin", "live")

    @property
    def people(self) -> Locator:
        """The list of other people who have the object open."""
        return self.page.locator(".channelsq-people li")

    @property
    def notices(self) -> Locator:
        """The list of changes."""
        return self.page.locator(".channelsq-notices li")

    def close(self) -> None:
        """Close the browser's window; nothing may have gone wrong in it."""
        self.context.close()
        assert not self.errors, self.errors


@contextlib.contextmanager
def entering(browser: Browser, url: str, admin: str = "/admin/") -> Iterator[Callable[..., Editor]]:
    """Yield a function that logs somebody in, and close all browsers' windows in the end.

    The function takes a name, perhaps the path of a page to open, another ``admin``, and options of :class:`Editor`.

    Args:
        browser: Chromium.
        url: the site.
        admin: the path of the admin.
    """
    editors: list[Editor] = []

    def come(name: str, path: str = "", admin: str = admin, **options: Any) -> Editor:
        editor = Editor(browser, url, name, **options)
        editors.append(editor)
        editor.log_in(admin)
        if path:
            editor.opens(path)
        return editor

    yield come
    for editor in editors:
        editor.close()
