"""Other people's clients against the gateway: LangChain and pydantic-ai."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
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


def langchain(gateway: Gateway, **more: Any) -> Any:
    made = importlib.import_module("langchain_openai").ChatOpenAI
    return made(base_url=f"{gateway.url}/v1", api_key="none", model="auto", max_retries=0, **more)


def test_langchain_chats_streams_and_reads_usage(gateway: Gateway) -> None:
    model = langchain(gateway)
    found = model.invoke("What is the capital of France?")
    assert found.content == PARIS
    assert found.usage_metadata["output_tokens"] > 0
    pieces = [chunk.content for chunk in model.stream("What is the capital of France?")]
    assert "".join(pieces) == PARIS
    assert len(pieces) > 2


def test_langchain_calls_tools_and_reads_structures(gateway: Gateway) -> None:
    [call] = langchain(gateway).bind_tools([get_weather]).invoke("The weather in Oslo?").tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Oslo"})
    structured = langchain(gateway).with_structured_output(City, method="json_schema")
    assert structured.invoke("A city, not on Mars?") == City(city="Paris", people=2_100_000)


def agent(gateway: Gateway, **more: Any) -> Any:
    ai = importlib.import_module("pydantic_ai")
    models = importlib.import_module("pydantic_ai.models.openai")
    providers = importlib.import_module("pydantic_ai.providers.openai")
    provider = providers.OpenAIProvider(base_url=f"{gateway.url}/v1", api_key="none")
    return ai.Agent(models.OpenAIChatModel("auto", provider=provider), **more)


def test_pydantic_ai_runs_streams_and_calls_tools(gateway: Gateway) -> None:
    plain = agent(gateway)
    assert plain.run_sync("What is the capital of France?").output == PARIS

    async def streamed() -> str:
        async with plain.run_stream("What is the capital of France?") as result:
            return "".join([piece async for piece in result.stream_text(delta=True)])

    assert asyncio.run(streamed()) == PARIS
    called: list[str] = []

    def weather(city: str) -> str:
        """The weather of a city."""
        called.append(city)
        return "It is sunny"

    weather.__name__ = "get_weather"
    talks = agent(gateway, tools=[weather])
    assert talks.run_sync("How is the weather in Oslo?").output
    assert called[0] == "Oslo"


def test_pydantic_ai_reads_structures(gateway: Gateway) -> None:
    ai = importlib.import_module("pydantic_ai")
    asks = agent(gateway, output_type=ai.NativeOutput(City))
    assert asks.run_sync("A city, not on Mars?").output == City(city="Paris", people=2_100_000)
