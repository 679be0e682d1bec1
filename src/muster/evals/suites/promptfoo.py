"""promptfoo's configuration (`promptfooconfig.yaml`) read as a suite.

The result is a suite as Muster's own files write it, in the dialect with `prompts`, `providers` and
`vars`. What changes no result is noted; what would change one and has no equal is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muster.config.document import Document, Location, read_yaml
from muster.config.project import find_project
from muster.errors import ConfigError, nearest
from muster.evals.suites.dataset import PROMPTFOO
from muster.evals.suites.moved import MovedDocument
from muster.evals.suites.promptfoo_values import Translator

__all__ = ("PromptfooDocument", "is_promptfoo", "read_promptfoo")

_SAME = ("description", "tags", "metadata")
_OPTIONS = {
    "maxConcurrency": "max_concurrency",
    "repeat": "repeat",
    "timeoutMs": "timeout_ms",
    "cache": "cache",
    "delay": "delay",
}
"""promptfoo's `evaluateOptions` that mean something here; a 0 says the same as nothing."""

_UNUSED_OPTIONS = {
    "generateSuggestions": "",
    "interactiveProviders": "",
    "maxEvalTimeMs": "use --timeout",
    "showProgressBar": "use --quiet",
}
_REFUSED_OPTIONS = {"filterRange": "use --limit or --test-id"}

_SILENT = ("$schema", "assertionTemplates", "commandLineOptions", "env", "targets")
_UNUSED = {
    "author": "",
    "derivedMetrics": "compute them from results.jsonl",
    "outputPath": "say where with --output",
    "sharing": "nothing leaves this machine",
    "tracing": "",
    "writeLatestResults": "every run keeps its results",
}
_REFUSED = {
    "extensions": "Muster runs no hooks yet; prepare what is needed before the run",
    "nunjucksFilters": "Jinja's own filters can be used in prompts",
    "providerPromptMap": "give the tests that need it `prompts`",
    "redteam": "write the attacks as tests",
}
_HANDLED = ("defaultTest", "evaluateOptions", "prompts", "providers", "scenarios", "tests")
_KNOWN = (*_SAME, *_SILENT, *_UNUSED, *_REFUSED, *_HANDLED)

_SCRIPT_PROMPTS = (".js", ".cjs", ".mjs", ".ts", ".py", ".sh", ".bash", ".rb", ".pl")
_PROMPT_FIELDS = ("id", "label", "raw", "path", "prefix", "suffix", "config", "function")

_NO_CHAT = (
    *("agents", "assistant", "chatkit", "codex-sdk", "completion", "embedding", "embeddings"),
    *("image", "moderation", "realtime", "speech", "transcription", "video"),
)
"""What OpenAI and Azure have beside chats and responses."""
_KINDS = {"azureopenai": "azure", "togetherai": "together"}
"""promptfoo's names for providers that Muster calls otherwise."""

_NO_EQUAL = {
    **dict.fromkeys(
        ("python", "javascript", "js", "golang", "ruby", "package"),
        "write an adapter and define it in targets.yaml with `provider: function` or `cli`",
    ),
    **dict.fromkeys(
        ("http", "https", "webhook", "websocket", "ws", "wss"),
        "define it in targets.yaml with `provider: http`",
    ),
}
_SETTINGS = {
    "apiBaseUrl": "base_url",
    "apiHost": "base_url",
    "apiKeyEnvar": "api_key",
    "apiKey": "api_key",
    "apiVersion": "api_version",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "maxTokens": "max_output_tokens",
}
"""A provider's `config` under Muster's names."""


class PromptfooDocument(MovedDocument):
    """A configuration as a suite; places are those of the file."""

    def __init__(
        self, data: Any, origin: Document, moved: Mapping[Location, Location], notes: list[str]
    ) -> None:
        super().__init__(data, origin, moved)
        self.notes = tuple(notes)
        """What the file says and Muster does not use."""


def is_promptfoo(path: Path) -> bool:
    """True for a file that is called as promptfoo's configurations are."""
    return path.suffix in (".yaml", ".yml", ".json") and "promptfooconfig" in path.name


def read_promptfoo(
    path: Path, *, project_root: Path | None = None, allow_outside: bool = False
) -> PromptfooDocument:
    """The configuration at `path` as a suite's raw mapping.

    Files that it names must lie in `project_root`, by default the project that it belongs to,
    unless `allow_outside`.

    Raises:
        ConfigError: it cannot be read, has an unknown key, or says something that would change
            results and that Muster has no equal of.
    """
    document = read_yaml(path)
    root = None if allow_outside else (project_root or find_project(path).root)
    translator = Translator(document, path.parent, root)
    if not isinstance(document.data, dict):
        raise ConfigError(document.problem((), "expected a mapping with prompts and tests"))
    data = _Config(translator, document.data).read()
    if translator.problems:
        raise ConfigError(translator.problems)
    if path.stem == "promptfooconfig":
        data.setdefault("name", path.resolve().parent.name)
    return PromptfooDocument(data, document, translator.moved, translator.notes)


