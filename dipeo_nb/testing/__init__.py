"""For your own tests: models with scripted answers, and the promises of every port to hold your own adapters to.

    import dipeo_nb as dp
    from dipeo_nb.testing import scripted
    from dipeo_nb.testing.contracts import BlobStoreContract

    session = dp.Session(llm=scripted({"Judge": "Ada wins.", "*": ["First.", "Second."]}))
    dp.testing.check(BlobStoreContract, make=lambda: MyStore())    # a table: kept, broken (why), not here

The suites of `dipeo_nb.testing.contracts` are those that the adapters of this package are tested with. pytest is not needed;
under pytest a subclass of a contract is a test class.
"""

from __future__ import annotations

from dipeo_nb.testing.contracts.promises import Contract, promise
from dipeo_nb.testing.models import EchoClient, FailingClient, ScriptedClient, SlowClient, scripted
from dipeo_nb.testing.report import Outcome, Report, check

__all__ = [
    "Contract",
    "EchoClient",
    "FailingClient",
    "Outcome",
    "Report",
    "ScriptedClient",
    "SlowClient",
    "check",
    "promise",
    "scripted",
]
