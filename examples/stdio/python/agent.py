"""The reference child in Python. All the children of this example answer alike.

wait N           answers after N seconds, unless it is cancelled
weather CITY     asks the tool get_weather
busy             fails: it says that it may be asked again after 0.01 s
anything else    is said aloud, word by word
"""

import asyncio

from muster_stdio import ProviderError, serve


async def answer(call):
    word, _, rest = call.question.partition(" ")
    if word == "wait":
        await asyncio.sleep(float(rest))
        return "waited"
    if word == "busy":
        raise ProviderError("too busy", "rate_limited", retry_after=0.01)
    if word == "weather":
        text = f"{rest}: {await call.tool('get_weather', {'city': rest})}"
    else:
        text = call.question.upper() + call.settings.get("mark", "")
    words = text.split(" ")
    for number, piece in enumerate(words):
        call.chunk(piece if number == 0 else f" {piece}")
    usage = {"input": len(call.question.split()), "output": len(words)}
    return {"text": text, "token_usage": usage}


serve(answer, name="agent.py", capabilities={"streaming": True, "tools": True})
