"""The configured channel layers: ``channel_layers["default"]`` returns the default layer."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from channelsq import conf
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.diagnostics.causes import explained, meant
from channelsq.exceptions import InvalidChannelLayerError, InvalidRouting
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from channelsq.layers.contract.layer_values import Received, Send
from channelsq.routing import Router, consumed_channels

__all__ = [
    "ChannelLayerManager",
    "ChannelLayerWrapper",
    "InvalidChannelLayerError",
    "channel_layers",
    "get_channel_layer",
]

logger = logging.getLogger("channelsq")

_LAYERS_REMEDY = "use channelsq.layers.RedisChannelLayer, IPCChannelLayer, KombuChannelLayer or InMemoryChannelLayer"


class ChannelLayerWrapper:
    """A channel layer with its alias and routing from the project's settings.

    All other attributes are the layer's own: ``wrapper.capacity``, ``wrapper.new_channel``, ….

    Args:
        channel_layer: the layer, or another wrapper of it.
        alias: its key in ``CHANNEL_LAYERS``.
        routing: a routing, or a dotted path to one; imported at the first use of :attr:`router`.
    """

    def __init__(self, channel_layer: BaseChannelLayer | ChannelLayerWrapper, alias: str, routing: Any) -> None:
        # Channels 1's own tests wrap the result of make_test_backend(), which is a wrapper already.
        while isinstance(channel_layer, ChannelLayerWrapper):
            channel_layer = channel_layer.channel_layer
        self.channel_layer: BaseChannelLayer = channel_layer
        self.alias = alias
        self.routing = routing

    @cached_property
    def router(self) -> Router:
        """The layer's routing, ready to match messages.

        Raises:
            InvalidRouting: it cannot be read.
        """
        try:
            return Router(self.routing)
        except Exception as error:  # the project's modules may raise any exception when they are imported
            text = explained(error)
            named = isinstance(self.routing, str) and repr(self.routing) not in text
            value = f" {self.routing!r}" if named else ""
            raise InvalidRouting(
                f"CHANNEL_LAYERS[{self.alias!r}]['ROUTING']{value} cannot be read: {text}; correct that: ROUTING is a "
                "list of route() and include(), or the dotted path to one"
            ) from error

    # The most frequent calls, written out so that they are typed and need no __getattr__.

    def prepare(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> Send:
        """See :meth:`BaseChannelLayer.prepare`."""
        return self.channel_layer.prepare(channel, message, delay=delay)

    def prepare_group(self, group: str, message: dict[str, Any]) -> Send:
        """See :meth:`BaseChannelLayer.prepare_group`."""
        return self.channel_layer.prepare_group(group, message)

    def dispatch(self, sends: Sequence[Send]) -> None:
        """See :meth:`BaseChannelLayer.dispatch`."""
        self.channel_layer.dispatch(sends)

    def settle(self, sends: Sequence[Send]) -> None:
        """See :meth:`BaseChannelLayer.settle`."""
        self.channel_layer.settle(sends)

    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        """See :meth:`BaseChannelLayer.receive`."""
        return self.channel_layer.receive(channels, block)

    def group_add(self, group: str, channel: str) -> None:
        """See :meth:`BaseChannelLayer.group_add`."""
        self.channel_layer.group_add(group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        """See :meth:`BaseChannelLayer.group_discard`."""
        self.channel_layer.group_discard(group, channel)

    def statistics(self) -> dict[str, float]:
        """Return the statistics of all routed channels; see :meth:`BaseChannelLayer.statistics`."""
        return self.channel_layer.statistics(consumed_channels(self.router))

    def global_statistics(self) -> dict[str, float]:
        """Return the statistics of all routed channels; ASGI's name of :meth:`statistics`."""
        return self.statistics()

    def local_only(self) -> bool:
        """Return whether only this process can see the layer's channels."""
        return self.channel_layer.in_process

    def __getattr__(self, name: str) -> Any:
        if name == "channel_layer":  # not set yet: being unpickled or copied
            raise AttributeError(name)
        return getattr(self.channel_layer, name)

    @property
    def described(self) -> str:
        """The layer's alias, class and server as one text, without a password."""
        url = str(getattr(self.channel_layer, "url", "") or "")
        where = ""
        if url:
            # Not at the top: it imports Kombu and redis, which a program without a URL does not need.
            from channelsq.layers.contract.broker_urls import shown

            where = f" at {shown(url)}"
        return f"{self.alias} ({type(self.channel_layer).__name__}{where})"

    def __str__(self) -> str:
        return f"{self.alias} ({type(self.channel_layer).__module__}.{type(self.channel_layer).__name__})"


def _misfit(backend: Any, config: Mapping[str, Any], error: TypeError) -> str:
    """Return an error text: why a layer's class does not accept its ``CONFIG``, and its known keys."""
    known = _known_keys(backend)
    if not known:
        return str(error)
    unknown = [key for key in config if isinstance(key, str) and key not in known]
    cause = f"unknown key {unknown[0]!r}{meant(unknown[0], known)}" if unknown else str(error)
    return f"{cause}; it takes {', '.join(known)}"


