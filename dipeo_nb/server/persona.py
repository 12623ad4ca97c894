"""The persona of jupyter-ai 3 (entry point `jupyter_ai.personas`): a message in a chat of JupyterLab runs a diagram.

In `jupyter_server_config.py`: `c.DipeoPersona.diagram = "debate.light.yaml"`, `c.DipeoPersona.model = "local"`. Needs the extra `jupyter-ai`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from traitlets import Unicode

from dipeo_nb.common.loop import iterate_on_loop, run_on_loop
from dipeo_nb.config import get_settings
from dipeo_nb.errors import MissingDependencyError
from dipeo_nb.runtime import Runtime
from dipeo_nb.server.chat_runs import ChatRuns

try:
    from jupyter_ai_persona_manager import BasePersona, PersonaDefaults  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise MissingDependencyError.for_extra("jupyter-ai-persona-manager", extra="jupyter-ai") from error


class DipeoPersona(BasePersona):
    """Runs the diagrams of the chat's folder; what is not the user's own runs as a guest, and is never trusted from a chat."""

    diagram = Unicode("", config=True, help="File of the diagram that runs when a message names none.")
    model = Unicode("", config=True, help="Model of every person: local, echo, openai:NAME; empty: those of the diagram.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runs: ChatRuns | None = None

    @property
    def defaults(self) -> PersonaDefaults:
        return PersonaDefaults(
            name="DiPeO",
            description="Runs diagrams of LLM agents.",
            avatar_path=str(Path(__file__).with_name("persona.svg")),
            system_prompt="",
        )

    async def process_message(self, message: Any) -> None:
        await self.stream_message(iterate_on_loop(self._chat().reply(message.body)))

    async def cancel_response(self) -> None:
        if self._runs is not None:
            await run_on_loop(self._runs.stop())

    async def shutdown(self) -> None:
        await super().shutdown()
        runs, self._runs = self._runs, None
        if runs is not None:
            await run_on_loop(runs.close())

    def _chat(self) -> ChatRuns:
        if self._runs is None:
            settings = get_settings().model_copy(update={"base_dir": Path(self.get_workspace_dir()).resolve()})
            self._runs = ChatRuns(Runtime(settings), diagram=self.diagram, model=self.model or None)
        return self._runs
