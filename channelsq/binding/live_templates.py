"""Models whose saves and deletions change live pages: one declaration for each.

In ``bindings.py`` of an app::

    from channelsq.binding.live_templates import LiveTemplate

    class LiveMessage(LiveTemplate):
        model = "chat.Message"
        template = "chat/_message.html"
        target = "messages"

        @classmethod
        def group_names(cls, instance):
            return [f"room-{instance.room_id}"]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from django.db import DEFAULT_DB_ALIAS, connections

from channelsq.binding.base import CREATE, DELETE, Binding
from channelsq.channel import Group
from channelsq.delivery.pending import pending_message_store
from channelsq.fragments.sending import fragment_layer, fragment_sends, rendered
from channelsq.fragments.swaps import Swap, id_of

__all__ = ["LiveTemplate"]


class LiveTemplate(Binding):
    """A template for the objects of a model; pages with ``{% live %}`` of an object's groups show it.

    The first element of the template must have the id that :meth:`dom_id` returns.  A new object is added to
    :attr:`target`, a changed one replaces its element, and a deleted one is removed, each when it is committed.  An
    object that changes its groups is removed from the pages of the old ones.
    """

    model: Any = None
    fields: ClassVar[Sequence[str] | None] = ("__all__",)

    #: The name of the template.
    template: ClassVar[str] = ""
    #: The id of the element that new objects are added to.
    target: ClassVar[str] = ""
    #: The place of new objects: ``"append"``, ``"prepend"``, ``"before"`` or ``"after"``.
    placed: ClassVar[str] = "append"
    #: The name of a template engine; None for the first that has the template.
    using: ClassVar[str | None] = None

    @classmethod
    def group_names(cls, instance: Any) -> Iterable[str]:
        """Return the groups whose pages show ``instance``."""
        raise NotImplementedError

    @classmethod
    def dom_id(cls, instance: Any) -> str:
        """Return the id of an object's element, such as ``message-7``."""
        return f"{cls.model._meta.model_name}-{instance.pk}"

    def get_context(self, instance: Any) -> dict[str, Any]:
        """Return the variables of the template: the object as ``object`` and under its model's name."""
        return {"object": instance, str(self.model._meta.model_name): instance}

    def swap(self, instance: Any, action: str) -> Swap:
        """Return the change of a page that reports ``action`` on ``instance``.

        Raises:
            ValueError: ``template`` or ``target`` is missing, or cannot be used; or the template's element has another
                id than :meth:`dom_id`.
        """
        identity = self.dom_id(instance)
        if action == DELETE:
            return rendered(None, None, identity, "remove", None)
        if not self.template or not self.target:
            raise ValueError(f"{type(self).__qualname__} needs a template, and a target: the id of an element")
        target, placed = (self.target, self.placed) if action == CREATE else (identity, "replace")
        swap = rendered(self.template, self.get_context(instance), target, placed, self.using)
        found = id_of(swap.html)
        if found != identity:
            raise ValueError(
                f"the first element of {self.template!r} must have the id {identity!r}, not {found!r}, so that "
                f"{type(self).__qualname__} finds it again: write the id into the template, or override dom_id()"
            )
        return swap

    def send_messages(self, instance: Any, group_names: Iterable[str], action: str, **kwargs: Any) -> None:
        """Change the pages of groups when the transaction is committed; errors as :meth:`swap`.

        Args:
            instance: the object; its template is rendered now.
            group_names: the groups.
            action: the action.
            kwargs: the arguments of the signal; ``using`` is the database's alias.
        """
        groups = [Group(name) for name in sorted(group_names)]
        if not groups:
            return
        self.signal_kwargs = kwargs
        layer = fragment_layer(groups[0].channel_layer)
        swap = self.swap(instance, action)
        sends = [send for group in groups for send in fragment_sends(layer, group.name, swap)]
        using = kwargs.get("using") or instance._state.db or DEFAULT_DB_ALIAS
        pending_message_store.hold_certain(layer, sends, connections[using])
