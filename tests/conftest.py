"""Makes the helpers beside the tests importable: `eval_parts`, `virtual_loop`, …"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
