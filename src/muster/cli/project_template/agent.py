"""The agent that the suite measures: replace it by yours."""

import re

CAPITALS = {"france": "Paris", "japan": "Tokyo", "kenya": "Nairobi"}


def answer(question: str) -> str:
    """Answer questions about capitals and products of two numbers."""
    product = re.search(r"(\d+) \* (\d+)", question)
    if product:
        return f"The answer is {int(product[1]) * int(product[2])}."
    for country, capital in CAPITALS.items():
        if country in question.lower():
            return capital
    return "I do not know."
