"""channelsq as a Django application."""

from __future__ import annotations

from django.apps import AppConfig


class ChannelsqConfig(AppConfig):
    """``"channelsq"`` in INSTALLED_APPS; keep it above ``django.contrib.staticfiles``, whose runserver it replaces."""

    name = "channelsq"
    verbose_name = "channelsq"

    def ready(self) -> None:
        from django.core.signals import setting_changed
        from django.utils.module_loading import autodiscover_modules

        from channelsq import conf
        from channelsq.asgi import channel_layers
        from channelsq.binding.base import BindingMetaclass
        from channelsq.fragments.page_tickets import watch_requests
        from channelsq.layers.wire.signing import forget_keys
        from channelsq.live import task_hooks
        from channelsq.session_support import user_signals
        from channelsq.system_checks import checks
        from channelsq.worker.connections.broker_lending import lend_broker

        checks.register()
        task_hooks.install()
        watch_requests()
        conf.remember_celery_app()
        app = conf.known_celery_app()
        if app is not None:
            lend_broker(app)
        # For applications' tests: override_settings(CHANNEL_LAYERS=...) takes effect.
        setting_changed.connect(channel_layers.on_setting_changed)
        setting_changed.connect(lambda **kwargs: forget_keys(), weak=False)
        user_signals.install()
        setting_changed.connect(user_signals.install)
        # In every process, since any process may change a model.
        autodiscover_modules("bindings")
        BindingMetaclass.register_all()
