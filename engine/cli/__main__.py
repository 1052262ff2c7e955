"""`python -m engine.cli.main` is the command `dataloupe`."""

from __future__ import annotations

import sys

from engine.cli.main import main

sys.exit(main())
