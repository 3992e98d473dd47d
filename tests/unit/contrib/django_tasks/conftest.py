"""Django's task framework is there from Django 6.0 on: ``make matrix`` runs its tests."""

import django

collect_ignore = [] if django.VERSION >= (6, 0) else ["test_backend.py", "test_django_tasks_internals.py"]
