"""Children of the stdio protocol for the tests: a few lines of Python each, wrong on purpose."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from muster.capabilities import UNKNOWN
from muster.providers.stdio import StdioProvider
from muster.target import ResolvedTarget

PREAMBLE = """
import json, os, signal, sys, time

def read():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)

def write(line):
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()

def say(**message):
    write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\\n")

def hello(message, **more):
    say(id=message["id"], result={"protocol_version": 1, **more})

def text(message, text):
    say(id=message["id"], result={"text": text})

def question(message):
    return message["params"]["question"]

def serve(answer, **about):
    while True:
        message = read()
        method = message.get("method")
        if method == "initialize":
            hello(message, **about)
        elif method == "shutdown":
            say(id=message["id"], result={})
            sys.exit(0)
        else:
            answer(message)

def echo(message):
    if message.get("method") == "invoke":
        text(message, question(message))
"""


class Children:
    """Makes providers of children in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[StdioProvider] = []

    def __call__(self, script: str = "serve(echo)", **settings) -> StdioProvider:
        path = self.folder / f"child{len(self.made)}.py"
        path.write_text(PREAMBLE + textwrap.dedent(script), encoding="utf-8")
        return self.command([sys.executable, str(path)], **settings)

    def command(self, command, capabilities=UNKNOWN, **settings) -> StdioProvider:
        target = ResolvedTarget(
            name="agent",
            provider="stdio",
            config={"command": command, **settings},
            base_dir=self.folder,
            capabilities=capabilities,
        )
        self.made.append(StdioProvider(target))
        return self.made[-1]
