from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from muster.evals.graders.regex import compile_pattern
from muster.evals.scoring import Graded, ScoreRow


@pytest.mark.parametrize(
    ("pattern", "flags", "output", "passes"),
    [
        (r"\d{3}-\d{4}", "", "call 555-1234", True),
        (r"\d{3}-\d{4}", "", "call 55-1234", False),
        ("PARIS", "", "paris", False),
        ("PARIS", "i", "paris", True),
        ("(?i)PARIS", "", "paris", True),
        ("É", "iu", "é", True),
        ("^b$", "", "a\nb\nc", False),
        ("^b$", "m", "a\nb\nc", True),
        ("^b$", "gm", "a\nb\nc", True),
        ("a.b", "", "a\nb", False),
        ("a.b", "s", "a\nb", True),
        ("a b # two letters", "x", "ab", True),
        ("b", "y", "ab", False),
        ("a", "y", "ab", True),
        # JavaScript's spellings
        (r"(?<q>['\"])\w+\k<q>", "", "say 'yes'", True),
        (r"(?<q>['\"])\w+\k<q>", "", "say 'yes\"", False),
        (r"https?:\/\/\w+", "", "see http://x", True),
        (r"\u{1F600}", "u", "😀", True),
        (r"\u0041", "", "A", True),
        (r"\p{Lu}\p{Ll}+", "u", "see Élan", True),
        (r"<a>[^]*<\/a>", "", "<a>1\n2</a>", True),
        (r"(?<=\$\s*)\d+", "", "$ 18", True),
        # What the engine would take for a fuzzy match
        (r"^boxed{e}$", "", "boxed{e}", True),
        (r"^boxed{e}$", "", "boxe", False),
        (r'^{"a": \d{1,2}}$', "", '{"a": 12}', True),
        (r"[{][^}]{2,}[}]", "", "{ab}", True),
        (r"[\]{e}]{2}", "", "]e", True),
    ],
)
def test_patterns(
    judged: Callable[..., ScoreRow], pattern: str, flags: str, output: str, passes: bool
) -> None:
    row = judged({"type": "regex", "value": pattern, "flags": flags}, output)
    assert row.score == float(passes)
    says = "matches" if passes else "does not match"
    assert row.assertions[0].text == f"Output {says} pattern /{pattern}/{flags}"


def test_evidence_is_the_match(judged: Callable[..., ScoreRow]) -> None:
    row = judged({"type": "regex", "value": "[0-9]+"}, "it is 42 or 43")
    assert row.assertions[0].evidence == 'matched "42"'


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(unclosed", "/(unclosed/ does not compile: missing ) (at its end)"),
        ("a**b", "/a**b/ does not compile: multiple repeat (at character 3)"),
        ("[z-a]", "bad character range"),
        (r"\k<no>", "unknown group"),
    ],
)
def test_what_does_not_compile_says_where(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match="does not compile") as error:
        compile_pattern(pattern)
    assert message in str(error.value)


def test_an_unknown_flag_is_named() -> None:
    with pytest.raises(ValueError, match='unknown flag "q"'):
        compile_pattern("a", "iq")


def test_a_search_without_end_is_stopped_and_is_an_error(graded: Callable[..., Graded]) -> None:
    start = time.monotonic()
    found = graded({"type": "regex", "value": "(a|aa)+$"}, "a" * 60 + "!")
    assert time.monotonic() - start < 20
    assert found.error is not None
    assert "/(a|aa)+$/ was stopped after 1 s" in found.error
    assert found.rows[0].verdict == "skip"
