"""Metadata of blobs as headers."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping

_REST = "dipeo"
"""Name of the header that carries, as JSON, the metadata that headers of their own could not."""
_PLAIN_VALUE = re.compile(r"[!-~]+( [!-~]+)*")


def attributes_of(metadata: Mapping[str, str], *, dashes: bool) -> dict[str, str]:
    """Metadata as headers: names that are plain lower case (with dashes, where the store allows them) and ASCII values have
    headers of their own, for other tools to read; headers forget case, empty values and blanks at the ends of others."""
    name = re.compile(r"[a-z][a-z0-9-]*" if dashes else r"[a-z][a-z0-9]*")
    own = {n: v for n, v in metadata.items() if n != _REST and name.fullmatch(n) and _PLAIN_VALUE.fullmatch(v)}
    rest = {n: v for n, v in metadata.items() if n not in own}
    return own | ({_REST: json.dumps(rest, separators=(",", ":")).replace(" ", "\\u0020")} if rest else {})


def metadata_of(attributes: Mapping[str, str]) -> dict[str, str]:
    own = {n: v for n, v in attributes.items() if n == n.lower()}  # the others are standard ones (Content-Type)
    with contextlib.suppress(ValueError):  # somebody else's header of that name stays as it is
        if rest := json.loads(own.get(_REST, "{}")):
            del own[_REST]
            own |= rest
    return own
