"""Agents in the normal form: prompts put together, tools, memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.teams.definition import (
    AgentLimits,
    Capability,
    McpServer,
    Memory,
    PythonTool,
    WebhookTool,
)

AGENT = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: a}
spec:
  model: m
  systemPrompt: Be brief.
"""


def settings(name: str, spec: str) -> str:
    return (
        "---\napiVersion: arkonis.dev/v1alpha1\nkind: ArkSettings\n"
        f"metadata: {{name: {name}}}\nspec: {spec}\n"
    )


def memory(spec: str) -> str:
    return (
        "---\napiVersion: arkonis.dev/v1alpha1\nkind: ArkMemory\n"
        f"metadata: {{name: mem}}\nspec: {spec}\n"
    )


def test_defaults(folder) -> None:
    agent = folder.load(AGENT).agents["a"]
    assert (agent.name, agent.model, agent.provider, agent.target) == ("a", "m", None, None)
    assert agent.system_prompt == "Be brief."
    assert agent.limits == AgentLimits(
        max_tokens_per_call=8000,
        max_turns=50,
        timeout_seconds=120,
        max_concurrent_tasks=5,
        max_daily_tokens=None,
    )
    assert (agent.tools, agent.memory, agent.temperature, agent.env) == ((), None, None, {})
    assert agent.place is not None
    assert agent.place.problem("").line == 5


def test_limits(folder) -> None:
    text = AGENT + "  limits: {maxTokensPerCall: 9, timeoutSeconds: 0.5, maxDailyTokens: 7}\n"
    limits = folder.load(text).agents["a"].limits
    assert limits == AgentLimits(max_tokens_per_call=9, timeout_seconds=0.5, max_daily_tokens=7)
    none = folder.load(AGENT + "  limits: {maxDailyTokens: 0}\n").agents["a"].limits
    assert none.max_daily_tokens is None


def test_a_target_needs_nothing_else(folder) -> None:
    text = AGENT.partition("  model")[0] + "  target: coder\n"
    agent = folder.load(text).agents["a"]
    assert (agent.target, agent.model, agent.system_prompt) == ("coder", None, "")


def test_variables_choose_the_provider(folder) -> None:
    text = AGENT.replace("model: m", "model: '${{ MODEL }}'\n  provider: '${{ P:-mock }}'")
    agent = folder.load(text, env={"MODEL": "big"}).agents["a"]
    assert (agent.model, agent.provider) == ("big", "mock")
    assert folder.problems(text) == [
        "t.yaml:5:10: spec.model: the environment variable MODEL is not set"
    ]


# --- settings -----------------------------------------------------------------------------------

OLD = settings(
    "old",
    '{temperature: "0.2", outputFormat: plain, '
    'promptFragments: {persona: "You are a clerk.\\n", outputRules: "No lists."}}',
)
NEW = settings(
    "new",
    "{temperature: 0.9, fragments: [{name: c, position: append, text: Last.}, "
    "{name: a, text: First.}, {name: b, position: prepend, text: Second.}]}",
)


@pytest.mark.parametrize("ref", ["{name: old}", "old"])
def test_the_older_fragments(folder, ref: str) -> None:
    agent = folder.load(f"{AGENT}  configRef: {ref}\n{OLD}").agents["a"]
    assert agent.system_prompt == "You are a clerk.\n\nBe brief.\n\nNo lists."
    assert (agent.temperature, agent.output_format) == (0.2, "plain")


def test_several_settings_in_order(folder) -> None:
    refs = "  configRef: old\n  settingsRefs: [{name: new}]\n"
    agent = folder.load(AGENT + refs + OLD + NEW).agents["a"]
    assert agent.system_prompt == (
        "You are a clerk.\n\nFirst.\n\nSecond.\n\nBe brief.\n\nNo lists.\n\nLast."
    )
    assert (agent.temperature, agent.output_format) == (0.9, "plain")
    own = folder.load(AGENT + "  temperature: 0.5\n" + refs + OLD + NEW).agents["a"]
    assert own.temperature == 0.5


def test_settings_that_are_not_there(folder) -> None:
    text = AGENT + "  configRef: {name: odl}\n  settingsRefs: [nwe, other]\n"
    assert folder.problems(text + OLD) == [
        't.yaml:7:21: spec.configRef.name: ArkSettings "odl" not found (did you mean "old"?)',
        't.yaml:8:18: spec.settingsRefs[0]: ArkSettings "nwe" not found (known: old)',
        't.yaml:8:23: spec.settingsRefs[1]: ArkSettings "other" not found (known: old)',
    ]


def test_what_is_wrong_with_settings_is_told_alone(folder) -> None:
    text = AGENT + "  configRef: old\n" + OLD.replace("persona", "person")
    (told,) = folder.problems(text)
    assert 'unknown field "person" (did you mean "persona"?)' in told


