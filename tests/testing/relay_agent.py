"""A command line as `claude` has it: asks the environment, and tells of it in JSON lines.

echo PROMPT | python relay_agent.py …
"""

import json
import sys

from relay_command import asked


def main() -> None:
    answer = asked(sys.stdin.read())
    used = answer.get("token_usage")
    usage = None
    if used is not None:
        cached = used.get("cached", 0)
        usage = {"input_tokens": used["input"] - cached, "output_tokens": used["output"]}
        usage["cache_read_input_tokens"] = cached
    result = {"type": "result", "subtype": "success", "is_error": False, "result": answer["text"]}
    result |= {"session_id": "s-1", "total_cost_usd": answer.get("cost_usd"), "usage": usage}
    content = [{"type": "text", "text": answer["text"]}]
    lines = (
        {"type": "system", "subtype": "init", "model": answer.get("model")},
        {"type": "assistant", "message": {"content": content}},
        result,
    )
    for line in lines:
        sys.stdout.write(json.dumps(line) + "\n")


main()
