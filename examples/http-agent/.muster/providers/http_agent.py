"""A custom provider around an HTTP API: `provider: http-agent` in targets.yaml.

The file stands in `.muster/providers/`, so Muster runs it before it reads the targets. It is the
HTTP example of AgentV's manual, "Custom Providers (SDK)", line by line in Python.
"""

import time

import aiohttp

import muster
from muster import ProviderRequest, ProviderResponse, ResolvedTarget


class HttpAgentProvider:
    kind = "cli"
    id: str
    target_name: str

    def __init__(self, target_name: str, *, base_url: str, api_key: str) -> None:
        self.id = f"http-agent:{target_name}"
        self.target_name = target_name
        self.base_url = base_url
        self.api_key = api_key

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        start_time = time.perf_counter()

        # When the request is cancelled, asyncio cancels this call: no signal is passed along.
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self.base_url}/chat",
                headers={
                    "Content-Type": "application/json",
                    "Authorization": f"Bearer {self.api_key}",
                },
                json={
                    "prompt": request.question,
                    "system": request.system_prompt,
                },
            ) as response,
        ):
            if not response.ok:
                raise RuntimeError(f"HTTP {response.status}: {await response.text()}")

            data = await response.json()
        duration_ms = (time.perf_counter() - start_time) * 1000

        usage = data.get("usage")
        return ProviderResponse(
            output=[{"role": "assistant", "content": data["text"]}],
            token_usage={"input": usage["prompt_tokens"], "output": usage["completion_tokens"]}
            if usage
            else None,
            cost_usd=data.get("cost"),
            duration_ms=duration_ms,
            raw=data,
        )


# Register the provider
def create(target: ResolvedTarget) -> HttpAgentProvider:
    return HttpAgentProvider(
        target.name,
        base_url=target.config.get("base_url", "http://localhost:8080"),
        api_key=target.config.get("api_key", ""),
    )


muster.register("http-agent", create)
