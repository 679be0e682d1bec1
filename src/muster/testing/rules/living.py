"""Rules of a provider's life: cancellation, closing, event loops, secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from muster.provider import (
    Provider,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
)
from muster.tasks import end_within
from muster.testing.holdings import Holdings, private_temporary_folder
from muster.testing.outcome import Broken, NotApplicable, Rule
from muster.testing.script import Body, ErrorEvent, Reply, Script, Stall, Status, always
from muster.testing.trial import Trial, close, quoted, shown, until
from muster.testing.watchdog import Watchdog
from muster.wrappers.timeout import Timeout

__all__ = ("LIVING",)

PROMPT_SECONDS = 1.0
BLOCKED_SECONDS = 0.2
REPLY_SECONDS = 0.4
TRIES = 3
MANY_CALLS = 20
"""At once in each of two event loops: more than a pool or a semaphore usually lets through."""
FEW_CALLS = 3
"""Where each may start a process."""
AT_ONCE_SECONDS = 0.15
"""A provider that calls nobody and has answered by then cannot be cancelled."""


async def _start(
    trial: Trial, script: Script, *, on_chunk: Callable[[str], None] | None = None
) -> asyncio.Task[ProviderResponse]:
    """A call that is under way: the service has it, and does not answer."""
    trial.environment.script = script
    before = len(trial.calls)
    request = ProviderRequest(
        question="Take your time.", on_chunk=on_chunk, eval_case_id=trial.rule
    )
    task = asyncio.ensure_future(trial.provider.invoke(request))
    if not trial.served:
        await asyncio.wait({task}, timeout=AT_ONCE_SECONDS)
        if task.done():
            task.exception()
            raise NotApplicable("it answers at once")
        return task
    await until(lambda: len(trial.calls) > before or task.done(), 5.0)
    if task.done():
        error = task.exception()
        how = f": {shown(error)}" if error is not None else ", with an answer"
        raise Broken(f"a call whose service did not answer ended by itself{how}")
    return task


async def _cancelled(trial: Trial) -> str | None:
    if trial.served:
        await trial.ask()
    slowest = await _cancel(trial, Stall(), "")
    if await trial.streams():
        slowest = max(slowest, await _cancel(trial, Stall(amid=True), " amid a stream"))
    return f"after {slowest * 1000:.0f} ms at most"


async def _cancel(trial: Trial, stall: Stall, where: str) -> float:
    """Seconds that a call needs to end, once cancelled."""
    came = asyncio.Event()
    on_chunk = (lambda text: came.set()) if stall.amid else None
    task = await _start(trial, lambda call: stall, on_chunk=on_chunk)
    if stall.amid:  # not every provider passes on what comes at once
        await until(came.is_set, 0.5)
    begun = time.perf_counter()
    task.cancel()
    await asyncio.wait({task}, timeout=PROMPT_SECONDS)
    took = time.perf_counter() - begun
    if not task.done():
        raise Broken(f"a call that was cancelled{where} went on for more than 1 s")
    if not task.cancelled():
        error = task.exception()
        ended = shown(error) if error is not None else "an answer"
        raise Broken(f"a call that was cancelled{where} swallowed it, and ended with {ended}")
    return took


async def _leaks(trial: Trial) -> str | None:
    with private_temporary_folder() as folder:
        if trial.served:
            await asyncio.gather(trial.ask(), trial.ask())
        streams = await trial.streams()
        await asyncio.sleep(0.02)  # what the answers leave for the next turn of the loop
        before = Holdings.now(trial.environment, folder)
        tasks = [await _start(trial, lambda call: Stall()) for _ in range(3)]
        if streams:
            tasks.append(
                await _start(trial, lambda call: Stall(amid=True), on_chunk=lambda text: None)
            )
        for task in tasks:
            task.cancel()
        ended, _ = await asyncio.wait(tasks, timeout=10.0)
        for task in ended:
            _ = task.cancelled() or task.exception()  # looked at, so that asyncio prints nothing
        left = await before.left(trial.environment, folder, PROMPT_SECONDS)
    if left:
        raise Broken(f"1 s after {len(tasks)} calls were cancelled, there are still {left}")
    return None


async def _timeouts(trial: Trial) -> str | None:
    seconds = 0.2
    if trial.served:
        await trial.ask()
    else:  # is it ever slow enough? The first call may have a process to start.
        seconds = AT_ONCE_SECONDS / 2
        first = asyncio.ensure_future(trial.ask())
        await end_within(first, PROMPT_SECONDS)
        _ = first.cancelled() or first.exception()  # looked at, so that asyncio prints nothing
        (await _start(trial, lambda call: Stall())).cancel()
    trial.environment.script = lambda call: Stall()
    request = ProviderRequest(question="Take your time.")
    error = await trial.failure_of(request, Timeout(trial.provider, seconds))
    if not isinstance(error, ProviderTimeout) or "went on" in str(error):
        raise Broken(f"a call that was timed out from outside ended with {shown(error)}")
    for status in (408, 504) if trial.way == "itself" else ():
        trial.environment.script = always(Status(status, "timed out", "timeout_error"))
        error = await trial.failure_of(request)
        if not isinstance(error, ProviderTimeout):
            raise Broken(f"status {status}: expected ProviderTimeout, got {shown(error)}")
    return None


async def _secrets(trial: Trial) -> str | None:
    trial.need_own_calls()
    key = trial.environment.key
    with _Logged() as logged:
        await trial.ask()
        headers = json.dumps(dict(trial.last.headers)) + json.dumps(trial.last.body)
        if key not in headers:
            raise NotApplicable("it does not send the environment's key")
        told = [await _told(trial, script) for script in _repeating(key, headers)]
        if await trial.streams():
            told += [
                await _told(trial, script, streamed=True) for script in _repeating(key, headers)
            ]
    for what, text in [*(pair for pairs in told for pair in pairs), ("a log line", logged.text)]:
        if key in text:
            raise Broken(f"the key is in {what}: {quoted(text.replace(key, '<the key>'))}")
    return None


def _repeating(key: str, headers: str) -> list[Script]:
    """Services that say what they were told, as debug modes do."""
    said = f"Incorrect API key provided: {key}; headers: {headers}"
    return [
        lambda call: Reply("An answer.", extra={"debug": {"request_headers": headers}}),
        lambda call: Status(401, said, "invalid_api_key"),
        lambda call: Status(500, said, "server_error"),
        lambda call: ErrorEvent(said),
        lambda call: Body(f"{{ {said}".encode(), as_event=True),
    ]


async def _told(trial: Trial, script: Script, *, streamed: bool = False) -> list[tuple[str, str]]:
    """All that comes out of one call, by name."""
    trial.environment.script = script
    request = ProviderRequest(
        question="Are you ready?", on_chunk=(lambda text: None) if streamed else None
    )
    try:
        response = await trial.answer_to(request)
    except ProviderError as error:
        texts = [f"{error} {error.message} {error.args!r} {vars(error)!r}"]
        # A traceback prints what an error came from.
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            texts.append(f"{cause!r} {cause}")
        return [("an error", text) for text in texts]
    return [("`raw`", f"{response.raw!r} {_plain(response.raw)}"), ("the answer", repr(response))]


def _plain(value: object) -> str:
    return json.dumps(value, default=lambda item: repr(getattr(item, "__dict__", item)))


class _Logged(logging.Handler):
    """Takes down what is logged, at every level, while the block runs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._level = logging.WARNING

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))

    def __enter__(self) -> _Logged:
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._level)


