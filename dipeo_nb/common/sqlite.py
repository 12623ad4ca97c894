"""What the SQLite stores have in common."""

from __future__ import annotations

import os
import sqlite3
import weakref


def close_with(owner: object, connection: sqlite3.Connection) -> sqlite3.Connection:
    """Close a connection when its owner is collected or the interpreter ends, for stores that nobody closes.

    Since Python 3.13 a connection that is collected while it is open is reported as a ResourceWarning. A process that
    was forked off leaves the connection of its parent alone (https://sqlite.org/howtocorrupt.html, "Carrying an open
    database connection across a fork").
    """
    weakref.finalize(owner, _close, connection, os.getpid())
    return connection


def _close(connection: sqlite3.Connection, pid: int) -> None:
    if os.getpid() == pid:
        connection.close()
