"""Rules of the answer and its accounting: chunks, tokens, money."""

from __future__ import annotations

from muster.pricing import cost_of
from muster.provider import ProviderResponse, TokenUsage
from muster.testing.dialects import MODEL_APIS
from muster.testing.outcome import Broken, NotApplicable, Rule
from muster.testing.rules.tools import TOOLS_OF_RULES, asking, offers_tools
from muster.testing.script import Call, Reply
from muster.testing.trial import Trial, quoted

__all__ = ("ANSWERS",)

WHOLE = TokenUsage(100, 20, cached=40)
GROWING = (TokenUsage(100, 1), TokenUsage(100, 4), TokenUsage(100, 9))
PRICED = TokenUsage(1200, 340, cached=800)
CHARGED = 0.0123
TEXT = "One,  two,\nthree; and\n\n- four"
PIECES = ("One,", "  two", ",\n", "three; ", "and\n", "\n", "- ", "four")
NOBODYS_MODEL = "nobody-sells-this-model"
PRICED_MODELS = {"messages": "claude-3-5-haiku-latest"}
PRICED_MODEL = "gpt-4o-mini"


async def _chunks(trial: Trial) -> str | None:
    told = await _told_in_pieces(trial, Reply(TEXT, pieces=PIECES))
    if trial.way == "itself" and trial.last.stream:
        # Some services say why they end together with the last words.
        await _told_in_pieces(trial, Reply(TEXT, pieces=PIECES, ends_with_text=True))
    return told


async def _told_in_pieces(trial: Trial, reply: Reply) -> str:
    trial.environment.script = lambda call: reply
    response, chunks = await trial.chunks_of("Count to four, in pieces.")
    text = reply.text
    if not chunks:
        if trial.capabilities.streaming:
            raise Broken("it declares `streaming`, but `on_chunk` was never called")
        if trial.served and trial.last.stream:
            raise Broken("it asked the service for a stream, but `on_chunk` was never called")
        raise NotApplicable("it does not stream")
    if any(not isinstance(chunk, str) for chunk in chunks):
        raise Broken("a chunk is no text")
    if "".join(chunks) != response.text:
        raise Broken(
            f"the chunks join to {quoted(''.join(chunks))}, the output is {quoted(response.text)}"
        )
    if trial.way == "itself" and response.text != text:
        how = ", its last words together with the finish reason" if reply.ends_with_text else ""
        raise Broken(f"the service said {quoted(text)}{how}; the output is {quoted(response.text)}")
    return f"{len(chunks)} chunks"


async def _monotonic(trial: Trial) -> str | None:
    trial.environment.script = lambda call: Reply("A whole answer.", usage=WHOLE)
    usage = (await trial.ask()).token_usage
    if usage is None:
        raise NotApplicable("it reports no usage")
    _sound(usage)
    if not trial.served:
        return None
    _same(usage, WHOLE, "an answer in one piece")
    trial.environment.script = lambda call: Reply("One two three", usage=WHOLE, interim=GROWING)
    response, _ = await trial.chunks_of()
    if response.token_usage is not None:
        streamed = "a stream whose counts grow on the way" if trial.last.stream else "a second call"
        _same(response.token_usage, WHOLE, streamed)
    return None


def _sound(usage: TokenUsage) -> None:
    if min(usage.input, usage.output) < 0:
        raise Broken(f"counts below 0: {usage.to_dict()}")
    if (usage.cached or 0) > usage.input or (usage.reasoning or 0) > usage.output:
        raise Broken(
            f"cached tokens are part of the input, reasoning tokens part of the output: "
            f"{usage.to_dict()}"
        )


def _same(usage: TokenUsage, expected: TokenUsage, what: str) -> None:
    counts = (usage.input, usage.output)
    if counts != (expected.input, expected.output):
        raise Broken(
            f"of {what}, the service counted {expected.input} + {expected.output} tokens; "
            f"reported were {usage.input} + {usage.output}"
        )
    if usage.cached not in (None, expected.cached):
        raise Broken(f"{expected.cached} tokens were cached; reported were {usage.cached}")


async def _sums(trial: Trial) -> str | None:
    await offers_tools(trial)
    first, second = TokenUsage(100, 20), TokenUsage(130, 30)
    usage = await _of_two_turns(trial, first, second)
    if usage is None:
        raise NotApplicable("it reports no usage")
    if (usage.input, usage.output) != (230, 50):
        raise Broken(
            f"two turns of 100 + 20 and 130 + 30 tokens; reported were "
            f"{usage.input} + {usage.output}, not 230 + 50"
        )
    return None


