"""Two ways to work out word problems; neither is good at all of them."""

import re
from math import prod


def numbers(question: str) -> list[float]:
    """The numbers of the question, in order."""
    return [float(text) for text in re.findall(r"\d+(?:\.\d+)?", question)]


def adds(question: str) -> str:
    """Adds up whatever there is."""
    return f"I count {sum(numbers(question)):g} in all."


def careful(question: str) -> str:
    """Looks for a word that says what to do, and shows its work."""
    values = numbers(question)
    if re.search(r"\beach\b|\bper\b", question):
        work = " * ".join(f"{value:g}" for value in values)
        return f"{work} = {prod(values):g}, so the answer is {prod(values):,.2f} €."
    if re.search(r"\bleft\b|\bgives\b|\beats\b", question):
        rest = values[0] - sum(values[1:])
        return f"{values[0]:g} less the others leaves {rest:g}"
    return adds(question)
