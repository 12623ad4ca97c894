"""Changes to YAML text that leave the rest untouched."""

from __future__ import annotations

from typing import Any

from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage.json_db.keys import part_of, put_all, steps_of
from dipeo_nb.storage.json_db.text import counted, parse, serialized
from dipeo_nb.storage.structured_text import has_comments, with_yaml_item, with_yaml_scalar, yaml_native, yaml_value


def with_appended_yaml(text: str, value: Any, path: str) -> tuple[str, dict[str, Any]]:
    """Append an item to a YAML list, leaving the others untouched; a value other than a list becomes the first item.

    Returns:
        (text, metadata of the operation)
    """
    old = yaml_value(text, path)
    if isinstance(old, list):
        count = len(old) + 1  # pyright: ignore[reportUnknownArgumentType]
        longer = with_yaml_item(text, value, path)
        if longer is not None:
            return longer, {"items_count": count}
    _refuse_to_lose_comments(text, path)
    native = yaml_native(text, path)
    before: list[Any] = native if isinstance(native, list) else [] if old is None or old == {} else [native]
    items = [*before, value]
    return serialized(items, "yaml", path), {"items_count": len(items)}


def with_updated_yaml(text: str, value: Any, keys: list[str], path: str) -> tuple[str, dict[str, Any]]:
    """Set values in YAML: single ones are replaced in place, which keeps comments; otherwise the whole text is rewritten.

    Returns:
        (text, metadata of the operation)
    """
    body = yaml_native(text, path)
    body = {} if body is None else body
    put_all(body, value, keys, path)
    whole = serialized(body, "yaml", path)
    wanted = parse(whole, "yaml", path)
    changed: str | None = text
    for key in keys:
        part = part_of(value, key, several=len(keys) > 1)
        changed = None if changed is None else with_yaml_scalar(changed, steps_of(key) or [key], part, path)
    if changed is not None:
        try:
            fits = parse(changed, "yaml", path) == wanted
        except (ValidationError, StorageError):
            fits = False
        if fits:
            return changed, counted(body)
    _refuse_to_lose_comments(text, path)
    return whole, counted(body)


def _refuse_to_lose_comments(text: str, path: str) -> None:
    if has_comments(text):
        raise ValidationError(
            f"'{path}' has comments, which this change would lose.",
            hint="Change single values that are there, remove the comments, or write the whole file.",
        )