async def _closes(trial: Trial) -> str | None:
    with private_temporary_folder() as folder:
        warm = trial.make(closed=False)
        await trial.ask(provider=warm)
        await close(warm)
        await asyncio.sleep(0.02)
        before = Holdings.now(trial.environment, folder)
        provider = trial.make(closed=False)
        await asyncio.gather(*(trial.ask(provider=provider) for _ in range(3)))
        closed = await _closed(provider)
        left = await before.left(trial.environment, folder, PROMPT_SECONDS, all_connections=True)
    if left:
        way = "`aclose()`" if closed else "the last answer (there is no `aclose`)"
        raise Broken(f"1 s after {way}, there are still {left}")
    return None


async def _second_loop(trial: Trial) -> str | None:
    provider = trial.make(closed=False)
    # A lock belongs to the first loop in which somebody has to wait for it.
    calls = FEW_CALLS if trial.way == "behind" else MANY_CALLS

    async def ask() -> set[str]:
        asked = (trial.ask(provider=provider) for _ in range(calls))
        return {response.text for response in await asyncio.gather(*asked)}

    async def ask_and_close() -> set[str]:
        texts = await ask()
        await _closed(provider)
        return texts

    def both() -> tuple[set[str], set[str]]:
        first = asyncio.run(ask())
        try:
            return first, asyncio.run(ask_and_close())
        except Broken as broken:
            raise Broken(f"in the second of two event loops: {broken}") from None

    first, second = await asyncio.to_thread(both)
    if first != second:
        one, other = (quoted(" / ".join(sorted(texts))) for texts in (first, second))
        raise Broken(f"answered {one} in one event loop, {other} in the next")
    return None


