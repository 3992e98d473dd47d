"""A fragment on its way from a template to the pages that have joined a group."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from django.template.loader import render_to_string

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper
from channelsq.fragments.page_groups import note_fragments, page_group
from channelsq.fragments.swaps import FORMS, Swap, encode, make_swap
from channelsq.layers.contract.layer_values import Send


class FragmentLayer(ChannelLayerWrapper):
    """A layer that records the time of fragments just before they leave.

    A page that was rendered earlier, and whose socket joins later, is told that it has missed something.
    """

    def dispatch(self, sends: Sequence[Send]) -> None:
        """Record the time, and send; see :meth:`BaseChannelLayer.dispatch`."""
        note_fragments(self.channel_layer, (send.target for send in sends), conf.live_settings().page_age)
        super().dispatch(sends)

    def settle(self, sends: Sequence[Send]) -> None:
        """Record the time, and send; apart from the acknowledgement of the current message."""
        self.dispatch(sends)


_layers: weakref.WeakKeyDictionary[ChannelLayerWrapper, FragmentLayer] = weakref.WeakKeyDictionary()


def fragment_layer(layer: ChannelLayerWrapper) -> FragmentLayer:
    """Return the layer through which fragments leave; the same one for the same layer."""
    found = _layers.get(layer)
    if found is None:
        found = _layers.setdefault(layer, FragmentLayer(layer, layer.alias, layer.routing))
    return found


def rendered(template: Any, context: dict[str, Any] | None, target: str, action: str, using: str | None) -> Swap:
    """Return the change of a page that a template describes; see :meth:`channelsq.Group.render`."""
    if template is None and action != "remove":
        raise ValueError(f"the action {action or 'append'!r} needs a template")
    html = "" if template is None else render_to_string(template, context, using=using)
    return make_swap(html, target, action)


def fragment_sends(layer: ChannelLayerWrapper, name: str, swap: Swap) -> list[Send]:
    """Return the sends of a change, one for each form.

    Raises:
        MessageTooLarge: it is over the layer's ``message_size_limit``.
    """
    return [layer.prepare_group(page_group(name, form), {"text": encode(swap, form)}) for form in FORMS]
