"""A child for Muster's `provider: stdio`, with nothing but Python's standard library.

Copy this file beside your own program:

    from muster_stdio import serve

    async def answer(call):
        return {"text": call.question.upper(), "token_usage": {"input": 3, "output": 3}}

    serve(answer)

`answer` returns text, or a mapping with the fields of the protocol's answer. It may be an ordinary
function: then each call has a thread, and a cancelled one can see so (`call.cancelled`). Whatever
the program prints goes to standard error.
"""

import asyncio
import inspect
import json
import os
import sys
import threading
import traceback

PROTOCOL_VERSION = 1
CANCELLED = -32800

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class ProviderError(Exception):
    """Say how a call has failed: `ProviderError("slow down", "rate_limited", retry_after=2)`.

    Kinds: rate_limited, quota_exhausted, provider_unavailable, timeout, bad_request,
    authentication_failed, bad_output, provider_failed, limit_exceeded, budget_exceeded. `more` may
    be retryable, retry_after, status, token_usage, cost_usd.
    """

    def __init__(self, message, kind="provider_failed", **more):
        super().__init__(message)
        self.data = {"kind": kind, **more}


class Call:
    """One question. All params of `invoke` are in `params`, the target's settings in `settings`."""

    def __init__(self, child, number, params):
        self._child = child
        self._number = number
        self.params = params
        self.question = params["question"]
        self.settings = child.settings
        self.cancelled = False

    def chunk(self, text):
        """Hand on a piece of the answer, if somebody listens."""
        if self.params.get("on_chunk") and not self.cancelled:
            params = {"invoke_id": self._number, "text": text}
            self._child.send({"jsonrpc": "2.0", "method": "chunk", "params": params})

    async def tool(self, name, arguments):
        """What the tool says; `error: …` when it fails."""
        params = {"invoke_id": self._number, "name": name, "arguments": arguments}
        return (await self._child.ask("tool_call", params))["output"]

    def tool_sync(self, name, arguments):
        """The same for an ordinary function."""
        work = self.tool(name, arguments)
        return asyncio.run_coroutine_threadsafe(work, self._child.loop).result()


def serve(answer, *, name=None, version=None, capabilities=None, max_in_flight=None):
    """Answer calls until there is nobody any more."""
    about = {"name": name, "version": version, "max_in_flight": max_in_flight}
    about = {key: value for key, value in about.items() if value is not None}
    about |= {"protocol_version": PROTOCOL_VERSION, "capabilities": capabilities or {}}
    output = os.dup(1)
    os.dup2(2, 1)  # what is printed is no message
    asyncio.run(_Child(answer, about, output).run())


class _Child:
    def __init__(self, answer, about, output):
        self.answer = answer
        self.is_async = inspect.iscoroutinefunction(answer)
        self.about = about
        self.settings = {}
        self._output = output
        self._outbox = []
        self._flush_due = False
        self._rest = b""
        self._calls = {}
        self._asked = {}
        self._last = 0

    async def run(self):
        self.loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self.loop.add_reader(0, self._read)
        await self._over.wait()
        self._flush()
        # Threads that are still at work would keep the process.
        sys.stderr.flush()
        os._exit(0)

    # --- lines ---

    def _read(self):
        data = os.read(0, 1 << 18)
        if not data:
            self.loop.remove_reader(0)
            self._over.set()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError as error:
                self.fail(None, -32700, f"no JSON: {error}")
            else:
                self._take(message)

    def send(self, message):
        """From any thread. What is sent in one turn of the loop leaves in one write."""
        self._outbox.append(_encode(message))
        if not self._flush_due:
            self._flush_due = True
            if threading.current_thread() is threading.main_thread():
                self.loop.call_soon(self._flush)
            else:
                self.loop.call_soon_threadsafe(self._flush)

    def _flush(self):
        self._flush_due = False
        lines, self._outbox = self._outbox, []
        data = memoryview("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        while data:
            data = data[os.write(self._output, data) :]

    def reply(self, number, result):
        self.send({"jsonrpc": "2.0", "id": number, "result": result})

    def fail(self, number, code, message, data=None):
        error = {"code": code, "message": message} | ({"data": data} if data else {})
        self.send({"jsonrpc": "2.0", "id": number, "error": error})

    async def ask(self, method, params):
        self._last = number = self._last + 1
        self._asked[number] = answer = self.loop.create_future()
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        try:
            return await answer
        finally:
            del self._asked[number]

    # --- messages ---

    def _take(self, message):
        method, number = message.get("method"), message.get("id")
        params = message.get("params") or {}
        if method is None:
            self._take_answer(number, message)
        elif method == "invoke":
            call = Call(self, number, params)
            self._calls[number] = call, self.loop.create_task(self._invoke(call, number))
        elif method == "cancel":
            call, task = self._calls.get(params["invoke_id"], (None, None))
            if task is not None:
                call.cancelled = True
                task.cancel()
        elif method == "initialize":
            self.settings = params.get("settings", {})
            self.reply(number, self.about)
        elif method == "ping":
            self.reply(number, {})
        elif method == "shutdown":
            self.reply(number, {})
            self._over.set()
        elif number is not None:
            self.fail(number, -32601, f"unknown method {method}")

    def _take_answer(self, number, message):
        asked = self._asked.get(number)
        if asked is None or asked.done():
            return
        if "error" in message:
            asked.set_exception(ProviderError(message["error"]["message"]))
        else:
            asked.set_result(message["result"])

    async def _invoke(self, call, number):
        try:
            if self.is_async:
                answer = await self.answer(call)
            else:
                answer = await self._on_thread(call)
            self.reply(number, {"text": answer} if isinstance(answer, str) else answer)
        except asyncio.CancelledError:
            self.fail(number, CANCELLED, "cancelled")
        except ProviderError as error:
            self.fail(number, -32000, str(error), error.data)
        except Exception as error:
            traceback.print_exc()
            self.fail(number, -32000, f"{type(error).__name__}: {error}")
        finally:
            del self._calls[number]

    def _on_thread(self, call):
        answer = self.loop.create_future()

        def settle(result, error):
            if not answer.done():
                answer.set_exception(error) if error else answer.set_result(result)

        def work():
            result = error = None
            try:
                result = self.answer(call)
            except Exception as failure:
                error = failure
            self.loop.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=work, daemon=True).start()
        return answer