async def _closed(provider: Provider) -> bool:
    """Close it as a pool does; whether it can be closed."""
    aclose = getattr(provider, "aclose", None)
    if aclose is None:
        return False
    try:
        async with asyncio.timeout(10.0):
            await aclose()
    except TimeoutError:
        raise Broken("`aclose()` did not end within 10 s") from None
    except Exception as error:
        raise Broken(f"`aclose()` failed: {shown(error)}") from None
    return True


async def _blocks(trial: Trial) -> str | None:
    await trial.ask()
    trial.environment.script = lambda call: Reply("ready", delay=REPLY_SECONDS)
    best = None
    for _ in range(TRIES):  # a busy machine holds a loop up too, but not each time
        with Watchdog(BLOCKED_SECONDS) as watchdog:
            await asyncio.gather(*(_ask_at_length(trial) for _ in range(3)))
        if best is None or watchdog.longest < best.longest:
            best = watchdog
        if best.longest < BLOCKED_SECONDS:
            return f"held up for {best.longest * 1000:.0f} ms at most"
    assert best is not None
    raise Broken(
        f"the event loop stood still for {best.longest * 1000:.0f} ms"
        + (f", in {best.where}" if best.where else "")
    )


async def _ask_at_length(trial: Trial) -> None:
    with suppress(ProviderError):  # too long for it: another rule's concern
        await trial.answer_to(ProviderRequest(question="lorem ipsum " * 20_000))


LIVING = (
    Rule(
        id="cancelled-within-1-s",
        title="A cancelled call ends within 1 s, as cancelled",
        why="Ctrl-C, timeouts and the first failure of a team must end what is under way.",
        mend="Let `asyncio.CancelledError` pass; catch `Exception`, not `BaseException`.",
        run=_cancelled,
        after=("does-not-block",),
    ),
    Rule(
        id="cancelled-leaks-nothing",
        title="A cancelled call leaves no task, socket, process or file",
        why="A service that goes on answering is paid; a run of thousands runs out of sockets.",
        mend="Await what you start, and end it in `finally`; close the response, kill the process. "
        "A thread cannot be stopped: a synchronous function needs a client with a short time-out "
        "of its own, or is better written with `async`.",
        run=_leaks,
        after=("does-not-block", "cancelled-within-1-s"),
        alone=True,
    ),
    Rule(
        id="timeouts-are-typed",
        title="Timeouts are `ProviderTimeout`: from outside, and as status 408 or 504",
        why="Whether a call is tried again is decided by the error's type.",
        mend="Let cancellation pass, so that the timeout around the call can end it; map statuses "
        "by `error_for_status`.",
        run=_timeouts,
        after=("does-not-block", "cancelled-within-1-s"),
    ),
    Rule(
        id="secrets-stay-hidden",
        title="The key reaches no error, no log and no `raw`, even if the service repeats it",
        why="Errors, logs and results are stored, shown and sent around.",
        mend="Mask the key in every text of the service's; put no headers into `raw` or a log.",
        run=_secrets,
        alone=True,
    ),
    Rule(
        id="aclose-closes",
        title="`aclose()` closes: no connection, process, task or file is left",
        why="A program that opens providers again and again runs out of them.",
        mend="Close the pool, end the children and await the tasks in `async aclose(self)`.",
        run=_closes,
        alone=True,
    ),
    Rule(
        id="second-event-loop",
        title="It works in a second event loop",
        why="`asyncio.run` twice is what scripts, notebooks and tests do.",
        mend="Keep pools, locks and semaphores by event loop, or make them at each call; make "
        "none at import. `HttpClient` does.",
        run=_second_loop,
    ),
    Rule(
        id="does-not-block",
        title="It does not block the event loop",
        why="One call that blocks stops all others, and their timeouts.",
        mend="Await; put what blocks on a thread with `asyncio.to_thread`, or write the provider "
        "as a synchronous function, which Muster runs on threads.",
        run=_blocks,
        alone=True,
    ),
)
