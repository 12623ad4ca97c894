"""The gate of a run: its services, as far as its diagram may use them.

A run reaches the world through its services and by the code and commands of its nodes. For a diagram of the user's own the gate
is open: the services are those of the runtime. For any other one, each use is compared with what was granted when the run was
prepared: before a node begins (code, commands, functions), and in the services (files, servers, models). What is not granted is an
error of the node, never a question. Sub-diagrams get a gate from that of their parent.
"""

from dipeo_nb.security.gate.gate import PROGRAM_FILES, Gate, Level
from dipeo_nb.security.gate.refusals import granting, refusal, refusal_of_all
from dipeo_nb.security.gate.uses import FREE, GUEST_CALLS, GUEST_TOKENS, beyond_guest, seen_later

__all__ = [
    "FREE",
    "GUEST_CALLS",
    "GUEST_TOKENS",
    "PROGRAM_FILES",
    "Gate",
    "Level",
    "beyond_guest",
    "granting",
    "refusal",
    "refusal_of_all",
    "seen_later",
]
