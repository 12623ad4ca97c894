"""Somebody who uses a page with the keyboard alone, and who has to see where they are after each key."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_FOCUS = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
  const el = document.activeElement;
  if (!el || el === document.body) { done(null); return; }
  const watch = new IntersectionObserver(([seen]) => { watch.disconnect(); done({
    what: el.outerHTML.slice(0, 120), inSight: seen.intersectionRatio,
    marked: el.matches(":focus-visible"), able: !el.matches(":disabled"),
  }); });
  watch.observe(el);
})))"""
_SHOWN = "() => document.activeElement.checkVisibility({ visibilityProperty: true, opacityProperty: true })"
_IN_SIGHT = 0.5
"""Of the focused element, so much is seen at least: it is in the viewport and in every box that scrolls or clips."""


class Focus(NamedTuple):
    role: str
    name: str


class Keyboard:
    """Presses keys and nothing else. After each, the focused element is visible, in sight, shown as focused, and has a name."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._devtools = page.context.new_cdp_session(page)
        self.focus = Focus("", "")

    def press(self, *keys: str) -> None:
        for key in keys:
            self._page.keyboard.press(key)
            self.focus = self.look(f"after {key} at {self.focus}")

    def type(self, text: str, *, instead: bool = False) -> None:
        """Type into the field that has the focus; `instead` of what is in it."""
        assert self.focus.role in ("textbox", "searchbox", "spinbutton"), self.focus
        if instead:
            self._page.keyboard.press("Control+a")
        self._page.keyboard.type(text)
        self.focus = self.look(f"after {text!r}")

    def to(self, name: str, key: str = "Tab", *, most: int = 80) -> None:
        """Press `key` until what has the focus matches `name`."""
        met: list[Focus] = []
        while len(met) < most:
            self.press(key)
            if re.search(name, self.focus.name):
                return
            met.append(self.focus)
        raise AssertionError(f"{key} does not lead to {name!r}, but to {met}")

    def look(self, when: str = "") -> Focus:
        """What has the focus, as a screen reader says it."""
        seen = self._page.evaluate(_FOCUS)
        assert seen is not None, f"the focus is lost {when}"
        self._page.wait_for_function(_SHOWN)
        assert seen["able"], (when, seen)
        assert seen["marked"], (when, seen)
        assert seen["inSight"] >= _IN_SIGHT, (when, seen)
        found = self._devtools.send("Runtime.evaluate", {"expression": "document.activeElement"})["result"]["objectId"]
        node = self._devtools.send("Accessibility.getPartialAXTree", {"objectId": found, "fetchRelatives": False})["nodes"][0]
        assert not node["ignored"], (when, seen)
        name = node.get("name", {}).get("value", "").strip()
        assert name, f"it has no name {when}: {seen['what']}"
        return Focus(node["role"]["value"], name)
