"""What ConfigMaps, Secrets, files and variables give, and what is said when they are not there."""

from __future__ import annotations

import base64

import pytest

from muster.target import Secret

AGENT = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: a}
spec:
  model: m
"""
CONFIG_MAP = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: prompts}
data:
  system.txt: |
    You are calm.
"""
SECRET = """\
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
type: Opaque
data: {token: aHVzaC1odXNo}
stringData: {other: whisper}
"""
FROM_MAP = "  systemPromptRef: {configMapKeyRef: {name: prompts, key: system.txt}}\n"
FROM_SECRET = "  systemPromptRef: {secretKeyRef: {name: keys, key: token}}\n"
FROM_FILE = "  systemPromptRef: {fileRef: {path: prompts/a.md}}\n"


def prompt(bundle) -> str:
    return bundle.agents["a"].system_prompt


# --- in the manifests ---------------------------------------------------------------------------


def test_a_config_map_beside_it(folder) -> None:
    assert prompt(folder.load(AGENT + FROM_MAP + CONFIG_MAP)) == "You are calm.\n"


def test_a_secret_beside_it(folder) -> None:
    bundle = folder.load(AGENT + FROM_SECRET + SECRET)
    assert prompt(bundle) == "hush-hush"
    assert bundle.secrets == {"hush-hush"}


def test_plain_text_of_a_secret_wins(folder) -> None:
    secret = SECRET.replace("other:", "token:")
    assert prompt(folder.load(AGENT + FROM_SECRET + secret)) == "whisper"


def test_a_document_of_another_file_of_the_folder(folder) -> None:
    folder.write("d/agent.yaml", AGENT + FROM_MAP)
    folder.write("d/maps.yaml", CONFIG_MAP)
    assert prompt(folder.load_path(folder.path / "d")) == "You are calm.\n"


def test_a_file(folder) -> None:
    folder.write("prompts/a.md", "You are terse.\n")
    assert prompt(folder.load(AGENT + FROM_FILE)) == "You are terse.\n"


def test_a_reference_wins_over_the_prompt(folder) -> None:
    bundle = folder.load(AGENT + "  systemPrompt: no\n" + FROM_MAP + CONFIG_MAP)
    assert prompt(bundle) == "You are calm.\n"
    assert bundle.warnings == [
        "t.yaml:7:20: spec.systemPromptRef: systemPrompt is given too; systemPromptRef wins"
    ]


def test_an_optional_reference_that_leads_nowhere(folder) -> None:
    optional = FROM_MAP.replace("system.txt", "system.txt, optional: true")
    assert prompt(folder.load(AGENT + "  systemPrompt: mine\n" + optional)) == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            AGENT + FROM_MAP,
            't.yaml:6:45: spec.systemPromptRef.configMapKeyRef.name: ConfigMap "prompts" not found '
            "(looked in t.yaml; give a folder that has it with --values)",
        ),
        (
            AGENT + FROM_MAP + CONFIG_MAP.replace("name: prompts", "name: prompt"),
            't.yaml:6:45: spec.systemPromptRef.configMapKeyRef.name: ConfigMap "prompts" not found '
            '(did you mean "prompt"?) '
            "(looked in t.yaml; give a folder that has it with --values)",
        ),
        (
            AGENT + FROM_MAP + CONFIG_MAP.replace("system.txt", "user"),
            't.yaml:6:59: spec.systemPromptRef.configMapKeyRef.key: key "system.txt" not found in '
            'ConfigMap "prompts" (it has: user)',
        ),
        (
            AGENT + FROM_SECRET,
            't.yaml:6:42: spec.systemPromptRef.secretKeyRef.name: Secret "keys" not found '
            "(looked in t.yaml; give a folder that has it with --values)",
        ),
        (
            AGENT + FROM_SECRET + SECRET.replace("aHVzaC1odXNo", "no base64"),
            "t.yaml:12:15: data.token: not text in base64 (put plain text in stringData)",
        ),
        (
            AGENT + "  systemPrompt: p\n" + SECRET.replace("whisper", "5"),
            "t.yaml:13:21: stringData.other: expected string, found 5",
        ),
        (
            AGENT + FROM_FILE,
            "t.yaml:6:37: spec.systemPromptRef.fileRef.path: no such file: "
            '"prompts/a.md" (looked for prompts/a.md)',
        ),
        (
            AGENT + FROM_FILE.replace("prompts", ".."),
            't.yaml:6:37: spec.systemPromptRef.fileRef.path: "../a.md" is outside the project, .',
        ),
    ],
)
def test_references_that_lead_nowhere(folder, text: str, message: str) -> None:
    assert message in folder.problems(text)