# --- memory -------------------------------------------------------------------------------------

KEYS = (
    "---\napiVersion: v1\nkind: Secret\nmetadata: {name: k}\n"
    "stringData: {REDIS_URL: 'redis://h', VECTOR_STORE_API_KEY: key, mine: other}\n"
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{backend: in-context}", Memory(backend="in-context")),
        (
            "{backend: redis, redis: {secretRef: {name: k}}}",
            Memory(backend="redis", url="redis://h", ttl_seconds=3600),
        ),
        (
            "{backend: redis, redis: {url: 'redis://${{ HOST }}', ttlSeconds: 0, maxEntries: 5}}",
            Memory(backend="redis", url="redis://box", max_entries=5),
        ),
        (
            "{backend: vector-store, vectorStore: {provider: qdrant, endpoint: 'http://q', "
            "secretRef: {name: k}, ttlSeconds: 9}}",
            Memory(
                backend="vector-store",
                provider="qdrant",
                url="http://q",
                api_key="key",
                ttl_seconds=9,
            ),
        ),
        (
            "{backend: vector-store, vectorStore: {provider: weaviate, endpoint: 'http://w', "
            "secretRef: {name: k, key: mine}, collection: c}}",
            Memory(
                backend="vector-store",
                provider="weaviate",
                url="http://w",
                api_key="other",
                collection="c",
            ),
        ),
        ("{backend: sqlite}", Memory(backend="sqlite")),
    ],
)
def test_memories(folder, spec: str, expected: Memory) -> None:
    text = AGENT + "  memoryRef: {name: mem}\n" + memory(spec) + KEYS
    bundle = folder.load(text, env={"HOST": "box"})
    assert bundle.agents["a"].memory == expected
    assert bundle.memories == {"mem": expected}


def test_a_memory_in_a_file(folder) -> None:
    text = AGENT + "  memoryRef: {name: mem}\n"
    found = folder.load(text + memory("{backend: sqlite, sqlite: {path: data/m.db}}"))
    assert found.memories["mem"].path == folder.path / "data" / "m.db"
    outside = memory("{backend: sqlite, sqlite: {path: /etc/m.db}}")
    assert folder.problems(text + outside) == [
        't.yaml:12:40: spec.sqlite.path: "/etc/m.db" is outside the project, .'
    ]


def test_a_memory_that_is_not_there(folder) -> None:
    assert folder.problems(AGENT + "  memoryRef: {name: mem}\n") == [
        't.yaml:7:21: spec.memoryRef.name: ArkMemory "mem" not found'
    ]


# --- tools --------------------------------------------------------------------------------------


