"""What a test asks: its own input, the suite's, a prompt filled in, a PROMPT.md; and its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs

from muster.config.document import Place, read_text
from muster.evals.case import Case
from muster.evals.suites.layers import SuiteSettings, wanted_prompts
from muster.evals.suites.messages import FileFinder, take_files, to_messages
from muster.evals.suites.prompts import Prompt, select_prompts
from muster.evals.suites.raw_test import RawTest
from muster.provider import Message

__all__ = ("InputMaker",)

PROMPT_FILE = "PROMPT.md"

_NO_INPUT = f"has no `input` (nor `prompts`, `vars.input`, or a {PROMPT_FILE} beside it)"


class InputMaker:
    """Makes the messages and files of the cases of one suite."""

    def __init__(self, settings: SuiteSettings, files: FileFinder) -> None:
        self._settings = settings
        self._files = files

    def cases(self, test: RawTest, base: Case) -> tuple[Case, ...]:
        """`base` with its input, once for each prompt; mistakes are noted in the test."""
        entry, prompts = test.entry, self._settings.prompts
        if entry.input is not None:
            return (self._case(test, base, self._own_input),)
        if not prompts or entry.turns is not None:
            return (self._case(test, base, self._other_input),)
        wanted = wanted_prompts(entry.prompts) or test.layer.prompts
        if wanted is not None:
            place = test.place.at("prompts")
            prompts = test.guarded(select_prompts, prompts, wanted, place) or ()
        several = len(self._settings.prompts) > 1
        return tuple(
            self._case(test, base, self._rendered, prompt, label=prompt.label if several else None)
            for prompt in prompts
        )

    def files(self, test: RawTest) -> tuple[Path, ...]:
        """The files to give along; a PROMPT.md that serves as the prompt is not among them."""
        paths = self._all_files(test)
        if test.entry.input is None and not self._settings.prompts:
            paths = tuple(path for path in paths if path.name != PROMPT_FILE)
        return paths

    def _case(
        self,
        test: RawTest,
        base: Case,
        make: Callable[..., tuple[Message, ...]],
        *args: Any,
        label: str | None = None,
    ) -> Case:
        head: tuple[Message, ...] = test.guarded(self._suite_input, test) or ()
        own: tuple[Message, ...] = test.guarded(make, test, *args) or ()
        if not own and not base.turns and not test.problems:
            own = test.guarded(self._prompt_file, test) or ()
            asked = own or test.problems or any(message.role == "user" for message in head)
            if not asked:
                test.complain(_NO_INPUT)
        messages, files = take_files(head + self._wrapped(test, own))
        return structs.replace(
            base, input=messages, input_files=base.input_files + files, prompt=label
        )

    def _suite_input(self, test: RawTest) -> tuple[Message, ...]:
        """The suite's own input, which comes before the test's."""
        settings = self._settings
        if settings.input is None or test.skip_defaults:
            return ()
        value = test.fill(settings.input, settings.input_place)
        return to_messages(value, settings.input_place, self._files)

    def _own_input(self, test: RawTest) -> tuple[Message, ...]:
        place = test.place.at("input")
        return to_messages(test.fill(test.entry.input, place), place, self._files)

    def _rendered(self, test: RawTest, prompt: Prompt) -> tuple[Message, ...]:
        text = prompt.render(test.vars, test.unknown_at(prompt.place))
        return to_messages(text, prompt.place, self._files)

    def _other_input(self, test: RawTest) -> tuple[Message, ...]:
        """The variables `input` or `prompt`, for data sets whose columns are variables."""
        if test.entry.turns is not None:
            return ()
        for name in ("input", "prompt"):
            value = test.vars.get(name)
            if value is not None and value != "":
                return to_messages(value, test.place.at("vars", name), self._files)
        return ()

    def _prompt_file(self, test: RawTest) -> tuple[Message, ...]:
        """`PROMPT.md`, among the input files or beside the test's file."""
        found = [path for path in self._all_files(test) if path.name == PROMPT_FILE]
        if not found:
            document = test.row.document
            folders = [document.path.parent] if document.path is not None else []
            beside = (folder / PROMPT_FILE for folder in (*folders, self._settings.base_dir))
            found = [self._files.check(path, test.place) for path in beside if path.is_file()]
        if not found:
            return ()
        return (Message("user", str(test.fill(read_text(found[0]), test.place))),)

    def _wrapped(self, test: RawTest, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """With the test's `prefix` and `suffix` around the last message's text."""
        options, layer = test.entry.options, test.layer
        prefix = (options.prefix if options is not None else "") or layer.prefix
        suffix = (options.suffix if options is not None else "") or layer.suffix
        if not messages or not (prefix or suffix) or not isinstance(messages[-1].content, str):
            return messages
        place = test.place.at("options")
        text = f"{test.fill(prefix, place)}{messages[-1].content}{test.fill(suffix, place)}"
        return (*messages[:-1], replace(messages[-1], content=text))

    def _all_files(self, test: RawTest) -> tuple[Path, ...]:
        names: Any = test.entry.input_files
        place = test.place.at("input_files")
        if names is None and not test.skip_defaults:
            names, place = self._settings.input_files, self._settings.input_files_place
        found = []
        for at, name in enumerate(names or ()):
            where: Place = place.at(at)
            path = test.guarded(self._files.find, str(test.fill(name, where)), where)
            if path is not None:
                found.append(path)
        return tuple(dict.fromkeys(found))
