"""Compare two functions on cases made in Python: python measure.py"""

import asyncio
from collections.abc import Iterator

import muster


def cases() -> Iterator[dict]:
    """Roman numerals up to 50, each judged by an exact answer."""
    for number in range(1, 51):
        yield {
            "id": f"roman-{number}",
            "input": f"Write {number} in Roman numerals.",
            "expected_output": roman(number),
            "assert": [{"type": "equals", "value": roman(number)}],
        }


def roman(number: int) -> str:
    """The right answer."""
    text = ""
    for value, sign in ((50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        text += sign * (number // value)
        number %= value
    return text


def right(question: str) -> str:
    """Knows how."""
    return roman(int(question.split()[1]))


async def without_subtraction(question: str) -> str:
    """Writes IIII for 4 and VIIII for 9; takes its time, as a service would."""
    await asyncio.sleep(0.01)
    answer = roman(int(question.split()[1]))
    return answer.replace("IX", "VIIII").replace("IV", "IIII").replace("XL", "XXXX")


def main() -> None:
    """Print a line for each function."""
    evaluation = muster.evaluate(cases(), [right, without_subtraction], workers=10)
    for target in evaluation.summary["targets"]:
        low, high = target["pass_rate_interval"]
        passed, count = target["passed"], target["count"]
        print(
            f"{target['target']}: {passed} of {count} right, 95 % interval {low:.2f} to {high:.2f}"
        )
    first = next(result for result in evaluation if not result.passed)
    print(f"for example {first.test_id}: {first.output} instead of {first.expected_output}")


if __name__ == "__main__":
    main()
