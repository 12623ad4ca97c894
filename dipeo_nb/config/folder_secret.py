"""Keys of folders."""

from __future__ import annotations

from pydantic import SecretStr

from dipeo_nb.config.origins import Origin


class FolderSecret(SecretStr):
    """A key that came with a folder; other types mark keys of the user's own."""

    def __init__(self, text: str, origin: Origin) -> None:
        super().__init__(text)
        self.origin = origin
