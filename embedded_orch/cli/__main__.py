"""``python -m embedded_orch.cli``."""

from __future__ import annotations

import sys

from embedded_orch.cli.command import main

sys.exit(main())
