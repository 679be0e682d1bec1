"""A table reservation, by command: python3 agent.py PROMPT_FILE OUTPUT_FILE

The prompt holds the whole conversation, each message under its marker. The agent remembers what was
said as long as it is shown it: who calls, for how many, when.
"""

import json
import re
import sys

MARKER = re.compile(r"^@\[(System|User|Assistant)\]:\n", re.MULTILINE)


def said_by_user(prompt: str) -> list[str]:
    """What the user said, oldest first; a prompt without markers is one message."""
    parts = MARKER.split(prompt)
    if len(parts) == 1:
        return [prompt]
    return [text for role, text in zip(parts[1::2], parts[2::2], strict=True) if role == "User"]


def answer(prompt: str) -> str:
    """Confirm what is known of the reservation, or ask for what is not."""
    said = said_by_user(prompt)
    known = {}
    for text in said:
        for key, pattern in (
            ("name", r"my name is (\w+)"),
            ("guests", r"(?:table for|we are) (\d+)"),
            ("time", r"at (\d{1,2}(?::\d\d)?)"),
        ):
            if found := re.search(pattern, text, re.IGNORECASE):
                known[key] = found[1]
    if "who am i" in said[-1].lower():
        return f"You are {known['name']}." if "name" in known else "You did not tell me."
    for key, question in (
        ("guests", "For how many?"),
        ("time", "At what time?"),
        ("name", "What is your name?"),
    ):
        if key not in known:
            return question
    return f"A table for {known['guests']} at {known['time']}, {known['name']}. See you!"


if __name__ == "__main__":
    prompt_file, output_file = sys.argv[1:]
    with open(prompt_file, encoding="utf-8") as file:
        prompt = file.read()
    text = answer(prompt)
    usage = {"input": len(prompt.split()), "output": len(text.split())}
    with open(output_file, "w", encoding="utf-8") as file:
        json.dump({"text": text, "token_usage": usage}, file)
