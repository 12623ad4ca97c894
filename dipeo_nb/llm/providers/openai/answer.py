"""Finished answers of the Responses API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, ToolCall
from dipeo_nb.errors import ContentFilteredError
from dipeo_nb.llm.core.errors import SAID_LIMIT
from dipeo_nb.llm.providers.openai.request import without_thoughts
from dipeo_nb.llm.streaming import named, words
from dipeo_nb.llm.structured import parsed, strict_schema
from dipeo_nb.llm.tools import call_id_of, call_of
from dipeo_nb.llm.usage import of_openai, record


def response_of(
    sent: Mapping[str, Any],
    request: LLMRequest,
    request_id: str | None,
    streamed: str = "",
    ids: Mapping[Any, str] = MappingProxyType({}),
) -> LLMResponse:
    """A finished Responses API object as ours.

    Args:
        sent: its JSON.
        streamed: the text that came before it, which counts when the object has none.
        ids: those that calls had while they came, by their items' ids.

    Raises:
        ContentFilteredError: refused or filtered.
        StructureError: it does not fit the requested structure.

    It is for use within `reading`: an object of another form is an AttributeError, LookupError, TypeError or ValueError.
    """
    final: dict[str, Any] = without_nulls(sent)
    facts: dict[str, Any] = {
        "provider": "openai",
        "model": request.model,
        "request_id": request_id or words(final.get("id")) or None,
    }
    output = final.get("output")
    if not isinstance(output, list) and not streamed:
        raise TypeError("the response has no output")
    texts: list[str] = []
    calls: list[ToolCall] = []
    outputs: list[Mapping[str, Any]] = []
    usage = of_openai(final)
    for item in output or ():  # reasoning may come before the message
        match item.get("type"):
            case "message":
                for part in item.get("content") or ():
                    if part.get("type") == "refusal":
                        raise ContentFilteredError(
                            f"The model refused: {words(part.get('refusal'))[:SAID_LIMIT]}",
                            hint="Change the prompt.",
                            usage=usage,
                            **facts,
                        )
                    texts.append(words(part.get("text")))
                    outputs += [
                        {"type": "citation", "url": words(a.get("url")), "title": words(a.get("title"))}
                        for a in part.get("annotations") or ()
                        if a.get("type") == "url_citation"
                    ]
            case "function_call":
                item["call_id"] = call_id_of(item.get("call_id") or ids.get(item.get("id")), {call.id for call in calls})
                calls.append(call_of(item["call_id"], named(item.get("name")), words(item.get("arguments"))))
            case "image_generation_call" if item.get("result"):
                kind = words(item.get("output_format")) or "png"
                outputs.append({"type": "image", "media_type": f"image/{kind}", "data": words(item.get("result"))})
            case _:
                continue
    text = "".join(texts) or ("" if calls else streamed)
    reason = (final.get("incomplete_details") or {}).get("reason")
    if reason == "content_filter":
        raise ContentFilteredError("The provider filtered the answer.", hint="Change the prompt.", usage=usage, **facts)
    cut = reason == "max_output_tokens"
    structured = mode = None
    if request.response_format is not None and not calls:
        structured = parsed(text, request.response_format, provider="openai", model=request.model, usage=usage, cut=cut)
        loose = request.output_mode == "json_mode" or strict_schema(request.response_format) is None
        mode = "json_mode" if loose else "native"
    return LLMResponse(
        text,
        "openai",
        words(final.get("model")) or request.model,
        usage,
        structured,
        tuple(calls),
        "length" if cut else "tool_calls" if calls else (words(reason) or "stop"),
        facts["request_id"],
        output_mode=mode,
        tool_outputs=tuple(outputs),
        raw={"provider": "openai", "model": request.model, "content": _kept(output or ())} if calls else None,
    )


def without_nulls(value: Any) -> Any:
    """JSON without the fields that are null, which say as much as missing ones."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in cast("dict[str, Any]", value).items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in cast("list[Any]", value)]
    return value


def _kept(output: Sequence[Any]) -> list[dict[str, Any]]:
    """The items of a turn as they may be sent back. Thoughts that only a server that stored them could find again are left out; what
    was said and called after them then loses its id, by which a server would ask for them."""
    items = [record(item) for item in output]
    for item in items:
        item.pop("status", None)
        if item.get("type") == "function_call" and call_of("", "", item.get("arguments") or "").unreadable is not None:
            item["arguments"] = "{}"  # some servers read what is sent back
    return (
        items
        if all(item.get("encrypted_content") for item in items if item.get("type") == "reasoning")
        else without_thoughts(items, sealed=False)
    )
