"""Metadata of blobs in HTTP headers."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping

_REST = "dipeo"
"""Name of the header for metadata that cannot have headers of its own, as JSON."""
_PLAIN_VALUE = re.compile(r"[!-~]+( [!-~]+)*")


def attributes_of(metadata: Mapping[str, str], *, dashes: bool) -> dict[str, str]:
    """Encode metadata as headers: lower-case names (with dashes, if the store allows them) with ASCII values get headers of their
    own that other tools can read; headers do not preserve case, empty values and surrounding blanks."""
    name = re.compile(r"[a-z][a-z0-9-]*" if dashes else r"[a-z][a-z0-9]*")
    own = {n: v for n, v in metadata.items() if n != _REST and name.fullmatch(n) and _PLAIN_VALUE.fullmatch(v)}
    rest = {n: v for n, v in metadata.items() if n not in own}
    return own | ({_REST: json.dumps(rest, separators=(",", ":")).replace(" ", "\\u0020")} if rest else {})


def metadata_of(attributes: Mapping[str, str]) -> dict[str, str]:
    own = {n: v for n, v in attributes.items() if n == n.lower()}  # the others are standard headers (Content-Type)
    with contextlib.suppress(ValueError):  # a foreign header of that name is left alone
        if rest := json.loads(own.get(_REST, "{}")):
            del own[_REST]
            own |= rest
    return own
