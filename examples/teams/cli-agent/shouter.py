"""An agent as a function."""


def shout(question: str) -> str:
    return f"{question.strip().upper()}!"
