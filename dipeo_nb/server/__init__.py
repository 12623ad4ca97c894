r"""`dipeo-nb serve`: runs over HTTP, their events as server-sent events. One process, this machine by default, a token for everything.

| request | answer |
|---|---|
| `GET /health` | `{"status": "ok"}`; the only one without a token |
| `GET /runs?limit=&status=&diagram=&parent=&nested=` | the run history, newest first |
| `GET /runs?offset=&limit=&text=&status=&diagram=&sort=&descending=` | a page of it: `total`, and `runs` with tokens, cost, model, inputs, note |
| `POST /runs` `{"diagram": NAME, "inputs": {…}, "model": …, "answers": {…}, "timeout": S}` | 201, `{"run_id": …}` |
| `GET /runs/ID` | status, outputs, usage, cost … as `run --json` |
| `GET /runs/ID/events?after=SEQ` | every event after SEQ (or `Last-Event-ID`), stored ones first, then live, to the end of the run |
| `GET /runs/ID/page?token=TOKEN` | a page that shows the run: live, with Stop and a form for its questions, and afterwards |
| `GET /runs/ID/head` | what that page needs besides the events: drawing, names, what may be asked |
| `GET /runs/ID/beginning?keep=N` | rows in the place of all but the last N events (100,000), behind which `/events` is asked for the others; none for a shorter run |
| `POST /runs/ID/stop`, `POST /runs/ID/answer` `{"text": …, "node": …, "request_id": …}` | 202; 404 when no such question waits |
| `POST /runs/ID/signal` `{"name": …, "payload": {…}}` | 202; an event that a hook or a start node waits for |
| `POST /runs/ID/resume` `{"inputs": {…}, "answers": {…}, "timeout": S}` | 201; the run continues here |
| `POST /runs/ID/another` `{"kind": "fork", "alone" or "again", "node": …, "of": 1, "prompt": …, "inputs": {…}, "model": …}` | 201, `{"run_id": …}`: another run, made from that one |
| `POST /runs/ID/notes` `{"first": SEQ, "last": SEQ, "text": …}` | 201; a note on those events |
| `GET /runs/ID/inputs`, `/copy?as=python&node=&of=`, `/compared?with=ID` | what it took; its text to run again; the difference to another run |
| `DELETE /runs/ID` | 200; the run and those of its sub-diagrams are forgotten; 409 while one of them is running |
| `GET /diagrams` | names of diagrams for `POST /runs` |

Errors are JSON: `{"error": {"type": …, "message": …, "hint": …}}`. The stream of a run that has ended is answered with 204 when there is
nothing new, which makes an EventSource stop asking.

The token goes into `Authorization: Bearer TOKEN`, or `?token=` for an EventSource of a browser. Diagrams are named, never sent, and lie
below the base directory, so no code comes in over the wire. Pages of other origins are let in by DIPEO_CORS_ORIGINS. A diagram that
nobody has trusted beforehand runs as a guest, or is refused with 403 and the list of what it wants.
"""

from __future__ import annotations

from dipeo_nb.server.app import RunServer
from dipeo_nb.server.listen import serve

__all__ = ["RunServer", "serve"]
