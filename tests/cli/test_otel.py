"""`muster eval --otel`: spans in a file, and at a collector on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from muster_project import Project

TARGETS = """
targets:
  - name: calc
    provider: mock
    model: tiny
    max_retries: 1
    retry_initial_delay_ms: 1
    replies:
      - {contains: shaky, attempt: 0, error: {kind: provider_unavailable, message: private words}}
      - {contains: shaky, text: a secret answer, usage: {input: 3, output: 2}, cost_usd: 0.5}
      - {contains: refused, error: {kind: bad_request, message: private words}}
  - name: agent
    provider: cli
    command: >-
      printf '%s' '{"output": [{"role": "assistant", "content": "done", "tool_calls": [
      {"tool": "Bash", "id": "c1", "input": {"cmd": "private words"}, "status": "error",
      "start_time": "2026-01-01T00:00:01+00:00", "end_time": "2026-01-01T00:00:03+00:00"},
      {"tool": "Read", "input": {}}]}]}'
"""

SUITE = """
name: sums
target: calc
tests:
  - {id: shaky, input: A shaky question, assert: [{type: contains, value: answer}]}
  - {id: refused, input: To be refused, assert: [{type: contains, value: answer}]}
"""


def plain(value: dict[str, Any]) -> Any:
    ((kind, held),) = value.items()
    if kind == "arrayValue":
        return [plain(item) for item in held["values"]]
    return int(held) if kind == "intValue" else held


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: plain(pair["value"]) for pair in span["attributes"]}


def spans_in(text: str) -> list[dict[str, Any]]:
    return [
        span
        for line in text.splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


@pytest.fixture
def sums(project: Project) -> Project:
    project.write("targets.yaml", TARGETS)
    project.write("sums.eval.yaml", SUITE)
    return project


def traced(project: Project, *arguments: str, where: str = "spans.jsonl") -> str:
    ended = project.eval(
        "sums.eval.yaml", "--otel", where, "--no-gate", "--allow-errors", "1", *arguments
    )
    assert ended.code == 0, ended.text
    path = project.root / "spans.jsonl"
    return path.read_text() if path.exists() else ended.err


def test_a_case_is_a_trace(sums: Project) -> None:
    spans = spans_in(traced(sums))
    shaky = [span for span in spans if attributes(span).get("muster.test_id") == "shaky"]
    trace = shaky[0]["traceId"]
    chats = [span for span in spans if span["traceId"] == trace and span["name"] == "chat tiny"]
    (root,) = (span for span in shaky if span["name"] == "eval sums")
    (asked,) = (span for span in shaky if span["name"] == "invoke_agent calc")
    assert "parentSpanId" not in root
    assert asked["parentSpanId"] == root["spanId"]
    assert [span["parentSpanId"] for span in chats] == [asked["spanId"]] * 2
    assert [span["status"] for span in chats] == [{"code": 2}, {}]
    assert attributes(chats[0])["error.type"] == "provider_unavailable"
    found = attributes(asked)
    assert found["gen_ai.operation.name"] == "invoke_agent"
    assert found["gen_ai.usage.input_tokens"] == 3
    assert found["gen_ai.usage.output_tokens"] == 2
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert found["muster.cost_usd"] == 0.5
    assert int(root["startTimeUnixNano"]) <= int(root["endTimeUnixNano"])
    (event,) = root["events"]
    assert event["name"] == "gen_ai.evaluation.result"
    assert attributes(event) == {
        "gen_ai.evaluation.name": "contains-answer",
        "gen_ai.evaluation.score.value": 1.0,
        "gen_ai.evaluation.score.label": "pass",
    }
    (failed,) = (s for s in spans if s["name"] == "eval sums" and s["status"])
    assert attributes(failed)["error.type"] == "bad_request"
    assert len({span["traceId"] for span in spans}) == 2


def test_content_only_when_asked_for(sums: Project) -> None:
    text = traced(sums)
    for said in ("shaky question", "secret answer", "private words"):
        assert said not in text
    (sums.root / "spans.jsonl").unlink()
    ended = sums.eval(
        "sums.eval.yaml", "--otel", "spans.jsonl", "--otel-content", "--no-gate",
        "--allow-errors", "1", "-o", "again", env={"MY_API_KEY": "a secret answer"},
    )  # fmt: skip
    assert ended.code == 0, ended.text
    text = (sums.root / "spans.jsonl").read_text()
    assert "A shaky question" in text
    assert "secret answer" not in text
    (asked, *_) = (
        attributes(span)
        for span in spans_in(text)
        if span["name"] == "invoke_agent calc" and not span["status"]
    )
    assert json.loads(asked["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "A shaky question"}]}
    ]


def test_output_messages_say_why_they_ended(sums: Project) -> None:
    said = [{"role": "assistant", "tool_calls": [{"tool": "Read"}]}, {"role": "assistant"}]
    sums.write("said.json", json.dumps({"output": said, "finish_reason": "length"}))
    sums.write("targets.yaml", "targets: [{name: agent, provider: cli, command: cat said.json}]")
    text = traced(sums, "--otel-content", "--target", "agent", "--test-id", "shaky")
    (asked,) = (span for span in spans_in(text) if span["name"] == "invoke_agent agent")
    said = json.loads(attributes(asked)["gen_ai.output.messages"])
    assert [row["finish_reason"] for row in said] == ["tool_call", "length"]


def test_tool_calls_of_an_agent(sums: Project) -> None:
    text = traced(sums, "--target", "agent", "--test-id", "shaky")
    tools = {s["name"]: s for s in spans_in(text) if s["name"].startswith("execute_tool")}
    (asked,) = (span for span in spans_in(text) if span["name"] == "invoke_agent agent")
    bash, read = tools["execute_tool Bash"], tools["execute_tool Read"]
    assert bash["parentSpanId"] == read["parentSpanId"] == asked["spanId"]
    assert int(bash["endTimeUnixNano"]) - int(bash["startTimeUnixNano"]) == 2_000_000_000
    assert attributes(bash)["error.type"] == "error"
    assert attributes(bash)["muster.times_known"] is True
    assert attributes(read)["muster.times_known"] is False
    assert read["endTimeUnixNano"] == asked["endTimeUnixNano"]
    assert "private words" not in text
    assert not [span for span in spans_in(text) if span["name"].startswith("chat")]


@contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    got: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got.append((self.path, headers, body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_collector_named_by_the_environment(sums: Project) -> None:
    with collector() as (url, got):
        ended = sums.eval(
            "sums.eval.yaml", "--otel", "--no-gate", "--allow-errors", "1",
            env={
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "OTEL_EXPORTER_OTLP_HEADERS": "x-team=bees%20one",
                "OTEL_SERVICE_NAME": "hive",
            },
        )  # fmt: skip
    assert ended.code == 0, ended.text
    assert {path for path, _, _ in got} == {"/v1/traces"}
    assert {headers["x-team"] for _, headers, _ in got} == {"bees one"}
    text = "\n".join(body.decode() for _, _, body in got)
    assert len(spans_in(text)) == 7
    resource = json.loads(got[0][2])["resourceSpans"][0]["resource"]
    assert attributes(resource)["service.name"] == "hive"
    assert attributes(resource)["muster.run_id"] == "run"


def test_a_collector_that_refuses_costs_spans_and_no_results(sums: Project) -> None:
    with collector(503) as (url, _):
        told = traced(sums, where=url)
    assert "7 spans were lost: the collector answered 503" in told
    assert len(sums.rows()) == 2


def test_no_spans_are_appended_to_a_suite(sums: Project) -> None:
    before = (sums.root / "sums.eval.yaml").read_bytes()
    ended = sums.eval("sums.eval.yaml", "--otel", "sums.eval.yaml")
    assert ended.code == 2
    assert "holds no spans" in ended.err
    assert (sums.root / "sums.eval.yaml").read_bytes() == before
