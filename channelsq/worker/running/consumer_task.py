"""The Celery task of a consumer."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard, cast

from celery import Celery, Task
from celery.exceptions import AlwaysEagerIgnored, Ignore

from channelsq.delivery import attempts, trace_context
from channelsq.delivery.pending import held_here
from channelsq.exceptions import ChannelSocketException, ConsumeLater, DenyConnection, ResponseLater
from channelsq.layers.wire.encryption import is_sealed
from channelsq.layers.wire.signing import HEADER, Refused
from channelsq.message import Message
from channelsq.options import ATTRIBUTE
from channelsq.utils import name_that_thing
from channelsq.worker.running import sentry_internals
from channelsq.worker.running.execution import run_consumer
from channelsq.worker.running.guard import GuardedTracer
from channelsq.worker.running.isolation import IsolatedTracer, fresh

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from channelsq.asgi import ChannelLayerWrapper
    from channelsq.layers.wire.signing import Signing

#: Python's filters of warnings are those of all threads.
_WARNINGS = threading.Lock()

#: Exceptions that ``autoretry_for=(Exception,)`` does not retry.
_EFFECTS = ChannelSocketException, ConsumeLater, DenyConnection, ResponseLater

#: Attributes of ``task.request``: the exception of a consumer that ran without Celery's tracer, and Sentry's
#: breadcrumbs before it.
RAISED, BREADCRUMBS = "channelsq_raised", "channelsq_breadcrumbs"


#: The attribute of ``task.request`` that is :class:`Verified` if the message's signature was verified.
VERIFIED = "channelsq_verified"

#: The attribute of ``task.request`` that is :class:`Verified` if the content was decrypted before the task was called.
DECRYPTED = "channelsq_decrypted"


class Verified:
    """A mark of requests that were checked, which no message can contain."""


def is_message(args: Any) -> TypeGuard[Sequence[Any]]:
    """Return whether a task's arguments are a channel's name and the content of a message."""
    return isinstance(args, (list, tuple)) and len(args) == 2 and isinstance(args[1], Mapping)


def shown(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return a message's arguments for logs, events and ``inspect``, with only the keys of the content."""
    return {"argsrepr": f"({args[0]!r}, {list(args[1])})", "kwargsrepr": repr(dict(kwargs))}


