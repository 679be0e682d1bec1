"""A frequently-asked-questions bot: a command that reads a prompt file and writes an output file.

    python3 faq.py PROMPT_FILE OUTPUT_FILE

It answers with the entry that shares the most words with the question. It knows nothing of orders
and cannot calculate: a useful thing to compare an agent with. It needs no package.
"""

import json
import re
import sys
from pathlib import Path

ENTRIES = (
    ("hello hi morning", "Hello! What would you like to know?"),
    (
        "opening hours open closed sunday monday",
        "We are open Monday to Friday from 9:00 to 17:00, and closed on Sundays.",
    ),
    ("return send back refund money", "You can return a lamp within 30 days, free of charge."),
    ("ship shipping deliver delivery", "Shipping takes 3 to 5 days."),
    ("warranty broken repair years", "Every lamp has a warranty of 2 years."),
    ("contact phone mail email write call", "Call +49 30 1234567 or write to help@lamps.example."),
    ("price cost much desk", "A desk lamp costs 24.50 EUR."),
)
UNKNOWN = "Please see our website."
USD_PER_WORD = 0.00002


def words(text: str) -> set[str]:
    """The words of a text, plurals without their s."""
    return {word.rstrip("s") for word in re.findall(r"[a-z]+", text.lower())}


def reply(question: str) -> str:
    """The entry that shares the most words with the question."""
    asked = words(question)
    score, entry = max((len(asked & words(keys)), text) for keys, text in ENTRIES)
    return entry if score else UNKNOWN


def main() -> None:
    """Answer the prompt of the first file into the second."""
    prompt_file, output_file = map(Path, sys.argv[1:])
    question = prompt_file.read_text(encoding="utf-8")
    text = reply(question)
    # The bot is billed by the word, so its words are its tokens.
    usage = {"input": len(question.split()), "output": len(text.split())}
    answer = {
        "text": text,
        "token_usage": usage,
        "cost_usd": round(sum(usage.values()) * USD_PER_WORD, 6),
    }
    output_file.write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