# --- in a folder of values ----------------------------------------------------------------------


def test_documents_of_values(folder) -> None:
    folder.write("v/all.yaml", CONFIG_MAP + SECRET + "---\nkind: Other\n---\n- 1\n")
    assert prompt(folder.load(AGENT + FROM_MAP, values="v")) == "You are calm.\n"
    assert prompt(folder.load(AGENT + FROM_SECRET, values="v")) == "hush-hush"


def test_files_of_values(folder) -> None:
    folder.write("v/prompts/system.txt", "one\n")
    folder.write("v/keys/token", "two\n")
    folder.write("v/keys/..data/token", "a mounted volume's inside")
    folder.write("v/.hidden", "no")
    assert prompt(folder.load(AGENT + FROM_MAP, values="v")) == "one\n"
    assert prompt(folder.load(AGENT + FROM_SECRET, values="v")) == "two"


def test_variables_of_values(folder) -> None:
    folder.write("v/keys.env", "# comment\ntoken='with a # sign'\n")
    assert prompt(folder.load(AGENT + FROM_SECRET, values="v")) == "with a # sign"


def test_values_win_over_the_manifests(folder) -> None:
    folder.write("v/prompts/system.txt", "mine")
    assert prompt(folder.load(AGENT + FROM_MAP + CONFIG_MAP, values="v")) == "mine"


def test_what_is_wrong_with_values(folder) -> None:
    folder.write("v/a.env", "fine=1\nno equals\n")
    folder.write("v/b.yaml", "a: [")
    folder.write("v/k/x", b"\xff")
    text = AGENT + FROM_SECRET
    assert folder.problems(text, values="v") == [
        't.yaml:6:42: spec.systemPromptRef.secretKeyRef.name: Secret "keys" not found '
        "(looked in v, t.yaml)",
        "v/a.env:2: not of the form NAME=value",
        "v/b.yaml:2:1: not valid YAML: did not find expected node content "
        "(while parsing a flow node)",
        "v/k/x:1: not UTF-8 text",
    ]
    assert "nowhere: not a folder (--values takes one)" in folder.problems(text, values="nowhere")


# --- variables of providers ---------------------------------------------------------------------

ENV = "  systemPrompt: p\n  envFrom: [{secretRef: {name: keys}, prefix: MY_}]\n"


def test_variables_of_an_agent(folder) -> None:
    env = folder.load(AGENT + ENV + SECRET).agents["a"].env
    assert env == {"MY_token": "hush-hush", "MY_other": "whisper"}
    assert all(isinstance(value, Secret) for value in env.values())


def test_later_variables_win(folder) -> None:
    text = AGENT + (
        "  systemPrompt: p\n"
        "  envFrom: [{secretRef: {name: keys}}, {configMapRef: {name: prompts}}]\n"
    )
    config_map = CONFIG_MAP.replace("system.txt", "token")
    assert folder.load(text + SECRET + config_map).agents["a"].env == {
        "token": "You are calm.\n",
        "other": "whisper",
    }


def test_variables_that_are_not_there_are_told_once(folder) -> None:
    second = AGENT.replace("name: a", "name: b")
    bundle = folder.load(f"{AGENT}{ENV}---\n{second}{ENV}")
    assert bundle.agents["a"].env == {}
    assert bundle.warnings == [
        't.yaml:7:32: spec.envFrom[0].secretRef.name: Secret "keys" not found (looked in t.yaml; '
        "give a folder that has it with --values); only the environment of this process is used"
    ]
    quiet = ENV.replace("keys", "keys, optional: true")
    assert folder.load(AGENT + quiet).warnings == []


