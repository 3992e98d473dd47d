"""Changes of pages, and their forms on the wire."""

from __future__ import annotations

import json

import pytest

from channelsq.fragments.swaps import FORMS, HTMX, LIBRARY, TURBO, Swap, encode, make_swap

ROW = '<li id="a">x</li>'


@pytest.mark.parametrize(
    ("html", "target", "action", "swap"),
    [
        (ROW, "", "", Swap("replace", "a", ROW)),
        (f"\n<!-- < --> {ROW}\n", "", "", Swap("replace", "a", f"<!-- < --> {ROW}")),
        (ROW, "list", "", Swap("append", "list", ROW)),
        (ROW, "list", "prepend", Swap("prepend", "list", ROW)),
        ("text", "status", "update", Swap("update", "status", "text")),
        (ROW, "a", "remove", Swap("remove", "a", "")),
        ("", "a", "remove", Swap("remove", "a", "")),
        ('<IMG ID="b">', "", "", Swap("replace", "b", '<IMG ID="b">')),
    ],
)
def test_a_change_has_an_action_and_a_target(html: str, target: str, action: str, swap: Swap) -> None:
    assert make_swap(html, target, action) == swap


@pytest.mark.parametrize(
    ("html", "target", "action", "text"),
    [
        (ROW, "list", "morph", "'morph' is not an action: use one of append, prepend"),
        ("<li>x</li>", "", "", "has no id"),
        ("text", "", "", "has no id"),
        ('text <b id="a"></b>', "", "", "has no id"),
        ("", "", "", "has no id"),
        ("text", "a", "replace", "'a' is to be replaced by a fragment that does not begin with an element"),
        (ROW, "#list", "append", "'#list' is not the id"),
        (ROW, "7", "append", "'7' is not the id"),
        (ROW, 'a"><script>', "append", "is not the id"),
        ('<li id="a b">', "", "", "'a b' is not the id"),
    ],
)
def test_other_changes_are_refused(html: str, target: str, action: str, text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("(", r"\(")):
        make_swap(html, target, action)


@pytest.mark.parametrize(
    ("swap", "text"),
    [
        (Swap("append", "list", ROW), f'<div hx-swap-oob="beforeend:#list" data-channelsq>{ROW}</div>'),
        (Swap("prepend", "list", ROW), f'<div hx-swap-oob="afterbegin:#list" data-channelsq>{ROW}</div>'),
        (Swap("before", "b", ROW), f'<div hx-swap-oob="beforebegin:#b" data-channelsq>{ROW}</div>'),
        (Swap("after", "b", ROW), f'<div hx-swap-oob="afterend:#b" data-channelsq>{ROW}</div>'),
        (Swap("update", "b", "x"), '<div hx-swap-oob="innerHTML:#b" data-channelsq>x</div>'),
        (Swap("remove", "b", ""), '<div hx-swap-oob="delete:#b" data-channelsq></div>'),
        (Swap("replace", "a", ROW), '<li hx-swap-oob="outerHTML:#a" data-channelsq id="a">x</li>'),
        (Swap("replace", "a", "<br/>"), '<br hx-swap-oob="outerHTML:#a" data-channelsq/>'),
        (Swap("replace", "a", f"<!--c-->{ROW}"), '<!--c--><li hx-swap-oob="outerHTML:#a" data-channelsq id="a">x</li>'),
        (Swap("append", "t", "<tr></tr>"), '<tbody hx-swap-oob="beforeend:#t" data-channelsq><tr></tr></tbody>'),
        (Swap("append", "t", "<TD>1</TD>"), '<tr hx-swap-oob="beforeend:#t" data-channelsq><TD>1</TD></tr>'),
        (Swap("append", "s", "<option>"), '<select hx-swap-oob="beforeend:#s" data-channelsq><option></select>'),
    ],
)
def test_htmx_gets_out_of_band_swaps(swap: Swap, text: str) -> None:
    assert encode(swap, HTMX) == text


def test_turbo_gets_streams() -> None:
    assert encode(Swap("append", "list", ROW), TURBO) == (
        f'<turbo-stream action="append" target="list"><template>{ROW}</template></turbo-stream>'
    )
    assert encode(Swap("remove", "a", ""), TURBO) == '<turbo-stream action="remove" target="a"></turbo-stream>'


def test_the_script_gets_json() -> None:
    assert json.loads(encode(Swap("append", "list", ROW), LIBRARY)) == {
        "stream": "channelsq.page",
        "payload": {"action": "append", "target": "list", "html": ROW},
    }
    assert FORMS == (LIBRARY, HTMX, TURBO)
