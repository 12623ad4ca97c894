"""Slack, Notion and GitHub on this machine, as far as the providers use them: they keep what they are given, and refuse as the real ones do."""

from __future__ import annotations

import threading
from typing import Any

from tests.support.provider_server import Asked, Reply

TOKENS = {"Bearer xoxb-test-token-12345", "Bearer ntn_test-token-12345", "Bearer ghp-test-token-12345"}


class FakeSlack:
    """One workspace with 250 channels; `hold` makes a post wait after it was kept."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.shared: list[dict[str, Any]] = []
        self.streams: dict[str, dict[str, Any]] = {}
        """Messages that grow: their pieces, and whether they have ended."""
        self.channels = [{"id": f"C{n}", "name": f"channel-{n}"} for n in range(250)]
        self.hold: threading.Event | None = None
        self.kept = threading.Event()
        self.rate_limited = 0

    def __call__(self, asked: Asked) -> Reply:
        if asked.path.startswith("/files/upload/"):
            self.uploads[asked.path.rpartition("/")[2]] = asked.content
            return Reply(b"OK - 4", headers={"content-type": "text/plain"})
        if asked.headers.get("authorization") not in TOKENS:
            return Reply({"ok": False, "error": "invalid_auth"})
        if self.rate_limited:
            self.rate_limited -= 1
            return Reply({"ok": False, "error": "ratelimited"}, 429, {"retry-after": "0"})
        given = asked.form if "urlencoded" in asked.headers.get("content-type", "") else asked.json if asked.content else {}
        given = {**{name: values[0] for name, values in asked.query.items()}, **given}
        method = getattr(self, asked.path.rpartition("/")[2].replace(".", "_"), None)
        return Reply({"ok": False, "error": "unknown_method"}) if method is None else method(given, asked)

    def chat_postMessage(self, given: dict[str, Any], asked: Asked) -> Reply:
        if not any(channel["id"] == given.get("channel") for channel in self.channels):
            return Reply({"ok": False, "error": "channel_not_found"})
        if given["channel"] == "C9":
            return Reply({"ok": False, "error": "not_in_channel"})
        message = {"ts": f"{1000 + len(self.messages)}.0001", **given}
        self.messages.append(message)
        self.kept.set()
        if self.hold is not None:
            self.hold.wait(20)
            return Reply(cut=True)
        return Reply({"ok": True, "channel": given["channel"], "ts": message["ts"], "message": message})

    def chat_startStream(self, given: dict[str, Any], asked: Asked) -> Reply:
        if not given.get("thread_ts"):
            return Reply({"ok": False, "error": "invalid_thread_ts"})
        ts = f"{2000 + len(self.streams)}.0001"
        self.streams[ts] = {**given, "pieces": [], "ended": False}
        return Reply({"ok": True, "channel": given["channel"], "ts": ts})

    def chat_appendStream(self, given: dict[str, Any], asked: Asked) -> Reply:
        stream = self.streams.get(given["ts"])
        if stream is None or stream["ended"]:
            return Reply({"ok": False, "error": "message_not_in_streaming_state"})
        stream["pieces"].append(given["markdown_text"])
        return Reply({"ok": True, "channel": given["channel"], "ts": given["ts"]})

    def chat_stopStream(self, given: dict[str, Any], asked: Asked) -> Reply:
        self.streams[given["ts"]]["ended"] = True
        return Reply({"ok": True, "channel": given["channel"], "ts": given["ts"]})

    def conversations_history(self, given: dict[str, Any], asked: Asked) -> Reply:
        found = [m for m in self.messages if m["channel"] == given["channel"]]
        if given.get("include_all_metadata") != "true":
            found = [{k: v for k, v in m.items() if k != "metadata"} for m in found]
        return Reply({"ok": True, "messages": found[::-1]})

    def conversations_list(self, given: dict[str, Any], asked: Asked) -> Reply:
        at, size = int(given.get("cursor") or 0), int(given["limit"])
        following = str(at + size) if at + size < len(self.channels) else ""
        return Reply({"ok": True, "channels": self.channels[at : at + size], "response_metadata": {"next_cursor": following}})

    def files_getUploadURLExternal(self, given: dict[str, Any], asked: Asked) -> Reply:
        return Reply(
            {
                "ok": True,
                "upload_url": f"http://{asked.headers['host']}/files/upload/F1",
                "file_id": "F1",
                "length": given["length"],
            }
        )

    def files_completeUploadExternal(self, given: dict[str, Any], asked: Asked) -> Reply:
        self.shared.append(given)
        return Reply({"ok": True, "files": given["files"]})


class FakeNotion:
    """A database of 250 rows with one data source, and one with two; the rules of the API of 2026-03-11."""

    def __init__(self) -> None:
        self.rows = [{"object": "page", "id": f"row-{n}", "properties": {"N": {"number": n}}} for n in range(250)]
        self.blocks: list[dict[str, Any]] = []
        self.pages: list[dict[str, Any]] = []

    def __call__(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") not in TOKENS:
            return self.error(401, "unauthorized", "API token is invalid.")
        if asked.headers.get("notion-version") != "2026-03-11":
            return self.error(400, "missing_version", "Notion-Version header should be defined.")
        body = asked.json if asked.content else {}
        if "archived" in body or "after" in body:
            return self.error(400, "validation_error", "body failed validation: not in this version")
        match asked.method, asked.path.removeprefix("/v1/").split("/"):
            case "GET", ["databases", "db1"]:
                return Reply({"object": "database", "data_sources": [{"id": "ds1", "name": "Rows"}]})
            case "GET", ["databases", "db2"]:
                return Reply(
                    {"object": "database", "data_sources": [{"id": "ds1", "name": "Rows"}, {"id": "ds2", "name": "Other"}]}
                )
            case "POST", ["data_sources", "ds1", "query"]:
                at, size = int(body.get("start_cursor") or 0), int(body.get("page_size", 100))
                if size > 100:
                    return self.error(400, "validation_error", "page_size should be ≤ 100")
                more = at + size < len(self.rows)
                following = str(at + size) if more else None
                return Reply(
                    {"object": "list", "results": self.rows[at : at + size], "has_more": more, "next_cursor": following}
                )
            case "POST", ["pages"]:
                if len(body.get("parent", {})) != 2:
                    return self.error(400, "validation_error", "body.parent should be defined")
                self.pages.append(body)
                return Reply({"object": "page", "id": f"page-{len(self.pages)}", **body})
            case "PATCH", ["blocks", _, "children"]:
                if len(body["children"]) > 100:
                    return self.error(400, "validation_error", "body.children.length should be ≤ 100")
                made = [{"id": f"b{len(self.blocks) + n}", **block} for n, block in enumerate(body["children"])]
                self.blocks += made
                return Reply({"object": "list", "results": made})
            case "GET", ["pages", _, "markdown"]:
                return Reply({"object": "page_markdown", "markdown": '# Title\n\n"quoted" 😀 {{ x }}'})
        return self.error(404, "object_not_found", f"Could not find {asked.path}.")

    @staticmethod
    def error(status: int, code: str, message: str) -> Reply:
        return Reply({"object": "error", "status": status, "code": code, "message": message}, status)


class FakeGitHub:
    """One repository with 250 issues."""

    def __init__(self) -> None:
        self.issues = [{"number": n + 1, "title": f"Issue {n + 1}", "body": ""} for n in range(250)]
        self.cut_next = ""

    def __call__(self, asked: Asked) -> Reply:
        if asked.path != "/repos/me/mine/issues":
            return Reply({"message": "Not Found"}, 404)
        if asked.headers.get("x-github-api-version") != "2026-03-10":
            return Reply({"message": "Unsupported version"}, 400)
        if asked.method == "POST":
            cut, self.cut_next = self.cut_next, ""
            if cut != "before":
                self.issues.append({"number": len(self.issues) + 1, **asked.json})
            return Reply(cut=True) if cut else Reply(self.issues[-1], 201)
        size, page = int(asked.query["per_page"][0]), int(asked.query.get("page", ["1"])[0])
        found = self.issues[::-1] if asked.query.get("direction") == ["desc"] else self.issues
        at = (page - 1) * size
        link = f'<http://{asked.headers["host"]}{asked.path}?per_page={size}&page={page + 1}>; rel="next"'
        return Reply(found[at : at + size], 200, {"link": link} if at + size < len(found) else {})
