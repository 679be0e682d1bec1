from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_parts import make_case, user
from muster.evals.conversation import history_after, make_request, shown_input
from muster.provider import FilePart, ImagePart, Message, TextPart


def said(text: str) -> Message:
    return Message("assistant", text)


def system(text: str) -> Message:
    return Message("system", text)


def test_all_of_a_request() -> None:
    schema, files = {"type": "object"}, (Path("/a"), Path("/b"))
    case = make_case("id-1", suite="S", input_files=files, response_schema=schema)
    request = make_request(case, (user("hello"),), 3, cwd=Path("/w"))
    assert request.question == "hello"
    assert (request.system_prompt, request.messages, request.images) == (None, (), ())
    assert request.input_files == files
    assert (request.eval_case_id, request.cwd, request.attempt) == ("id-1", Path("/w"), 0)
    assert request.response_schema is schema
    assert dict(request.metadata) == {"suite": "S", "repeat": "3"}


def test_leading_system_messages_are_the_system_prompt() -> None:
    later = system("remember")
    messages = (system("be"), system("kind"), user("1"), said("a"), later, user("2"))
    request = make_request(make_case(), messages, 0)
    assert request.system_prompt == "be\n\nkind"
    assert request.messages == (user("1"), said("a"), later)
    assert request.question == "2"


@pytest.mark.parametrize("last", [said("and then"), Message("tool", "42", tool_call_id="1")])
def test_without_a_last_user_message_there_is_no_question(last: Message) -> None:
    request = make_request(make_case(), (user("1"), last), 0)
    assert (request.question, request.messages) == ("", (user("1"), last))


def test_system_messages_alone() -> None:
    request = make_request(make_case(), (system("only"),), 0)
    assert (request.system_prompt, request.messages, request.question) == ("only", (), "")
    empty = make_request(make_case(), (), 0)
    assert (empty.system_prompt, empty.messages, empty.question) == (None, (), "")


def test_images_of_the_question_go_with_it() -> None:
    early, late = ImagePart("early.png"), ImagePart("data:image/png;base64,AA==", "image/png")
    before = Message("user", (TextPart("this"), early))
    asked = Message("user", (TextPart("or"), late, FilePart(Path("/f")), TextPart("that?")))
    request = make_request(make_case(), (before, said("a"), asked), 0)
    assert request.question == "or\nthat?"
    assert request.images == (late,)
    assert request.messages == (before, said("a"))


def texts(messages: tuple[Message, ...]) -> str:
    return " ".join(message.text for message in messages)


TALK = (system("S"), user("1"), said("a"), user("2"), said("b"), said("b2"), user("3"), said("c"))


@pytest.mark.parametrize(
    ("window", "shown"),
    [
        (None, "S 1 a 2 b b2 3 c"),
        (1, "S 3 c"),
        (2, "S 2 b b2 3 c"),
        (3, "S 1 a 2 b b2 3 c"),
        (9, "S 1 a 2 b b2 3 c"),
    ],
)
def test_a_window_counts_exchanges(window: int | None, shown: str) -> None:
    assert texts(history_after(TALK, window)) == shown


def test_a_window_over_a_history_without_system_or_questions() -> None:
    assert texts(history_after((user("1"), said("a"), user("2"), said("b")), 1)) == "2 b"
    assert texts(history_after((said("hi"), user("1"), said("a")), 1)) == "hi 1 a"
    assert texts(history_after((system("S"), said("hi")), 1)) == "S hi"
    assert history_after((), 2) == ()


roles = st.sampled_from(["system", "user", "assistant", "tool"])
histories = st.lists(roles, max_size=12).map(
    lambda found: tuple(Message(role, str(number)) for number, role in enumerate(found))
)


@given(histories, st.integers(1, 5))
def test_a_window_keeps_the_system_prompt_and_the_end(
    history: tuple[Message, ...], window: int
) -> None:
    shown = history_after(history, window)
    head = next((n for n, message in enumerate(history) if message.role != "system"), len(history))
    asked = sum(message.role == "user" for message in history)
    tail = shown[head:]
    assert shown == history[:head] + history[len(history) - len(tail) :]
    assert sum(message.role == "user" for message in tail) == min(window, asked)
    if asked > window:
        assert tail[0].role == "user"
    else:
        assert shown == history


def test_a_single_question_is_shown_as_its_text() -> None:
    assert shown_input((user("hello"),)) == "hello"


def test_other_inputs_are_shown_as_messages() -> None:
    assert shown_input(()) == []
    assert shown_input((said("x"),)) == [{"role": "assistant", "content": "x"}]
    assert shown_input((system("s"), user("q"))) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
    ]
    mixed = Message("user", (TextPart("see"), ImagePart("a.png"), FilePart(Path("/f"))))
    assert shown_input((mixed,)) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "source": "a.png"},
                {"type": "file", "path": "/f"},
            ],
        }
    ]
