"""Functions named in targets.yaml."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from muster.errors import MusterError
from muster.importing import CodeError
from muster.provider import Provider, ProviderFailed, ProviderRequest
from muster.providers.create import create_provider
from muster.target import ResolvedTarget

CODE = """
from muster.provider import ProviderRequest, ProviderResponse
from muster.target import ResolvedTarget

async def asynchronous(request: ProviderRequest) -> ProviderResponse:
    return ProviderResponse(request.question.upper(), cost_usd=0.25)

def synchronous(question: str) -> str:
    return question.upper()

class Agent:
    def answer(self, request):
        return request.question.upper()

    @staticmethod
    async def fixed(request):
        return "FIXED"

agent = Agent()
answer = 42

def factory(target: ResolvedTarget):
    return synchronous

def also_a_factory(target):
    return synchronous

def fails(question: str) -> str:
    return question[99]
"""

Make = Callable[..., Provider]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    module = f"agents_{uuid.uuid4().hex}"
    (tmp_path / f"{module}.py").write_text(CODE)

    def made(name: str, *, base_dir: Path = tmp_path, safe: bool = False) -> Provider:
        spec = name if ":" in name else f"{module}:{name}"
        return create_provider(
            ResolvedTarget(
                name="mine",
                provider="function",
                config={"function": spec},
                base_dir=base_dir,
                safe=safe,
            )
        )

    return made


@pytest.mark.parametrize("name", ["asynchronous", "synchronous", "agent.answer"])
async def test_functions_beside_the_targets_file(make: Make, name: str) -> None:
    response = await make(name).invoke(ProviderRequest(question="hello"))
    assert response.text == "HELLO"


async def test_a_static_method(make: Make) -> None:
    assert (await make("Agent.fixed").invoke(ProviderRequest(question="x"))).text == "FIXED"


async def test_modules_beside_the_project_folder(make: Make, tmp_path: Path) -> None:
    (tmp_path / ".muster").mkdir()
    provider = make("synchronous", base_dir=tmp_path / ".muster")
    assert (await provider.invoke(ProviderRequest(question="hello"))).text == "HELLO"


async def test_a_failure_names_file_and_line(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ProviderFailed) as failure:
        await make("fails").invoke(ProviderRequest(question="x"))
    assert f"mine: {tmp_path}/agents_" in str(failure.value)
    assert ".py:29: IndexError: string index out of range" in str(failure.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Agent", '"agents_.*:Agent" is a class; .* stands in `provider: agents_.*:Agent`'),
        ("answer", "is not a function: int"),
        ("factory", "takes a target, so it is a factory: write `provider: "),
        ("also_a_factory", "takes a target, so it is a factory: write `provider: "),
        ("sinchronous", r'has no "sinchronous" \(near: synchronous\)'),
        ("no_such_module:f", r'no module "no_such_module" .*looked in '),
        ("a.b:", "is not of the form package.module:name"),
    ],
)
def test_what_function_may_not_name(make: Make, name: str, message: str) -> None:
    with pytest.raises(CodeError, match=message):
        make(name)


def test_safe_refuses_before_anything_is_imported(make: Make, tmp_path: Path) -> None:
    (tmp_path / "dangerous.py").write_text("raise SystemExit('it ran')\n")
    with pytest.raises(MusterError, match='--safe refuses the target "mine": function "dangerous'):
        make("dangerous:f", safe=True)
