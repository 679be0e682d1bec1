"""What a model answered does not drive the terminal that it is shown on."""

from muster.plain import harmless


def test_control_characters_are_shown_and_not_sent() -> None:
    assert harmless("a\x1b[31mb\x07\x9b1m\r\x7f") == "a\\x1b[31mb\\x07\\x9b1m\\x0d\\x7f"


def test_lines_tabs_and_letters_stay() -> None:
    assert harmless("ä\t1\n  漢字 🙂\n") == "ä\t1\n  漢字 🙂\n"
