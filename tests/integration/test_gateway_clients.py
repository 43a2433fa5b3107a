"""Other people's clients against the gateway: LangChain and pydantic-ai."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.integration.gateways import Gateway, serving

PARIS = "Paris is the capital of France, and has been for more than a thousand years."
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend


class City(BaseModel):
    """A city and how many live there."""

    city: str
    people: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"It is sunny in {city}"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture(scope="module")
def langchain(gateway: Gateway) -> Iterator[Any]:
    """Its model; all of them share connections, so that they are closed once."""
    made = importlib.import_module("langchain_openai").ChatOpenAI
    found = made(base_url=f"{gateway.url}/v1", api_key="none", model="auto", max_retries=0)
    yield found
    found.root_client.close()
    asyncio.run(found.root_async_client.close())


def test_langchain_chats_streams_and_reads_usage(langchain: Any) -> None:
    found = langchain.invoke("What is the capital of France?")
    assert found.content == PARIS
    assert found.usage_metadata["output_tokens"] > 0
    pieces = [chunk.content for chunk in langchain.stream("What is the capital of France?")]
    assert "".join(pieces) == PARIS
    assert len(pieces) > 2


def test_langchain_calls_tools_and_reads_structures(langchain: Any) -> None:
    [call] = langchain.bind_tools([get_weather]).invoke("The weather in Oslo?").tool_calls
    structured = langchain.with_structured_output(City, method="json_schema")
    city = structured.invoke("A city, not on Mars?")
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Oslo"})
    assert city == City(city="Paris", people=2_100_000)


def with_pydantic_ai(gateway: Gateway, scene: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    """What a scene gives that is played with the library and a model behind the gateway."""
    ai = importlib.import_module("pydantic_ai")
    models = importlib.import_module("pydantic_ai.models.openai")
    providers = importlib.import_module("pydantic_ai.providers.openai")

    async def play() -> Any:
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as opened:
            provider = providers.OpenAIProvider(openai_client=opened)
            return await scene(ai, models.OpenAIChatModel("auto", provider=provider))

    return asyncio.run(play())


def test_pydantic_ai_runs_and_streams(gateway: Gateway) -> None:
    async def scene(ai: Any, model: Any) -> tuple[str, str]:
        agent = ai.Agent(model)
        whole = await agent.run("What is the capital of France?")
        async with agent.run_stream("What is the capital of France?") as result:
            pieces = [piece async for piece in result.stream_text(delta=True)]
        return whole.output, "".join(pieces)

    assert with_pydantic_ai(gateway, scene) == (PARIS, PARIS)


def test_pydantic_ai_calls_tools_and_reads_structures(gateway: Gateway) -> None:
    async def scene(ai: Any, model: Any) -> tuple[str, City]:
        talks = ai.Agent(model, tools=[get_weather])
        said = await talks.run("How is the weather in Oslo?")
        asks = ai.Agent(model, output_type=ai.NativeOutput(City))
        return said.output, (await asks.run("A city, not on Mars?")).output

    said, city = with_pydantic_ai(gateway, scene)
    assert said == "It is sunny in Oslo today."
    assert city == City(city="Paris", people=2_100_000)
