"""Makes the servers beside the tests importable: `raw_server`, `llmock`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
