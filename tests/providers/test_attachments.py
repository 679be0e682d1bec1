"""Files and images on their way to models: what each API gets, and what is refused before."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmock import journal, llmock
from muster.capabilities import capabilities_of
from muster.provider import BadRequest, FilePart, ImagePart, Message, ProviderRequest, TextPart
from muster.providers.anthropic import AnthropicProvider
from muster.providers.chat import ChatProvider
from muster.providers.openai import OpenAIProvider
from muster.target import ResolvedTarget
from raw_server import RawServer, reply

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
JPEG = b"\xff\xd8\xff\xe0" + bytes(8)
GIF = b"GIF89a" + bytes(8)
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "
PDF = b"%PDF-1.7\n%%EOF\n"
APIS = pytest.mark.parametrize("api", ["chat", "responses", "anthropic"])

CHAT = {"choices": [{"message": {"content": "seen"}, "finish_reason": "stop"}]}
RESPONSE = {
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "seen"}]}],
}
MESSAGE = {"content": [{"type": "text", "text": "seen"}], "stop_reason": "end_turn"}


def uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def model(api: str, url: str, **config: Any) -> ChatProvider:
    settings = {"base_url": url, "model": "m", "api_key": "k", **config}
    if api == "anthropic":
        made: Any = AnthropicProvider(
            ResolvedTarget(name="t", provider="anthropic", config=settings, env={})
        )
    else:
        settings["api_format"] = api
        made = OpenAIProvider(ResolvedTarget(name="t", provider="openai", config=settings, env={}))
    return ChatProvider(made)


async def sent(api: str, request: ProviderRequest) -> list[dict[str, Any]]:
    """The parts of the last user message that the server gets."""
    answer = {"chat": CHAT, "responses": RESPONSE, "anthropic": MESSAGE}[api]
    async with RawServer(reply(answer)) as server:
        provider = model(api, server.url)
        try:
            assert (await provider.invoke(request)).text == "seen"
        finally:
            await provider.aclose()
    body = server.requests[0].json()
    content: list[dict[str, Any]] = (body.get("messages") or body["input"])[-1]["content"]
    return content


def image(api: str, kind: str, data: bytes) -> dict[str, Any]:
    if api == "chat":
        return {"type": "image_url", "image_url": {"url": uri(kind, data)}}
    if api == "responses":
        return {"type": "input_image", "image_url": uri(kind, data), "detail": "auto"}
    encoded = base64.b64encode(data).decode()
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": kind, "data": encoded},
    }


def document(api: str, name: str, data: bytes) -> dict[str, Any]:
    if api == "chat":
        return {
            "type": "file",
            "file": {"filename": name, "file_data": uri("application/pdf", data)},
        }
    if api == "responses":
        return {
            "type": "input_file",
            "filename": name,
            "file_data": uri("application/pdf", data),
        }
    encoded = base64.b64encode(data).decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": encoded}
    return {"type": "document", "source": source, "title": name}


def text(api: str, value: str) -> dict[str, Any]:
    return {"type": "input_text" if api == "responses" else "text", "text": value}


@APIS
async def test_files_by_what_they_hold(api: str, tmp_path: Path) -> None:
    files = {"a.png": PNG, "b.jpg": JPEG, "c.gif": GIF, "d.webp": WEBP, "e.pdf": PDF}
    for name, data in {**files, "f.txt": b"six\n", "wrong.jpg": PNG}.items():
        (tmp_path / name).write_bytes(data)
    names = [*files, "f.txt", "wrong.jpg"]
    content = await sent(
        api,
        ProviderRequest(
            question="what?",
            cwd=tmp_path,
            input_files=tuple(Path(name) for name in names),
            images=(ImagePart(uri("image/png", PNG)), ImagePart("a.png")),
        ),
    )
    assert content == [
        image(api, "image/png", PNG),
        image(api, "image/jpeg", JPEG),
        image(api, "image/gif", GIF),
        image(api, "image/webp", WEBP),
        document(api, "e.pdf", PDF),
        text(api, '<file path="f.txt">\nsix\n</file>'),
        image(api, "image/png", PNG),  # by what it holds, not by its name
        image(api, "image/png", PNG),
        image(api, "image/png", PNG),
        text(api, "what?"),
    ]


@APIS
async def test_parts_of_earlier_messages(api: str, tmp_path: Path) -> None:
    (tmp_path / "e.pdf").write_bytes(PDF)
    said = Message("user", (TextPart("read"), FilePart(tmp_path / "e.pdf")))
    request = ProviderRequest(question="", cwd=tmp_path, messages=(said,))
    content = await sent(api, request)
    if api == "anthropic":  # an empty question is no block of its own
        assert content == [text(api, "read"), document(api, "e.pdf", PDF)]


@pytest.fixture(scope="module")
def mock_server() -> Iterator[str]:
    with llmock([{"match": {}, "response": {"content": "a cat"}}]) as url:
        yield url


@pytest.mark.node
@APIS
async def test_a_server_that_others_wrote_takes_them(
    api: str, mock_server: str, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "e.pdf").write_bytes(PDF)
    provider = model(api, mock_server)
    files = (tmp_path / "a.png", tmp_path / "e.pdf")
    response = await provider.invoke(ProviderRequest(question=f"{api}?", input_files=files))
    await provider.aclose()
    assert response.text == "a cat"
    if api == "chat":  # of the others, its journal has the text alone
        assert base64.b64encode(PNG).decode() in str(journal(mock_server)[-1])


REFUSED = [
    ("missing.png", None, "No such file"),
    ("empty.png", b"", "is empty"),
    ("fake.png", b"<html>", "is not an image that models take"),
    ("photo.bmp", b"BM" + bytes(9), "expected png, jpeg, gif or webp"),
    ("a.zip", b"PK\x03\x04\xff\xfe", r"takes text \(UTF-8\), png, jpeg, gif, webp or PDF"),
    ("big.png", PNG + bytes(200), "216 bytes, more than the target's max_file_bytes"),
    ("big.txt", b"x" * 200, r"200 bytes, more than the target's max_file_bytes \(100\)"),
]


@pytest.mark.parametrize(("name", "data", "told"), REFUSED)
async def test_what_is_refused_before_the_call(
    tmp_path: Path, name: str, data: bytes | None, told: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    async with RawServer(reply(CHAT)) as server:
        provider = model("chat", server.url, max_file_bytes=100)
        with pytest.raises(BadRequest, match=told):
            await provider.invoke(ProviderRequest(question="?", input_files=(tmp_path / name,)))
        await provider.aclose()
    assert server.requests == []


async def test_a_pipe_and_a_folder_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    provider = model("chat", "http://127.0.0.1:9")
    for path in (tmp_path / "pipe.txt", tmp_path):
        with pytest.raises(BadRequest, match="is not a file that can be attached"):
            await provider.invoke(ProviderRequest(question="?", input_files=(path,)))
    await provider.aclose()


async def test_a_data_uri_that_is_too_large() -> None:
    provider = model("chat", "http://127.0.0.1:9", max_file_bytes=100)
    request = ProviderRequest(question="?", images=(ImagePart(uri("image/png", bytes(300))),))
    with pytest.raises(BadRequest, match="300 bytes, more than the target's max_file_bytes"):
        await provider.invoke(request)
    await provider.aclose()


async def test_a_chat_model_that_says_nothing_of_documents_gets_none(tmp_path: Path) -> None:
    class Own:
        async def complete(self, turn: Any) -> Any:
            raise AssertionError("it is not asked")

    (tmp_path / "e.pdf").write_bytes(PDF)
    request = ProviderRequest(question="?", input_files=(tmp_path / "e.pdf",))
    with pytest.raises(BadRequest, match=r"this target takes text \(UTF-8\), png, jpeg, gif, webp"):
        await ChatProvider(Own()).invoke(request)


def test_what_they_declare() -> None:
    for api in ("chat", "anthropic"):
        found = capabilities_of(model(api, "http://127.0.0.1:9"))
        assert (found.images, found.files, found.tools) == (True, True, True)
