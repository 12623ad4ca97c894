"""`python -m dipeo_nb` is the command `dipeo-nb`."""

from __future__ import annotations

import sys

from dipeo_nb.cli import main

sys.exit(main())
