"""Decides what a run may do: makes its gate, for a new run or for one that continues from its record."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from dipeo_nb.common.root import own_root, private_root
from dipeo_nb.config import Settings
from dipeo_nb.diagram.closure import Closure, closure, plan_digest
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import ExecutionStarted
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import TrustError
from dipeo_nb.runtime.records import RecordCheck
from dipeo_nb.security.gate import GUEST_CALLS, GUEST_TOKENS, Gate, Level
from dipeo_nb.security.trust import Allow, Say, Trust
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalFileSystemAdapter


@dataclass(frozen=True)
class Gates:
    """Makes gates by the user's trust; `Runtime.prepare` describes the options."""

    settings: Settings
    services: Services
    trust: Trust

    def gate(
        self,
        document: Diagram,
        plan: Plan,
        *,
        say: Say = None,
        allow: Allow | None = None,
        foreign: bool = False,
        model: str | None = None,
        by: str = "",
    ) -> Gate:
        """The gate of a new run.

        Raises:
            TrustError: the diagram is not the user's own, wants more than a guest may do, and the user has not approved it.
        """
        chosen = model is not None
        decision = self.trust.decide(document, plan, say=say, allow=allow, foreign=foreign, model_chosen=chosen, by=by)
        found, budget = decision.closure, None
        if decision.level is Level.GUEST:
            dollars = self.settings.guest_budget
            budget = Budget(usd=dollars, calls=GUEST_CALLS, tokens=GUEST_TOKENS) if dollars > 0 else None

        def child(document: Diagram, plan: Plan, record: Event | None) -> Gate:
            if record is None:
                own = self.trust.owns(document)
            else:  # of a record: the file that it names proves nothing
                own = self.trust.verified(record) is Level.YOURS
                document = replace(document, path=None)
            if own:
                return made
            digest = plan_digest(plan)
            if digest not in known:  # children of one kind share a gate, and so a budget
                known[digest] = self.gate(document, plan, say=say, allow=allow, foreign=True, model=model, by=by)
                known[digest].records = made.records
            return known[digest]

        known: dict[str, Gate] = {}
        own_db = isinstance(self.services.db, DBOperationsDomainService)
        made = Gate(
            decision.level,
            self.services,
            closure=found,
            granted=decision.granted,
            budget=budget,
            drafts=None if found is None else lambda: self._drafts(found),
            db=DBOperationsDomainService if own_db else None,
            decide=child,
            stamp=self.trust.stamp(decision),
            signatures=self.trust.signatures,
            made=self.trust.remember_made,
            base=self.settings.base_dir,
            model_chosen=chosen,
        )
        return made

    def of_record(
        self,
        document: Diagram,
        plan: Plan,
        record: RecordCheck,
        *,
        trust: Say = None,
        allow: Allow | None = None,
        model: str | None = None,
        by: str = "",
    ) -> Gate:
        """The gate of a run that continues from its record: as before where the record is known to be of this user and base directory.

        Raises:
            TrustError: it is not, it wants more than a guest may do, and the user has not approved it.
        """
        first = record.first
        assert first is not None, "a record has a first event"
        level = self.trust.verified(first) if record.holds else None
        if level is Level.YOURS and trust is not False:
            own = replace(document, path=None)  # decided when the run began, whatever is in the file now
            gate = self.gate(own, plan, say=trust, allow=allow, model=model)
            gate.records = "any" if trust is True else "own"
            return gate
        if level is Level.TRUSTED and trust is None:
            found = closure(document, base_dir=self.settings.base_dir, plan=plan)
            if (stamp := first.started.get("trust")) and stamp["digest"] == found.digest:
                trust = found.code  # the approval of then holds for the rest of the run
        if level is None and trust is not True and (objects := record.objects):
            raise TrustError(
                f"Run {first.run_id} was recorded elsewhere, or its record was changed; it holds objects of code ({objects}), which only "
                "running that code restores.",
                hint="Run the diagram again, or say yes to it with --trust (trust=True).",
            )
        chosen = model or cast(ExecutionStarted, first.payload).get("model")
        if level is None:
            document = replace(document, path=None)  # the file that it names proves nothing
        gate = self.gate(document, plan, say=trust, allow=allow, foreign=True, model=chosen, by=by)
        gate.records = "any" if trust is True else "data" if level is None else "own"
        return gate

    def _drafts(self, found: Closure) -> LocalFileSystemAdapter:
        """The folder of a guest's files: below the base directory, or below the data folder when that is not writable."""
        stem = re.sub(r"[^\w\-]+", "_", found.name)[:60].strip("_") or "diagram"
        name = f"{stem}-{found.digest[:8]}"
        base = self.settings.base_dir
        if os.access(base, os.W_OK):
            root = own_root(base).below(Path("drafts", name))
        else:
            root = private_root(Path("drafts", name), self.settings.data_dir)
        return LocalFileSystemAdapter(root, max_file_size=self.settings.max_file_size)
