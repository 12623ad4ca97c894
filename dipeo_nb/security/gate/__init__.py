"""The gate of a run: its services, restricted to what its diagram may use.

A run has side effects through its services and through the code and commands of its nodes. For the user's own diagrams the gate is
open: the services are those of the runtime. For other diagrams, each use is compared with what was granted when the run was
prepared: before a node starts (code, commands, functions), and in the services (files, servers, models). A use that was not granted
is an error of the node, never a question. Sub-diagrams get a gate derived from that of their parent.
"""

from dipeo_nb.security.gate.gate import PROGRAM_FILES, Gate, Level
from dipeo_nb.security.gate.refusals import granting, refusal, refusal_of_all
from dipeo_nb.security.gate.uses import GUEST_CALLS, GUEST_TOKENS, beyond_guest, seen_later

__all__ = [
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
