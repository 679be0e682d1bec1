"""An agent as a command: reads its prompt from a file, answers with JSON."""

import json
import re
import sys
from pathlib import Path

prompt = Path(sys.argv[1]).read_text(encoding="utf-8")
text = re.search(r"^text: (.*)$", prompt, re.MULTILINE)
print(json.dumps({"words": len(text[1].split()) if text else 0}))
