import asyncio

import pytest
from aiohttp import web

from muster.provider import ProviderRequest, ProviderUnavailable
from muster.providers.cli import CliProvider
from muster.target import ResolvedTarget, Secret

ASK = ProviderRequest(question="hello")


@pytest.fixture
def make(tmp_path):
    def make(**healthcheck) -> CliProvider:
        config = {"command": "cat {PROMPT_FILE}", "healthcheck": healthcheck}
        return CliProvider(
            ResolvedTarget(name="agent", provider="cli", config=config, base_dir=tmp_path)
        )

    return make


@pytest.fixture
async def server():
    """Answers `/ok`, `/broken` and, never, `/slow`; counts what it is asked."""
    asked: list[str] = []
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/slow":
            await over.wait()
        return web.Response(status=503 if request.path == "/broken" else 200)

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}", asked
    over.set()
    await runner.cleanup()


async def ask_three(provider: CliProvider) -> list[object]:
    return await asyncio.gather(*(provider.invoke(ASK) for _ in range(3)), return_exceptions=True)


async def test_a_command_runs_once(make, tmp_path):
    log = tmp_path / "log"
    provider = make(command=f"echo asked >> {log}")
    answers = await ask_three(provider)
    answers += await ask_three(provider)
    assert [answer.text for answer in answers] == ["hello"] * 6
    assert log.read_text() == "asked\n"


async def test_a_command_that_fails(make, tmp_path):
    log = tmp_path / "log"
    provider = make(command=["sh", "-c", f"echo asked >> {log}; echo no database >&2; exit 2"])
    answers = await ask_three(provider)
    assert all(type(answer) is ProviderUnavailable for answer in answers)
    assert len({id(answer) for answer in answers}) == 3
    assert not answers[0].retryable
    assert str(answers[0]).startswith('healthcheck of target "agent" failed: `sh -c ')
    assert str(answers[0]).endswith("exited with code 2: no database")
    assert log.read_text() == "asked\n"


async def test_a_command_that_hangs_or_cannot_start(make):
    with pytest.raises(ProviderUnavailable, match=r"`sleep 60` did not end within 0\.2 s"):
        await make(command="sleep 60", timeout_seconds=0.2).invoke(ASK)
    with pytest.raises(ProviderUnavailable, match=r"cannot be started: .*No such file"):
        await make(command="no-such-command-here").invoke(ASK)


async def test_secrets_are_masked(make):
    provider = make(command=["sh", "-c", "echo got $0 >&2; exit 1", Secret("s3cret-value")])
    with pytest.raises(ProviderUnavailable, match=r"got \*{10}$") as caught:
        await provider.invoke(ASK)
    assert "s3cret-value" not in str(caught.value)


async def test_where_the_command_runs(make, tmp_path):
    (tmp_path / "sub").mkdir()
    await make(command=f'[ "$PWD" = {tmp_path} ]').invoke(ASK)
    await make(command=f'[ "$PWD" = {tmp_path}/sub ]', cwd="sub").invoke(ASK)


async def test_a_url(make, server):
    url, asked = server
    provider = make(url=f"{url}/ok")
    assert [answer.text for answer in await ask_three(provider)] == ["hello"] * 3
    assert asked == ["/ok"]
    with pytest.raises(ProviderUnavailable, match="/broken answered with status 503"):
        await make(url=f"{url}/broken").invoke(ASK)
    with pytest.raises(ProviderUnavailable, match=r"/slow did not answer within 0\.2 s"):
        await make(url=f"{url}/slow", timeout_seconds=0.2).invoke(ASK)
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        await make(url="http://127.0.0.1:1/").invoke(ASK)


async def test_a_cancelled_caller_does_not_answer_for_the_others(make, tmp_path):
    started = tmp_path / "started"
    provider = make(command=f"echo >> {started}; sleep 0.3")
    first = asyncio.create_task(provider.invoke(ASK))
    second = asyncio.create_task(provider.invoke(ASK))
    while not started.exists():
        await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).text == "hello"
    assert first.cancelled()
    assert started.read_text() == "\n\n"


def test_a_second_event_loop(make):
    provider = make(command="sleep 0.05")
    for _ in range(2):
        assert asyncio.run(ask_three(provider))[2].text == "hello"