def test_tools_of_all_kinds(folder) -> None:
    text = AGENT + (
        """\
  builtinTools: [submit_subtask]
  pythonTools: [tools:add, {path: "tools:Box.open", name: open_box, timeoutSeconds: 2}]
  tools:
  - {name: ask, url: "https://h/{{ .input.x }}", description: Asks., method: GET, timeoutSeconds: 3,
     maxBytes: 9, allowHosts: [localhost], headers: {X: y},
     inputSchema: '{"type": "object", "required": ["q"]}'}
  - {name: bare, url: "http://h"}
  - {name: sum, python: "tools:total", description: Adds.}
  mcpServers:
  - {name: web, url: "https://h/sse", transport: sse, allow: [a, b*], timeoutSeconds: 5,
     guidance: Ask first.}
  - {name: files, command: "uvx 'my server'", args: [--root, .], env: {A: b}, cwd: sub}
  - {name: git, command: [git-mcp], env: [{name: C, value: d}]}
"""
    )
    (folder.path / "sub").mkdir()
    agent = folder.load(text).agents["a"]
    assert agent.builtin_tools == ("submit_subtask",)
    assert agent.tools == (
        McpServer(
            name="web",
            url="https://h/sse",
            transport="sse",
            allow=("a", "b*"),
            timeout_seconds=5,
            guidance="Ask first.",
        ),
        McpServer(
            name="files",
            command=("uvx", "my server", "--root", "."),
            env={"A": "b"},
            cwd=folder.path / "sub",
        ),
        McpServer(name="git", command=("git-mcp",), env={"C": "d"}, cwd=folder.path),
        WebhookTool(
            name="ask",
            url="https://h/{{ .input.x }}",
            description="Asks.",
            method="GET",
            parameters={"type": "object", "required": ["q"]},
            headers={"X": "y"},
            timeout_seconds=3,
            max_bytes=9,
            allow_hosts=("localhost",),
        ),
        WebhookTool(name="bare", url="http://h", parameters={"type": "object", "properties": {}}),
        PythonTool(
            path="tools:total",
            name="sum",
            description="Adds.",
            search=folder.path,
        ),
        PythonTool(path="tools:add", search=folder.path),
        PythonTool(path="tools:Box.open", name="open_box", search=folder.path, timeout_seconds=2),
    )


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (
            "tools: [{name: t, url: 'http://h', inputSchema: '{'}]",
            "spec.tools[0].inputSchema: not JSON: Expecting property name enclosed in double "
            "quotes: line 1 column 2 (char 1)",
        ),
        (
            "tools: [{name: t, url: 'http://h', inputSchema: '[]'}]",
            "spec.tools[0].inputSchema: expected a JSON Schema, which is an object",
        ),
        (
            "tools: [{name: t, url: 'http://h', inputSchema: {properties: {a: {type: txt}}}}]",
            "spec.tools[0].inputSchema: not a JSON Schema: properties.a.type: 'txt' is not valid "
            "under any of the given schemas",
        ),
        (
            "tools: [{name: t, url: 'ftp://h'}]",
            'spec.tools[0].url: expected a URL (http:// or https://), found "ftp://h"',
        ),
        (
            "tools: [{name: t, url: 'http://{{ .steps.a.output }}'}]",
            "spec.tools[0].url: a URL sees .input only, not .steps.a.output",
        ),
        (
            "tools: [{name: t, url: 'http://h'}, {name: t, python: 'a:b'}]",
            'spec.tools[1].name: there are two tools called "t"',
        ),
        (
            "pythonTools: ['a:t', 'b:t']",
            'spec.pythonTools[1]: there are two tools called "t"',
        ),
        (
            "pythonTools: [{path: no_colon}]",
            'spec.pythonTools[0].path: "no_colon" is not of the form package.module:function',
        ),
        (
            "mcpServers: [{name: s, url: 'http://h'}, {name: s, command: c}]",
            'spec.mcpServers[1].name: there are two MCP servers called "s"',
        ),
        (
            'mcpServers: [{name: s, command: "a \'b"}]',
            "spec.mcpServers[0].command: cannot be split into words: No closing quotation",
        ),
        (
            "mcpServers: [{name: s, command: a, cwd: nowhere}]",
            'spec.mcpServers[0].cwd: no such folder: "nowhere" (looked for nowhere)',
        ),
        (
            "mcpServers: [{name: s, command: a, cwd: ..}]",
            'spec.mcpServers[0].cwd: ".." is outside the project, .',
        ),
    ],
)
def test_what_is_wrong_with_tools(folder, tools: str, message: str) -> None:
    (told,) = folder.problems(f"{AGENT}  {tools}\n")
    assert told.startswith("t.yaml:7:")
    assert told.split(" ", 1)[1] == message


def test_servers_that_only_a_gateway_has(folder) -> None:
    bundle = folder.load(AGENT + "  mcpServers: [{name: s, arkAgentRef: {name: other}}]\n")
    assert bundle.agents["a"].tools == ()
    assert bundle.warnings == [
        't.yaml:7:39: spec.mcpServers[0].arkAgentRef: MCP server "s" is left out: '
        "it needs the gateway of a cluster"
    ]


def test_safe_mode_runs_nothing(folder) -> None:
    text = AGENT + "  mcpServers: [{name: s, command: c}]\n  pythonTools: ['a:b']\n"
    assert folder.problems(text, safe=True) == [
        "t.yaml:7:35: spec.mcpServers[0].command: commands are not run in safe mode",
        "t.yaml:8:17: spec.pythonTools[0]: Python functions are not run in safe mode",
    ]
    assert len(folder.load(text).agents["a"].tools) == 2


def test_capabilities(folder) -> None:
    text = AGENT + (
        "  capabilities:\n  - {id: c, description: d, tags: [t], exposeMCP: true,\n"
        '     inputSchema: \'{"type": "object"}\', outputSchema: {type: string}}\n'
    )
    assert folder.load(text).agents["a"].capabilities == (
        Capability(
            id="c",
            description="d",
            tags=("t",),
            input_schema={"type": "object"},
            output_schema={"type": "string"},
        ),
    )
    twice = AGENT + "  capabilities: [{id: c}, {id: c}]\n"
    assert folder.problems(twice) == [
        't.yaml:7:32: spec.capabilities[1].id: capability "c" is given twice'
    ]


def test_notices_must_be_there(folder) -> None:
    assert folder.problems(AGENT + "  notifyRef: {name: n}\n") == [
        't.yaml:7:21: spec.notifyRef.name: ArkNotify "n" not found'
    ]


def test_paths_start_where_the_manifest_is(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder.path)
    folder.write("deep/a.yaml", AGENT + "  pythonTools: ['a:b']\n")
    (tool,) = folder.load_path(Path("deep/a.yaml")).agents["a"].tools
    assert tool.search == folder.path / "deep"
