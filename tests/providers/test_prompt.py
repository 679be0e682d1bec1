"""Requests as one text."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.provider import (
    BadRequest,
    FilePart,
    ImagePart,
    Message,
    ProviderRequest,
    TextPart,
    ToolCall,
)
from muster.providers.prompt import FileStyle, render_prompt


@pytest.mark.parametrize("files", ["reference", "inline", "none"])
def test_one_message_is_its_plain_text(files: FileStyle) -> None:
    assert render_prompt(ProviderRequest(question="2+2?"), files=files) == "2+2?"


def test_a_system_prompt_brings_the_role_markers() -> None:
    request = ProviderRequest(question="France?", system_prompt="One word.", guidelines="Be kind.")
    assert render_prompt(request) == ("@[System]:\nOne word.\n\nBe kind.\n\n@[User]:\nFrance?")


def test_history_comes_oldest_first() -> None:
    request = ProviderRequest(
        question="And now?",
        messages=(
            Message("user", "Weather?"),
            Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Paris"}),)),
            Message("tool", "sunny"),
            Message("assistant", "Sunny."),
        ),
    )
    assert render_prompt(request) == (
        "@[User]:\nWeather?\n\n"
        '@[Assistant]:\n{"tool": "weather", "input": {"city": "Paris"}}\n\n'
        "@[Tool]:\nsunny\n\n"
        "@[Assistant]:\nSunny.\n\n"
        "@[User]:\nAnd now?"
    )


def test_files_as_references(tmp_path: Path) -> None:
    files = (tmp_path / "a.txt", tmp_path / "b c.txt")
    request = ProviderRequest(question="Compare.", input_files=files)
    assert render_prompt(request) == (
        f'<file: path="{tmp_path}/a.txt">\n<file: path="{tmp_path}/b c.txt">\n\nCompare.'
    )
    assert render_prompt(request, files="none") == "Compare."


def test_files_inline_are_named_from_the_working_folder(tmp_path: Path) -> None:
    inside = tmp_path / "work" / "notes" / "a.txt"
    inside.parent.mkdir(parents=True)
    inside.write_text("one\ntwo")
    outside = tmp_path / "b.txt"
    outside.write_text("three\n")
    request = ProviderRequest(
        question="Compare.",
        input_files=(Path("notes/a.txt"), outside),
        cwd=tmp_path / "work",
    )
    assert render_prompt(request, files="inline") == (
        '<file path="notes/a.txt">\none\ntwo\n</file>\n\n'
        '<file path="b.txt">\nthree\n</file>\n\n'
        "Compare."
    )


def test_a_file_that_cannot_be_put_in(tmp_path: Path) -> None:
    (tmp_path / "image.bin").write_bytes(b"\xff\xfe\x00\x81")
    for name, reason in (("image.bin", "not UTF-8 text"), ("absent", "No such file")):
        request = ProviderRequest(question="?", input_files=(tmp_path / name,))
        with pytest.raises(BadRequest, match=f"{name}: .*{reason}"):
            render_prompt(request, files="inline")


def test_parts_of_a_message(tmp_path: Path) -> None:
    content = (
        TextPart("Look:"),
        FilePart(tmp_path / "a.txt"),
        ImagePart("data:image/png;base64,AAAA"),
        ImagePart("https://example.com/x.png"),
    )
    request = ProviderRequest(question="Well?", messages=(Message("user", content),))
    assert render_prompt(request) == (
        f'@[User]:\nLook:\n\n<file: path="{tmp_path}/a.txt">\n\n<image: type="image/png">\n\n'
        '<image: path="https://example.com/x.png">\n\n@[User]:\nWell?'
    )
    assert render_prompt(request, files="none") == "@[User]:\nLook:\n\n@[User]:\nWell?"


def test_an_image_of_the_question() -> None:
    request = ProviderRequest(question="What is it?", images=(ImagePart("cat.png"),))
    assert render_prompt(request) == '<image: path="cat.png">\n\nWhat is it?'
