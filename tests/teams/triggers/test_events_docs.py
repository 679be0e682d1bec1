"""The manual's page about events: its manifest is served, and its answers are those it gets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from up_parts import Up

from manual import ROOT, blocks_of
from muster.teams.triggers.served import read_events

BLOCKS = blocks_of(ROOT / "docs" / "events.md")
SHOWN: list[dict[str, Any]] = [json.loads(each.text) for each in BLOCKS if each.kind == "json"]


async def test_the_page(tmp_path: Path) -> None:
    line, accepted, answered, _ = SHOWN
    (file,) = (block for block in BLOCKS if block.file == "shop.yaml")
    up = Up(tmp_path, file.text)
    up.options = replace(up.options, launch=replace(up.options.launch, provider="mock"))
    assert set(read_events(up.options).events) == {"orders", "nightly", "failures"}
    async with up:
        token = (tmp_path / ".muster" / "tokens" / "orders").read_text().strip()
        body = {"order": {"id": "17"}}
        status, told = await up.post("orders", body, token=token)
        assert (status, set(told)) == (202, set(accepted))
        started = await up.line("started", event="orders")
        assert set(started) == set(line)
        assert (started["run"], started["text"]) == (told["runs"][0], line["text"])
        status, told = await up.post("orders", body, token=token, query="?mode=sync")
        assert (status, set(told), told["output"]) == (200, set(answered), answered["output"])