class ConsumerTask(Task):  # type: ignore[type-arg]
    """A consumer as a Celery task, called with ``(channel name, content, **route kwargs)``."""

    abstract = True
    ignore_result = True
    acks_late = True
    reject_on_worker_lost = True
    # Celery must not check the message's arguments against run(), which takes a Message.
    typing = False
    layer: ClassVar[ChannelLayerWrapper]
    consumer: ClassVar[Callable[..., Any]]
    #: See :func:`channelsq.options.consumer`.
    rerun: ClassVar[bool | None] = None

    #: The tracer that Celery has set; see :attr:`__trace__`.
    channelsq_tracer: Any = None

    @property
    def __trace__(self) -> Any:
        """The tracer with which Celery runs the task: guarded, and in a new context for each message."""
        return self.channelsq_tracer

    @__trace__.setter
    def __trace__(self, tracer: Any) -> None:
        ready = tracer is None or isinstance(tracer, IsolatedTracer)  # for tools that restore the tracer
        self.channelsq_tracer = tracer if ready else IsolatedTracer(GuardedTracer(self, tracer))

    @property
    def request(self) -> Any:
        """The request that runs in this thread, as in Celery.

        The trace headers of a call in place become its attributes, as those of a message do.
        """
        context: Any = super().request
        if context.is_eager and context.headers:
            for name in trace_context.NAMES:
                if name in context.headers:
                    vars(context).setdefault(name, context.headers[name])
        return context

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: Any = None,
        producer: Any = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """Send the task, as in Celery; a retry of a message goes to the message's layer."""
        if is_message(args):
            options = {**shown(args, kwargs or {}), **options}
        queue = options.get("queue") or options.get("routing_key")
        layer = self.layer.channel_layer
        if producer is None and queue and args and queue == layer.queue_name(args[0]):
            with layer.task_publisher(args[0]) as (producer, place):
                options["queue"] = place
                if self.app.conf.task_always_eager:
                    return self._publish(args, kwargs, task_id, producer, *more, **options)
                return super().apply_async(args, kwargs, task_id, producer, *more, **options)
        return super().apply_async(args, kwargs, task_id, producer, *more, **options)

    def _publish(
        self,
        args: Any,
        kwargs: Any,
        task_id: Any,
        producer: Any,
        link: Any = None,
        link_error: Any = None,
        shadow: Any = None,
        **options: Any,
    ) -> Any:
        """Send the task as ``apply_async`` does, in spite of ``task_always_eager``.

        Projects without a broker have that setting, and would run a retry at once, inside of the run that failed.
        """
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore", AlwaysEagerIgnored)
            return self.app.send_task(
                str(self.name),
                args,
                kwargs,
                task_id=task_id,
                producer=producer,
                link=link,
                link_error=link_error,
                shadow=shadow,
                result_cls=cast("type[AsyncResult[Any]]", self.AsyncResult),
                task_type=self,
                **options,
            )

    def hand_over(self, message: Message, kwargs: dict[str, Any]) -> None:
        """Send a message as an ordinary task to Celery's broker, as threads cannot enforce a time limit.

        Raises:
            kombu.exceptions.OperationalError: the broker is not available.
        """
        signing = self.layer.channel_layer.signing
        args = self._sealed([message.channel_name, message.content])
        headers: dict[str, Any] = {trace_context.HANDED_OVER: True}
        if signing is not None:
            headers[HEADER] = signing.call(str(self.name), message.id, args, kwargs)
        self.apply_async(args, kwargs, message.id, serializer="msgpack", headers=headers)

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task in place, as in Celery; each run and each retry has a new context."""
        return fresh().run(super().apply, *args, **kwargs)

    def __call__(self, channel: str, content: dict[str, Any], **kwargs: Any) -> None:
        """Run the consumer as one unit; see :func:`channelsq.worker.running.execution.run_consumer`."""
        raised = getattr(self.request, RAISED, None)
        if isinstance(raised, Exception):  # the consumer has run already, see channelsq.worker.running.untraced_run
            sentry_internals.put_back(getattr(self.request, BREADCRUMBS, []))
            raise raised
        signing = self.layer.channel_layer.signing
        if signing is not None:
            self._check_signature(signing, [channel, content], kwargs)
        request = self.request
        if getattr(request, DECRYPTED, None) is not Verified:
            content = self._opened(channel, content)
        message = Message(content, channel, self.layer)
        if request.id is not None:
            message.id = request.id
        if request.retries:
            message._run.retries = request.retries
        message.is_redelivered = _is_redelivered(request)
        self.handle(message, kwargs)

    def _opened(self, channel: str, content: dict[str, Any]) -> dict[str, Any]:
        """Return the content of a message, decrypted if the layer encrypts."""
        layer = self.layer.channel_layer
        try:
            return layer.protection.open_content(layer.queue_name(channel), content)
        except Refused as error:
            raise Ignore(str(error)) from None  # it is logged already

    def _sealed(self, args: Any) -> Any:
        """Return the arguments of a call through a broker, with the content encrypted if the layer encrypts."""
        layer = self.layer.channel_layer
        encryption = layer.protection.encryption
        if not encryption.encrypts or not is_message(args) or is_sealed(args[1]):
            return args
        return [args[0], encryption.sealed_content(layer.queue_name(args[0]), dict(args[1]))]

    def _check_signature(self, signing: Signing, args: list[Any], kwargs: dict[str, Any]) -> None:
        request = self.request
        try:
            signing.check_call(str(self.name), request.id, args, kwargs, getattr(request, HEADER, None))
        except Refused as error:
            raise Ignore(str(error)) from None  # the check has logged it
        setattr(request, VERIFIED, Verified)

    def _is_verified(self, signing: Signing, request: Any) -> bool:
        """Return whether a request's signature was verified, here or, if its process died, now."""
        return getattr(request, VERIFIED, None) is Verified or signing.is_call(
            str(self.name), request.id, request.args, request.kwargs, getattr(request, HEADER, None)
        )

    def signature_from_request(
        self, request: Any = None, args: Any = None, kwargs: Any = None, queue: Any = None, **options: Any
    ) -> Any:
        """Return the signature of a retry, as in Celery; encrypt it, and sign it if the original request was signed.

        Other calls of a consumer through Celery are not signed: a forged message of another task could contain such a
        call as a callback or a group.
        """
        pending, given = held_here.get(), (self.request if request is None else request).args
        if args is None and pending is not None and pending.message is not None and given and len(given) == 2:
            channel, content = given
            if content is pending.message.content:
                args = [channel, attempts.restore(pending.message, content)]
        made = super().signature_from_request(request, args, kwargs, queue, **options)
        made["args"] = self._sealed(made.args)
        signing = self.layer.channel_layer.signing
        if signing is not None and self._is_verified(signing, self.request if request is None else request):
            delay = made.options.get("countdown") or 0
            eta = made.options.get("eta")
            if eta is not None:
                delay = max(delay, eta.timestamp() - time.time())
            signature = signing.call(str(self.name), made.options["task_id"], made.args, made.kwargs, delay)
            made.options["headers"] = {**(made.options.get("headers") or {}), HEADER: signature}
        return made

    def handle(self, message: Message, kwargs: dict[str, Any]) -> None:
        """Run the consumer on ``message`` with the route's arguments."""
        run_consumer(self.run, message, str(self.name), type(self).consumer, kwargs, self.rerun)


def _is_redelivered(request: Any) -> bool:
    """Return whether the message of a task's request was delivered before."""
    headers = getattr(request, "headers", None) or {}
    return bool((request.delivery_info or {}).get("redelivered") or headers.get("redelivered"))


def make_consumer_task(
    app: Celery, layer: ChannelLayerWrapper, consumer: Callable[..., Any], name: str
) -> ConsumerTask:
    """Register ``consumer`` as the Celery task ``name``, with the options that ``@consumer`` gave it."""
    options = dict(getattr(consumer, ATTRIBUTE, {}))
    if "at_most_once" in options:
        options["acks_late"] = not options.pop("at_most_once")
    bind = options.get("bind", False)
    options["dont_autoretry_for"] = (*(options.get("dont_autoretry_for") or ()), *_EFFECTS)

    def run(*args: Any, **kwargs: Any) -> Any:
        return consumer(*args, **kwargs)

    # Celery names a class after the function, so the name must be an identifier.
    run.__name__ = name.rpartition(".")[2].partition("#")[0].replace("<lambda>", "lambda_")
    run.__qualname__ = run.__name__
    run.__module__ = name_that_thing(consumer).rpartition(".")[0]
    run.__doc__ = consumer.__doc__
    options.update(bind=bind, layer=layer, consumer=staticmethod(consumer))
    # Not shared: Celery would create a shared task in every other app of this process.
    return app.task(name=name, base=ConsumerTask, lazy=False, shared=False, **options)(run)
