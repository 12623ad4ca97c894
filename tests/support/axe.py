"""axe-core, as the package `axe-playwright-python` brings it: what it finds wrong for people with disabilities."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe


def violations(page: Any, where: str) -> list[str]:
    """The violations of any level in the parts of a page: rule, its level, and the elements."""
    found = Axe().run(page, context=where).response["violations"]
    return [f"{one['id']} ({one['impact']}): {[node['html'][:200] for node in one['nodes']][:5]}" for one in found]