def _known_keys(backend: Any) -> list[str]:
    """Return the keyword arguments of a layer's class and of its base classes."""
    if not isinstance(backend, type):
        return []
    parameters = [
        parameter
        for base in backend.__mro__
        if "__init__" in vars(base) and base is not object
        for parameter in inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
    ]
    return sorted({parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY})


class ChannelLayerManager:
    """The layers of ``CHANNEL_LAYERS``, each created at its first use."""

    def __init__(self) -> None:
        #: The layers created so far, by alias.
        self.backends: dict[str, ChannelLayerWrapper] = {}
        self._lock = threading.RLock()
        self._warned = False

    @property
    def configs(self) -> dict[str, Any]:
        """The setting ``CHANNEL_LAYERS``."""
        return conf.layer_configs()

    def make_backend(self, name: str) -> ChannelLayerWrapper:
        """Return a new layer from the settings of ``name``.

        Raises:
            InvalidChannelLayerError: the settings are missing or cannot be used.
        """
        settings = conf.layer_settings(name)
        self._warn_if_not_installed()
        return self._make(settings, settings.config)

    def make_test_backend(self, name: str, **config: Any) -> ChannelLayerWrapper:
        """Return a new layer from the settings of ``name``, with its ``TEST_CONFIG`` as ``CONFIG``.

        Args:
            name: the alias.
            config: values that replace the same keys in ``TEST_CONFIG``.

        Raises:
            InvalidChannelLayerError: as :meth:`make_backend`, or there is no ``TEST_CONFIG``.
        """
        settings = conf.layer_settings(name)
        if settings.test_config is None:
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}] has no 'TEST_CONFIG'; add one (it may be an empty dict)"
            )
        return self._make(settings, {**settings.test_config, **config})

    def _warn_if_not_installed(self) -> None:
        """Log once that ``INSTALLED_APPS`` lacks channelsq; no check can say so, as checks come with the app."""
        if not self._warned and conf.is_forgotten_in_apps():
            self._warned = True
            logger.warning("%s", conf.NOT_INSTALLED, extra={"action": "not_installed"})

    def _make(self, settings: conf.LayerSettings, config: Mapping[str, Any]) -> ChannelLayerWrapper:
        setting = f"CHANNEL_LAYERS[{settings.alias!r}]"
        try:
            backend = conf.import_dotted(settings.backend)
        except Exception as error:
            raise InvalidChannelLayerError(
                f"{setting}['BACKEND'] {settings.backend!r} cannot be imported: {explained(error)}; {_LAYERS_REMEDY}"
            ) from error
        try:
            layer = backend(**config)
        except TypeError as error:
            raise InvalidChannelLayerError(
                f"{setting}['CONFIG'] does not fit {settings.backend}: {_misfit(backend, config, error)}"
            ) from error
        except InvalidChannelLayerError as error:
            text = str(error)
            if text.startswith(setting):
                raise
            raise InvalidChannelLayerError(f"{setting}: {text.removeprefix('CHANNEL_LAYERS ')}") from error
        if not isinstance(layer, BaseChannelLayer):
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{settings.alias!r}]['BACKEND'] {settings.backend!r} is not a channel layer; "
                f"{_LAYERS_REMEDY}"
            )
        return ChannelLayerWrapper(layer, settings.alias, settings.routing)

    def __getitem__(self, key: str) -> ChannelLayerWrapper:
        try:
            return self.backends[key]
        except KeyError:
            with self._lock:
                if key not in self.backends:
                    self.backends[key] = self.make_backend(key)
                return self.backends[key]

    def __contains__(self, key: object) -> bool:
        return key in self.configs

    def set(self, key: str, layer: ChannelLayerWrapper | None) -> ChannelLayerWrapper | None:
        """Put ``layer`` (or with None: nothing) in place of the layer ``key``; return the previous one."""
        with self._lock:
            old = self.backends.pop(key, None)
            if layer is not None:
                self.backends[key] = layer
        return old

    def on_setting_changed(self, *, setting: str, **kwargs: Any) -> None:
        """Discard the layers when their settings are overridden; a receiver of Django's ``setting_changed``."""
        if setting == "CHANNEL_LAYERS":
            with self._lock:
                self.backends.clear()


channel_layers = ChannelLayerManager()


def check_queues_apart(layers: Iterable[ChannelLayerWrapper]) -> None:
    """Raise InvalidChannelLayerError if two layers on one broker have the same queues."""
    seen: list[ChannelLayerWrapper] = []
    for layer in layers:
        for other in seen:
            if layer.queue_prefix == other.queue_prefix and layer.is_on(other.url):
                raise InvalidChannelLayerError(
                    f"CHANNEL_LAYERS[{other.alias!r}] and CHANNEL_LAYERS[{layer.alias!r}] are on one broker with the "
                    f"same prefix, so they would get each other's messages; give one of them another, such as "
                    f"CHANNEL_LAYERS[{layer.alias!r}]['CONFIG']['prefix'] = {layer.alias!r}"
                )
        seen.append(layer)


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> ChannelLayerWrapper:
    """Return the layer ``alias``, after setting Django up: for scripts that only know a settings module.

    Raises:
        InvalidChannelLayerError: there is no such layer, or its settings cannot be used.
    """
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup(set_prefix=False)
    return channel_layers[alias]