async def _of_two_turns(
    trial: Trial, first: TokenUsage | None, second: TokenUsage | None
) -> TokenUsage | None:
    def script(call: Call) -> Reply:
        if call.tool_results:
            return Reply("It is 5.", usage=second)
        return Reply(asked=(asking("add", a=2, b=3),), usage=first)

    async def call_tool(name: str, arguments: object) -> str:
        return "5"

    trial.environment.script = script
    # One that has answered nothing: counts of earlier calls are another rule's business.
    response = await trial.ask(
        "2 + 3?", provider=trial.make(), tools=TOOLS_OF_RULES, call_tool=call_tool
    )
    return response.token_usage


async def _unknown(trial: Trial) -> str | None:
    trial.need_calls()
    trial.environment.script = lambda call: Reply("An answer without counts.", usage=None)
    response = await trial.ask()
    _must_be_unknown(response, "the service reported no tokens")
    response, _ = await trial.chunks_of()
    _must_be_unknown(response, "the service reported no tokens in its stream")
    return None


def _must_be_unknown(response: ProviderResponse, what: str) -> None:
    if response.token_usage is not None:
        counts = response.token_usage.to_dict()
        raise Broken(f"{what}, and yet there is a usage: {counts}")


async def _cost(trial: Trial) -> str | None:
    trial.need_calls()
    await trial.ask()
    model = PRICED_MODELS.get(trial.last.dialect, PRICED_MODEL)
    own = trial.last.dialect not in MODEL_APIS  # it may say what it charges
    charged = CHARGED if own else None
    reply = Reply("An answer.", usage=PRICED, model=model, cost_usd=charged)
    trial.environment.script = lambda call: reply
    response = await trial.ask()
    cost = response.cost_usd
    if cost is None:
        raise NotApplicable("it reports no cost")
    known: set[float | None] = set() if charged is None else {charged}
    known |= _prices(trial, model)
    if not any(price is not None and abs(cost - price) <= 1e-9 for price in known):
        listed = ", ".join(f"${price:.8f}" for price in known if price is not None)
        raise Broken(
            f"{PRICED.input} tokens ({PRICED.cached} of them cached) + {PRICED.output} of "
            f"{model} cost {listed or 'nothing that is known'}; reported was ${cost:.8f}"
        )
    if own and cost == CHARGED:
        return f"${cost:.4f}, as the service said"
    reply = Reply("An answer.", usage=PRICED, model=NOBODYS_MODEL)
    response = await trial.ask()
    if response.cost_usd is not None:
        raise Broken(f"a model without a price is said to cost ${response.cost_usd:.8f}")
    return f"${cost:.6f}"


def _prices(trial: Trial, model: str) -> set[float | None]:
    seller = trial.subject.price_as
    if seller is None and trial.last.dialect == "messages":
        seller = "anthropic"
    return {cost_of(model, PRICED, provider=seller)}


ANSWERS = (
    Rule(
        id="chunks-join",
        title="Streamed chunks join to the output",
        why="What a reader saw and what is recorded and graded must be the same.",
        mend="Call `on_chunk` for each piece of text, in order; add nothing and drop nothing.",
        run=_chunks,
    ),
    Rule(
        id="usage-monotonic",
        title="Usage is what the service counted in the end; counts only grow",
        why="Services report on the way what they will report again; budgets count on the sum.",
        mend="Take the last counts of a stream, neither the first nor their sum; count cached "
        "tokens as part of the input and reasoning tokens as part of the output.",
        run=_monotonic,
    ),
    Rule(
        id="usage-sums-over-turns",
        title="Usage is summed over the turns of the tool loop",
        why="Each turn is paid for.",
        mend="Add up the usage of all turns, or let `ChatProvider` do it.",
        run=_sums,
    ),
    Rule(
        id="usage-absent-when-unknown",
        title="Usage that nobody reported is `None`",
        why="A zero is a count: it makes averages and budgets wrong, silently.",
        mend="Leave `token_usage` at `None` where the service says nothing; invent no zero.",
        run=_unknown,
    ),
    Rule(
        id="cost-agrees",
        title="The cost agrees with the price list; without a price there is none",
        why="Budgets stop runs by it.",
        mend="Use `muster.pricing.cost_of(model, usage, provider=…)`, which knows the prices of "
        "cached tokens; leave `cost_usd` at `None` for a model that has no price.",
        run=_cost,
    ),
)
