from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.evals.scoring import Graded, ScoreRow

Judged = Callable[..., ScoreRow]


@pytest.mark.parametrize(
    ("output", "passes"),
    [
        (' <?xml version="1.0"?>\n<a b="1>2"><c/>é</a>\n', True),
        ('<!DOCTYPE a SYSTEM "a.dtd"><a/>', True),
        ("<a><b></a>", False),
        ("<a/><b/>", False),
        ("so: <a/>", False),
        ("", False),
        ("<a>" * 300 + "</a>" * 300, False),
        ('<!DOCTYPE a [<!ENTITY e "text">]><a>&e;</a>', False),
    ],
)
def test_the_whole_answer_is_xml(judged: Judged, output: str, passes: bool) -> None:
    row = judged({"type": "is-xml"}, output)
    assert row.score == float(passes)
    assert passes or row.assertions[0].evidence


@pytest.mark.parametrize("value", [["r.s", "r.s.t"], "r.s, r.s.t", {"requiredElements": ["r.s.t"]}])
def test_elements_that_must_be_there(judged: Judged, value: Any) -> None:
    entry = {"type": "is-xml", "value": value}
    assert judged(entry, "<r><s><t/></s></r>").score == 1.0
    row = judged(entry, "<r><s/><t/></r>")
    assert row.score == 0.0
    assert row.assertions[1].text == "XML lacks r.s.t"


@pytest.mark.parametrize(
    ("output", "wanted", "passes"),
    [
        ("Here é: <a><b>1</b></a>. Good?", ["a.b"], True),
        ('<br> <a/> and <b x="1>2"/><c>1</c>', ["a", "b", "c"], True),
        ("1 < 2 and 3 > 2, <br> <p>open", None, False),
        ("<p>open <i>closed</i>", ["i"], True),
        ("<a>1</a>", ["b"], False),
    ],
)
def test_xml_within_a_text(judged: Judged, output: str, wanted: Any, passes: bool) -> None:
    entry = {"type": "contains-xml"} | ({} if wanted is None else {"elements": wanted})
    assert judged(entry, output).score == float(passes)


def test_tags_without_end_take_no_time_without_end(graded: Callable[..., Graded]) -> None:
    found = graded({"type": "contains-xml"}, "<a>" * 400_000)
    assert found.error is not None
    assert "too many tags that are not closed" in found.error
