"""An assistant uses Thriftbit: the official SDK's own client talks to `thriftbit mcp`, a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

YES = ElicitResult(action="accept", content={"go_on": True})
ANSWERS_THAT_ARE_NO = (ElicitResult(action="decline"), ElicitResult(action="accept", content={"go_on": False}))
Calls = Sequence[tuple[str, dict[str, Any]]]
Talk = Callable[..., tuple[Any, list[str]]]


@pytest.fixture
def talk(tmp_path: Path, thriftbit_environment: dict[str, str]) -> Talk:
    """Return a function that starts a server in an empty folder, lets `use` talk to it, and returns its result and the
    questions that a person was asked. answers: what the person says; none for a client that cannot ask. mode: of the
    protocol; "legacy" is how assistants spoke it first."""
    command = ["-P", "-m", "thriftbit", "mcp"]
    server = StdioServerParameters(command=sys.executable, args=command, env=thriftbit_environment, cwd=tmp_path)

    def run(
        use: Callable[[Client], Awaitable[Any]], answers: Sequence[ElicitResult] = (), mode: str = "auto"
    ) -> tuple[Any, list[str]]:
        asked: list[str] = []

        async def reply(context: object, question: ElicitRequestParams) -> ElicitResult:
            asked.append(question.message)
            return answers[len(asked) - 1]

        async def connected() -> Any:
            async with Client(server, mode=mode, elicitation_callback=reply if answers else None) as client:
                return await use(client)

        return asyncio.run(connected()), asked

    return run


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def test_an_assistant_is_answered(talk: Talk, tiny_llama: Path, tmp_path: Path) -> None:
    model = str(tiny_llama)
    right: Calls = (
        ("doctor", {}),
        ("fit", {"model": model, "max_loss": "50%", "context": 256}),
        ("find", {"words": "no-such-model", "local": True}),
        ("quantize", {"model": model, "to": "Q8_0", "output": "a.gguf"}),
    )
    wrong: Calls = (
        ("explain", {"name": "--help"}),
        ("measure", {"file": "missing.gguf"}),
        ("quantize", {"model": "missing", "to": "Q4_K_M"}),
        ("fit", {"min_speed": "fast"}),
    )

    async def use(client: Client) -> list[CallToolResult]:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"doctor", "fit", "find", "explain", "measure", "quantize"}
        assert all(tool.description for tool in tools.values())
        assert set(tools["quantize"].input_schema["properties"]) == {"model", "to", "effort", "output"}
        return await asyncio.gather(*(client.call_tool(name, given) for name, given in (*right, *wrong)))

    answers, (question,) = talk(use, [YES])
    doctor, fit, find, made = answers[: len(right)]
    assert not any(answer.is_error for answer in (doctor, fit, find, made)), answers
    assert doctor.structured_content["facts"]["processor"] and "was not measured yet" in text_of(doctor)
    advice = fit.structured_content
    assert advice["context_tokens"] == 256 and text_of(fit).startswith(f"{advice['recommended']}: It takes ")
    assert find.structured_content["local"] == [] and text_of(find).startswith("Nothing was found.")
    assert made.structured_content["size_bytes"] == (tmp_path / "a.gguf").stat().st_size
    assert text_of(made).startswith("Wrote a.gguf: 2.03 MB, ")
    assert question == f"Quantize {model} to Q8_0? The file is a.gguf, with about 2.03 MB."

    errors = answers[len(right) :]
    texts = [text_of(answer) for answer in errors]
    assert all(answer.is_error and answer.structured_content["error"]["message"] for answer in errors), texts
    assert not any(word in text for text in texts for word in ("Traceback", "pydantic", "Error executing")), texts
    assert "--help" in texts[0] and "missing.gguf" in texts[1] and "missing" in texts[2]
    assert texts[3] == "fit: model is missing; min_speed is 'fast', which it cannot be"


def test_nothing_is_written_without_a_yes(talk: Talk, tiny_llama: Path, tmp_path: Path) -> None:
    async def use(client: Client) -> list[str]:
        results = [await client.call_tool("quantize", {"model": str(tiny_llama), "to": "Q8_0"}) for _ in range(2)]
        assert all(result.is_error for result in results)
        return [text_of(result) for result in results]

    refusals, asked = talk(use, ANSWERS_THAT_ARE_NO, mode="legacy")
    assert refusals == 2 * ["The person did not agree, so nothing was downloaded or written."]
    assert asked == 2 * [f"Quantize {tiny_llama} to Q8_0? The file goes into {tmp_path}, with about 2.03 MB."]
    refusals, _ = talk(use)
    assert refusals[0] == (
        "This client cannot ask whether to write a file, so nothing was written. In a terminal, this does it: "
        f"thriftbit quantize {tiny_llama} --to Q8_0"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="ends by a signal")
def test_the_server_ends_with_its_client_and_says_nothing_beside_the_protocol(
    thriftbit_environment: dict[str, str],
) -> None:
    command = [sys.executable, "-P", "-m", "thriftbit", "mcp"]
    version = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": version})
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=thriftbit_environment, text=True, **pipes) as server:
        server.stdin.write(f"{hello}\n")
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["result"]["serverInfo"]["name"] == "thriftbit"
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        assert (server.stdout.read(), "Traceback" in server.stderr.read()) == ("", False)
