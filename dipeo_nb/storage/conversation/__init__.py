"""Conversations and persons that outlive a run: in memory and in SQLite. `storage.redis` keeps conversations in Redis.

A run's own conversation is part of its event log; these repositories are for what several runs share.
"""

from dipeo_nb.storage.conversation.in_memory import InMemoryConversationRepository, InMemoryPersonRepository
from dipeo_nb.storage.conversation.messages import (
    copied,
    decoded,
    encoded,
    history,
    history_of,
    kept_form,
    last,
    prepared,
    same_id,
)
from dipeo_nb.storage.conversation.persons import default_config, encoded_config, of_service, person_of, same_person
from dipeo_nb.storage.conversation.sqlite import SqliteConversationRepository, SqlitePersonRepository

__all__ = [
    "InMemoryConversationRepository",
    "InMemoryPersonRepository",
    "SqliteConversationRepository",
    "SqlitePersonRepository",
    "copied",
    "decoded",
    "default_config",
    "encoded",
    "encoded_config",
    "history",
    "history_of",
    "kept_form",
    "last",
    "of_service",
    "person_of",
    "prepared",
    "same_id",
    "same_person",
]
