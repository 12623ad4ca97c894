"""Files as a small database: read, write, append, update by keys; safe between tasks, threads and processes."""

from dipeo_nb.storage.json_db.keys import key_list, put, select_keys
from dipeo_nb.storage.json_db.lines import line_ranges, lines_of, select_lines
from dipeo_nb.storage.json_db.operations import LOCK_TIMEOUT_S, DBOperationsDomainService
from dipeo_nb.storage.json_db.request import DBRequest, path_of
from dipeo_nb.storage.json_db.text import as_text, guessed, parse, serialized

__all__ = [
    "LOCK_TIMEOUT_S",
    "DBOperationsDomainService",
    "DBRequest",
    "as_text",
    "guessed",
    "key_list",
    "line_ranges",
    "lines_of",
    "parse",
    "path_of",
    "put",
    "select_keys",
    "select_lines",
    "serialized",
]