class _Config:
    """The top level of a configuration."""

    def __init__(self, translator: Translator, data: dict[str, Any]) -> None:
        self.at = translator
        self.data = data

    def read(self) -> dict[str, Any]:
        """The suite."""
        self._check_keys()
        made = {key: self.data[key] for key in _SAME if key in self.data}
        # A test of promptfoo's fails with any assertion of it, unless it has a threshold.
        made["threshold"] = 1.0
        made["prompts"] = self._prompts()
        if providers := self._providers():
            made["providers"] = providers
        if "defaultTest" in self.data:
            made["default_test"] = self._default_test()
        if options := self._options():
            made["evaluate_options"] = options
        if "tests" in self.data:
            made["tests"] = self._tests(self.data["tests"], ("tests",))
        if "scenarios" in self.data:
            made["scenarios"] = self._scenarios()
        return made

    def _check_keys(self) -> None:
        for key in self.data:
            if key in _UNUSED:
                self.at.note((key,), _not_used(_UNUSED[key]))
            elif key in _REFUSED:
                text = f'"{key}" is not supported: {_REFUSED[key]}'
                self.at.complain((key,), text, of_key=True)
            elif key not in _KNOWN:
                near = nearest(key, _KNOWN)
                hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(_KNOWN)}"
                self.at.complain((key,), f'unknown field "{key}" ({hint})', of_key=True)

    # --- prompts ----------------------------------------------------------------------------------

    def _prompts(self) -> Any:
        """The templates; files are read where a suite's prompts are."""
        prompts = self.data.get("prompts", "{{prompt}}")
        if isinstance(prompts, dict) and not prompts.keys() & set(_PROMPT_FIELDS):
            # An old form: files, and what their prompts are called.
            for number, name in enumerate(prompts):
                self.at.move(("prompts", name), ("prompts", number))
            prompts = [{"path": name, "label": label} for name, label in prompts.items()]
        if isinstance(prompts, list):
            for number, prompt in enumerate(prompts):
                self._check_prompt(prompt, ("prompts", number))
        else:
            self._check_prompt(prompts, ("prompts",))
        return prompts

    def _check_prompt(self, prompt: Any, old: Location) -> None:
        if isinstance(prompt, dict):
            key = next((key for key in ("raw", "path", "id") if key in prompt), "raw")
            prompt, old = prompt.get(key), (*old, key)
        if isinstance(prompt, str) and _makes_prompts(prompt):
            message = f'cannot make prompts with "{prompt}"; write a template instead'
            self.at.complain(old, message)

    # --- providers --------------------------------------------------------------------------------

    def _providers(self) -> Any:
        key = "targets" if "providers" not in self.data and "targets" in self.data else "providers"
        self.at.move((key,), ("providers",))
        providers = self.data.get(key)
        if not isinstance(providers, list):
            return None if providers is None else [self._provider(providers, (key,), 0)]
        return [
            self._provider(provider, (key, number), number)
            for number, provider in enumerate(providers)
        ]

    def _provider(self, provider: Any, old: Location, number: int) -> Any:
        """A provider under the name that promptfoo knows it by, with the configuration's `env`."""
        provider, old = self.at.resolved(provider, old)
        self.at.move(old, ("providers", number))
        if isinstance(provider, str):
            provider, spec_at = {"id": provider}, old
        elif isinstance(provider, dict) and len(provider) == 1 and "id" not in provider:
            ((spec, inner),) = provider.items()
            old = spec_at = (*old, spec)
            self.at.move(old, ("providers", number))
            provider = {"id": spec, **(inner if isinstance(inner, dict) else {})}
        else:
            spec_at = (*old, "id")
        if not isinstance(provider, dict) or not isinstance(provider.get("id"), str):
            self.at.complain(
                old, "expected a provider: text such as openai:gpt-4o, or {id, config}"
            )
            return provider
        written = provider["id"]
        made = {"label": written, **provider, "id": self._spec(written, spec_at)}
        self.at.move(spec_at, ("providers", number, "id"))
        if isinstance(made.get("config"), dict):
            made["config"] = self._config(
                made["config"], (*old, "config"), ("providers", number, "config")
            )
        if self.data.get("env"):
            made["env"] = self._environment(made.get("env"))
        return written if made == {"label": written, "id": written} else made

    def _spec(self, spec: str, old: Location) -> str:
        """What Muster calls the provider `spec`."""
        kind, _, rest = spec.partition(":")
        kind = _KINDS.get(kind, kind)
        if kind == "exec":
            # promptfoo gives the command its prompt as an argument.
            command = rest.strip().replace("{", "{{").replace("}", "}}")
            return f"exec:{command} {{PROMPT}}"
        if kind in ("file", "") or kind in _NO_EQUAL:
            hint = _NO_EQUAL.get(kind, _NO_EQUAL["python"])
            self.at.complain(old, f'Muster has no equal of "{spec}": {hint}, and name it here')
        elif kind in ("openai", "azure") and rest.split(":")[0] in _NO_CHAT:
            self.at.complain(old, f'"{spec}" is not supported: Muster asks for chats and responses')
        elif kind == "ollama":
            rest = rest.removeprefix("completion:").removeprefix("chat:")
        return f"{kind}:{rest}" if rest else kind

    def _config(self, config: dict[str, Any], old: Location, new: Location) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in config.items():
            name = _SETTINGS.get(key, key)
            made[name] = value
            if key == "apiKeyEnvar":
                made[name] = f"${{{{ {value} }}}}"
            elif key == "apiHost" and "://" not in str(value):
                made[name] = f"https://{value}"
            self.at.move((*old, key), (*new, name))
        return made

    def _environment(self, own: Any) -> dict[str, str]:
        shared = self.data["env"]
        if not isinstance(shared, dict):
            self.at.complain(("env",), "expected a mapping of variables")
            return {}
        merged = {**shared, **(own if isinstance(own, dict) else {})}
        return {name: _variable_text(value) for name, value in merged.items()}

    # --- tests ------------------------------------------------------------------------------------

    def _tests(self, tests: Any, old: Location, new: Location | None = None) -> Any:
        new = old if new is None else new
        if isinstance(tests, str):
            return self._reference(tests)
        if not isinstance(tests, list):
            return tests
        made: list[Any] = []
        for number, entry in enumerate(tests):
            here = (*old, number)
            if isinstance(entry, str):
                self.at.move(here, (*new, len(made)))
                made.append(self._reference(entry))
            elif isinstance(entry, dict) and isinstance(entry.get("path"), str):
                if entry.get("config"):
                    text = "generators take no config; let the function say what it needs"
                    self.at.complain((*here, "config"), text, of_key=True)
                self.at.move((*here, "path"), (*new, len(made)))
                made.append(self._reference(entry["path"]))
            else:
                for test, where in self.at.tests(entry, here):
                    made.append(self.at.test(test, where, (*new, len(made))))
        return made

    def _reference(self, ref: str) -> str:
        return f"{PROMPTFOO}{ref}"

    def _default_test(self) -> Any:
        old: Location = ("defaultTest",)
        test = self.data["defaultTest"]
        if isinstance(test, str):
            test = self.at.data_file(test, old)
        test, old = self.at.resolved(test, old)
        if isinstance(test, dict) and "vars" in test:
            test = {**test, "vars": self.at.variables(test["vars"], (*old, "vars"))}
            for name, value in test["vars"].items() if isinstance(test["vars"], dict) else ():
                if isinstance(value, list):
                    text = "a list here would multiply every test; give it to the tests"
                    self.at.complain((*old, "vars", name), text)
        self.at.by_score = isinstance(test, dict) and "threshold" in test
        return self.at.test(test, old, ("default_test",))

    def _scenarios(self) -> Any:
        scenarios = self.data["scenarios"]
        if not isinstance(scenarios, list):
            return scenarios
        return [
            self._scenario(scenario, ("scenarios", number))
            for number, scenario in enumerate(scenarios)
        ]

    def _scenario(self, scenario: Any, old: Location) -> Any:
        if not isinstance(scenario, dict):
            self.at.complain(old, "expected a mapping with config and tests")
            return scenario
        made = dict(scenario)
        if "tests" in scenario:
            made["tests"] = self._tests(scenario["tests"], (*old, "tests"))
        if isinstance(scenario.get("config"), list):
            tests = self._tests(scenario["config"], (*old, "config"))
            made["config"] = tests
        return made

    # --- options ----------------------------------------------------------------------------------

    def _options(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for block in ("evaluateOptions", "commandLineOptions"):
            options = self.data.get(block)
            if options is None:
                continue
            if not isinstance(options, dict):
                self.at.complain((block,), "expected a mapping")
                continue
            for key, value in options.items():
                self._option(block, key, value, made)
        return made

    def _option(self, block: str, key: str, value: Any, made: dict[str, Any]) -> None:
        old = (block, key)
        known = (*_OPTIONS, *_UNUSED_OPTIONS, *_REFUSED_OPTIONS)
        if key in _OPTIONS:
            name = _OPTIONS[key]
            if value and name not in made:
                made[name] = value
                self.at.move(old, ("evaluate_options", name))
        elif key in _UNUSED_OPTIONS or block == "commandLineOptions":
            self.at.note(old, _not_used(_UNUSED_OPTIONS.get(key, "say it on the command line")))
        elif key in _REFUSED_OPTIONS:
            self.at.complain(old, f'"{key}" is not supported: {_REFUSED_OPTIONS[key]}', of_key=True)
        else:
            near = nearest(key, known)
            hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
            self.at.complain(old, f'unknown field "{key}" ({hint})', of_key=True)


def _not_used(instead: str) -> str:
    return f"is not used: {instead}" if instead else "is not used"


def _makes_prompts(text: str) -> bool:
    """True for what promptfoo would run, or fetch, to get a prompt."""
    if "\n" in text or "{{" in text:
        return False
    name = text.strip()
    if name.startswith("exec:") or re.match(r"(?!file:)[a-z]+://", name):
        return True
    file = name.removeprefix("file://")
    return " " not in file and any(
        file.endswith(suffix) or f"{suffix}:" in file for suffix in _SCRIPT_PROMPTS
    )


def _variable_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