# --- headers ------------------------------------------------------------------------------------

SERVER = "  systemPrompt: p\n  mcpServers:\n  - name: s\n    url: https://h/\n"


@pytest.mark.parametrize(
    "headers",
    [
        "[{name: X-A, value: plain}, {name: X-B, valueFrom: {secretKeyRef: {name: keys, "
        "key: token}}}, {name: X-C, valueFrom: {configMapKeyRef: {name: prompts, key: c}}}]",
        "{X-A: plain, X-B: {secretKeyRef: {name: keys, key: token}}, "
        "X-C: {configMapKeyRef: {name: prompts, key: c}}}",
        "{X-A: {value: plain}, X-B: {valueFrom: {secretKeyRef: {name: keys, key: token}}}, "
        "X-C: {valueFrom: {configMapKeyRef: {name: prompts, key: c}}}}",
    ],
)
def test_headers_in_all_their_forms(folder, headers: str) -> None:
    config_map = CONFIG_MAP.replace("system.txt: |\n    You are calm.", "c: third")
    text = f"{AGENT}{SERVER}    headers: {headers}\n{SECRET}{config_map}"
    (server,) = folder.load(text).agents["a"].tools
    assert dict(server.headers) == {"X-A": "plain", "X-B": "hush-hush", "X-C": "third"}
    assert [type(value) for value in server.headers.values()] == [str, Secret, str]


def test_a_bearer_token(folder) -> None:
    auth = "    auth: {type: bearer, tokenSecretRef: {name: keys}}\n"
    bundle = folder.load(AGENT + SERVER + auth + SECRET)
    (server,) = bundle.agents["a"].tools
    assert dict(server.headers) == {"Authorization": "Bearer hush-hush"}
    assert isinstance(server.headers["Authorization"], Secret)
    assert bundle.secrets == {"hush-hush"}
    twice = auth + "    headers: {authorization: x}\n"
    assert folder.problems(AGENT + SERVER + twice + SECRET) == [
        "t.yaml:10:11: spec.mcpServers[0].auth: headers already have an Authorization"
    ]


def test_a_token_that_is_not_there(folder) -> None:
    auth = "    auth: {tokenSecretRef: {name: keys, key: tokn}}\n"
    assert folder.problems(AGENT + SERVER + auth + SECRET) == [
        't.yaml:10:46: spec.mcpServers[0].auth.tokenSecretRef.key: key "tokn" not found in Secret '
        '"keys" (did you mean "token"?)'
    ]


def test_environment_variables(folder) -> None:
    text = (
        AGENT
        + SERVER.replace("https://h/", "'https://${{ HOST:-h }}/'")
        + ("    headers: {X-Team: '${{ TEAM }}', X-Api-Key: abc-def, X-Other: '${{ MY_TOKEN }}'}\n")
    )
    bundle = folder.load(text, env={"TEAM": "red", "MY_TOKEN": "t-0-k"})
    (server,) = bundle.agents["a"].tools
    assert server.url == "https://h/"
    assert dict(server.headers) == {"X-Team": "red", "X-Api-Key": "abc-def", "X-Other": "t-0-k"}
    assert bundle.secrets == {"abc-def", "t-0-k"}
    assert folder.problems(text, env={"TEAM": "red"}) == [
        "t.yaml:10:67: spec.mcpServers[0].headers.X-Other: the environment variable MY_TOKEN "
        "is not set"
    ]


def test_base64_may_be_folded(folder) -> None:
    value = base64.b64encode(b"x" * 90).decode()
    folded = f"data:\n  token: |\n    {value[:60]}\n    {value[60:]}"
    secret = SECRET.replace("data: {token: aHVzaC1odXNo}", folded)
    assert prompt(folder.load(AGENT + FROM_SECRET + secret)) == "x" * 90
