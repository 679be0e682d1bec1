"""Rules of what must arrive at whoever answers, and of answers that must not be mixed up."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path

from muster.provider import (
    BadRequest,
    Message,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
)
from muster.testing.dialects import MODEL_APIS
from muster.testing.outcome import Broken, NotApplicable, Rule
from muster.testing.script import Call, Reply
from muster.testing.subject import Reflects
from muster.testing.trial import Trial, quoted, shown, word

__all__ = ("ARRIVING",)

CALLS = 50
LARGE = 1_000_000
UNICODE = "naïve — 日本語 ∑ Ωμέγα עברית 👩‍👩‍👧‍👦 e\u0301 \u2028 \U0001f9ea ﬁn"


async def _system_prompt(trial: Trial) -> str | None:
    prompt, guidelines = word(), word()
    response = await trial.ask(
        system_prompt=f"Answer as {prompt} would.", guidelines=f"It is graded by {guidelines}."
    )
    for name, found in (("system prompt", prompt), ("guidelines", guidelines)):
        _must_hold(trial, response, found, f"the {name}", "system_prompt")
    return None


async def _question(trial: Trial) -> str | None:
    first, second = word(), word()
    question = f"  First line: {first}?\n\n\tSecond paragraph: {second}."
    response = await trial.ask(question)
    _must_hold(trial, response, question, "the question", "question")
    return None


async def _history(trial: Trial) -> str | None:
    said = [word() for _ in range(4)]
    roles = ("user", "assistant", "user", "assistant")
    messages = tuple(Message(role, f"It is {w}.") for role, w in zip(roles, said, strict=True))
    last = word()
    response = await trial.ask(f"And now {last}?", messages=messages)
    if not trial.served:
        trial.need_reflection("history")
    text = trial.last.text if trial.served else response.text
    missing = [number for number, w in enumerate(said, 1) if w not in text]
    if missing:
        raise Broken(f"of 4 earlier messages, these did not arrive: {', '.join(map(str, missing))}")
    places = [text.rindex(w) for w in (*said, last)]
    if places != sorted(places):
        raise Broken("the earlier messages and the question arrived in another order")
    return None


async def _files(trial: Trial) -> str | None:
    held = word()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.txt"
        path.write_text(f"The word is {held}.\n", encoding="utf-8")
        request = ProviderRequest(
            question="What is the word?", input_files=(path,), cwd=Path(folder)
        )
        try:
            response = await trial.answer_to(request)
        except BadRequest as error:
            raise NotApplicable(f"it says that it takes no files: {shown(error)}") from None
        except ProviderError as error:
            raise Broken(f"a question with a file failed: {shown(error)}") from None
        if not trial.served:
            trial.need_reflection("files")
        text = trial.last.text if trial.served else response.text
        if held in text:
            return None
        # An agent gets the path; a model behind a chat API could do nothing with it.
        known = trial.served and trial.last.dialect in MODEL_APIS
        agent = not known or trial.way == "behind"
        if agent and str(path) in text:
            return "it gets the file's path"
    raise Broken("neither the file's content nor its path arrived")


async def _unicode(trial: Trial) -> str | None:
    trial.environment.script = lambda call: Reply(text=UNICODE, torn=True)
    response = await trial.ask(UNICODE)
    _must_hold(trial, response, UNICODE, "the question", "question")
    if not trial.served:
        return None
    if response.text != UNICODE:
        raise Broken(f"the answer came out changed: {quoted(response.text)}")
    streamed, chunks = await trial.chunks_of(UNICODE)
    if streamed.text != UNICODE or (chunks and "".join(chunks) != UNICODE):
        came = "".join(chunks) if streamed.text == UNICODE else streamed.text
        raise Broken(f"a stream that is cut within characters came out changed: {quoted(came)}")
    return None


async def _empty(trial: Trial) -> str | None:
    try:
        response = await trial.answer_to(ProviderRequest(question=""))
    except BadRequest:
        return "it is refused, as BadRequest"
    except Exception as error:
        if isinstance(error, Broken):
            raise
        raise Broken(f"an empty question failed: {shown(error)}") from None
    if trial.served and response.text != "ready":
        raise Broken(f"the service answered, but the answer was {quoted(response.text)}")
    return None


async def _large(trial: Trial) -> str | None:
    first, last = word(), word()
    filler = "lorem ipsum dolor sit amet " * (LARGE // 27)
    question = f"{first} {filler}{last}"
    try:
        response = await trial.answer_to(ProviderRequest(question=question))
    except BadRequest:
        return "it is refused, as BadRequest"
    except Exception as error:
        if isinstance(error, Broken):
            raise
        raise Broken(f"a question of 1 MB failed: {shown(error)}") from None
    if not trial.served:
        trial.need_reflection("question")
    text = trial.last.text if trial.served else response.text
    if question not in text:
        raise Broken(f"of {len(question):,} characters, {len(text):,} arrived")
    return None


async def _concurrent(trial: Trial) -> str | None:
    if not trial.served:
        trial.need_reflection("question")
    trial.environment.script = _echoed
    markers = [f"item-{number:02d}-{word()}" for number in range(CALLS)]
    chunks: list[list[str]] = [[] for _ in markers]
    answers = await asyncio.gather(
        *(
            trial.ask(f"Repeat: {marker}", on_chunk=chunks[number].append if number % 2 else None)
            for number, marker in enumerate(markers)
        )
    )
    for number, (marker, answer) in enumerate(zip(markers, answers, strict=True)):
        for what, text in (("answer", answer.text), ("stream", "".join(chunks[number]))):
            found = set(re.findall(r"item-\d\d-marker\d+x", text))
            if (found or what == "answer") and found != {marker}:
                got = ", ".join(sorted(found)) or "nothing"
                raise Broken(f"the {what} to {marker} held {got} instead")
        usage, own = answer.token_usage, _usage_of(number)
        if (
            trial.way == "itself"
            and usage
            and (usage.input, usage.output) != (own.input, own.output)
        ):
            raise Broken(
                f"the call of {marker} used {own.input} + {own.output} tokens; its answer has the "
                f"usage of other calls: {usage.input} + {usage.output}"
            )
    return None


def _usage_of(number: int) -> TokenUsage:
    return TokenUsage(1000 + number, 1 + number)


def _echoed(call: Call) -> Reply:
    """The call's own marker; the first to come wait longest, so that answers overtake."""
    found = re.search(r"item-(\d\d)-marker\d+x", call.text)
    number = int(found[1]) if found else 0
    marker = found[0] if found else "nothing"
    return Reply(
        f"It was {marker} indeed.", delay=(CALLS - number) * 0.002, usage=_usage_of(number)
    )


def _must_hold(
    trial: Trial, response: ProviderResponse, text: str, what: str, reflects: Reflects
) -> None:
    if trial.served:
        if text not in trial.last.text:
            raise Broken(f"{what} did not arrive; this did: {quoted(trial.last.text)}")
        return
    trial.need_reflection(reflects)
    if text not in response.text:
        raise Broken(f"{what} is not in the answer: {quoted(response.text)}")


ARRIVING = (
    Rule(
        id="system-prompt-arrives",
        title="The system prompt and the guidelines arrive",
        why="Without them the model is another agent than the one that was configured.",
        mend="Send `request.system_prompt` and `request.guidelines`; `system_text(request)` and "
        "`render_prompt(request)` join them.",
        run=_system_prompt,
    ),
    Rule(
        id="question-arrives",
        title="The question arrives, as it stands",
        why="A question that is stripped or cut is another question.",
        mend="Send `request.question` whole: its line breaks and blanks belong to it.",
        run=_question,
    ),
    Rule(
        id="history-arrives",
        title="Earlier messages arrive, in their order",
        why="The second turn of a conversation makes no sense without the first.",
        mend="Send `request.messages`, oldest first, before the question.",
        run=_history,
    ),
    Rule(
        id="files-arrive",
        title="Input files arrive, by content or, for agents, by path",
        why="A case about a file that nobody sees measures nothing.",
        mend="Put the content of `request.input_files` into the prompt, or the paths if an agent "
        "can read them; or refuse them with `BadRequest`.",
        run=_files,
    ),
    Rule(
        id="unicode-prompt",
        title="Any character arrives and comes back, also when a stream is cut within it",
        why="Bytes of a stream come in pieces that know nothing of characters.",
        mend="Encode as UTF-8, and decode whole lines or events, never each piece as it comes.",
        run=_unicode,
        after=("chunks-join",),
    ),
    Rule(
        id="empty-prompt",
        title="An empty question is asked, or refused as `BadRequest`",
        why="Data sets have empty rows; one of them must not end a run in a crash.",
        mend="Take nothing about the question for granted; where the service refuses an empty "
        "one, raise `BadRequest`.",
        run=_empty,
    ),
    Rule(
        id="large-prompt",
        title="A question of 1 MB arrives whole, or is refused as `BadRequest`",
        why="A prompt that is cut silently is answered wrongly.",
        mend="Send long prompts in a body or a file, not in a command line or a URL; cut nothing.",
        run=_large,
    ),
    Rule(
        id="concurrent-calls",
        title=f"{CALLS} calls at once get each its own answer",
        why="One instance serves all the workers of a run.",
        mend="Keep what belongs to a call in local variables, not in `self`.",
        run=_concurrent,
        after=("usage-monotonic",),
    ),
)
