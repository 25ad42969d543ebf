"""The server of `thriftbit mcp`: six tools, each a command of Thriftbit.

An answer is the command's JSON document as structured content, and the sentences that a person needs as text. What a
command refuses is an answer too, in its own words and marked as an error. Only `quantize` writes anything that a person
did not ask for in so many words, so the person is asked first; a client that cannot ask is refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Elicit, ElicitationResult, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from thriftbit import __version__
from thriftbit.assistant.running import Outcome, run_command
from thriftbit.assistant.wording import (
    Describe,
    describe_advice,
    describe_computer,
    describe_explanation,
    describe_file,
    describe_findings,
    describe_measurements,
)
from thriftbit.sizes import describe_bytes

_INSTRUCTIONS = """\
Thriftbit quantizes language models to GGUF files for llama.cpp, and measures what that costs, on this computer.
First `find` a model, then ask `fit` which precision suits this computer, then `quantize`, then `measure`.
Speeds are known once `doctor` has run with measure_speed. Every number in an answer says where it comes from."""

_READS_ONLY = ToolAnnotations(read_only_hint=True)
_KEEPS_NUMBERS = ToolAnnotations(read_only_hint=False, destructive_hint=False)

Model = Annotated[
    str, Field(description="A folder, a GGUF file, a name that `find` shows, or owner/name on the Hugging Face Hub.")
]
Loss = Annotated[str | float | None, Field(description="How much perplexity may rise, for example 2%.")]
Tokens = Annotated[str | int | None, Field(description="Length of the context in tokens, for example 8192 or 8k.")]
Speed = Annotated[float | None, Field(description="The least speed of writing, in tokens/s.")]


class Agreement(BaseModel):
    """What a person answers before a file is written."""

    go_on: bool = Field(default=True, title="Write the file", description="Whether to make the file now.")


@dataclass(frozen=True)
class Refusal:
    """Why nobody is asked: the client cannot ask, or what was asked for makes no sense."""

    sentence: str


class AssistantServer(MCPServer[None]):
    """`AssistantServer().run("stdio")`

    questions: that were asked and not answered yet, by what was to be quantized and how"""

    def __init__(self) -> None:
        self.questions: dict[tuple[str, str, str | None, str | None], str] = {}
        super().__init__("thriftbit", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING")
        for tool, hints in (
            (doctor, _KEEPS_NUMBERS),
            (fit, _READS_ONLY),
            (find, _READS_ONLY),
            (explain, _READS_ONLY),
            (measure, _KEEPS_NUMBERS),
            (quantize, _KEEPS_NUMBERS),
        ):
            self.add_tool(tool, annotations=hints)

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[None, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            return _refused(_what_is_wrong(name, error.__cause__))


async def doctor(
    request: Context[None, Any],
    measure_speed: Annotated[
        bool, Field(description="Measure how fast models run here; takes about a minute.")
    ] = False,
) -> CallToolResult:
    """What this computer is, how much memory models may take, and how fast they run on it."""
    return await _answer(request, "doctor", {"measure": measure_speed}, [], describe_computer)


async def fit(
    model: Model,
    request: Context[None, Any],
    min_speed: Speed = None,
    max_loss: Loss = None,
    context: Tokens = None,
    task: Annotated[str, Field(description="chat, code, math, science, or a text file.")] = "chat",
) -> CallToolResult:
    """Which precision of a model suits this computer: size, memory, speed and loss of each, and one recommended. Reads
    the model's description only, and downloads no weights."""
    wishes = {"min-speed": min_speed, "max-loss": max_loss, "context": context, "task": task}
    return await _answer(request, "fit", wishes, [model], describe_advice)


async def find(
    words: Annotated[str, Field(description="Words of the name, for example qwen3 4b; empty for all on this disk.")],
    request: Context[None, Any],
    local: Annotated[bool, Field(description="Only this disk, and not the Hugging Face Hub.")] = False,
) -> CallToolResult:
    """Models on this disk and on the Hugging Face Hub, and which of them fit into this computer's memory."""
    return await _answer(request, "find", {"local": local}, words.split(), describe_findings)


async def explain(
    name: Annotated[str, Field(description="For example Q4_K_M, AWQ, perplexity, or the name of a file.")],
    request: Context[None, Any],
) -> CallToolResult:
    """What the name of a quantization, or a term about it, means."""
    return await _answer(request, "explain", {}, [name], describe_explanation)


async def measure(
    file: Annotated[str, Field(description="A GGUF file.")],
    request: Context[None, Any],
    against: Annotated[str | None, Field(description="The original: a folder, or a GGUF in 16 or 32 bits.")] = None,
    only: Annotated[
        Literal["accuracy", "speed", "answers"] | None, Field(description="Measure only this; everything by default.")
    ] = None,
    time: Annotated[str | int, Field(description="About how long it may take, for example 90s or 5m.")] = "5m",
    max_loss: Loss = None,
) -> CallToolResult:
    """What a quantized file lost against its original, how fast it runs here, and how much memory and energy it takes.
    Takes minutes, with every core."""
    options = {"against": against, "only": only, "time": time, "max-loss": max_loss}
    return await _answer(request, "measure", options, [file], describe_measurements)


Preset = Annotated[str, Field(description="The precision, for example Q4_K_M; `fit` recommends one.")]
Effort = Annotated[
    Literal["plain", "calibrated", "tuned"] | None,
    Field(description="calibrated and tuned lose less in the same bytes, and take minutes to hours; they need torch."),
]
Output = Annotated[str | None, Field(description="The file to write; MODEL-PRECISION.gguf in this folder by default.")]


async def ask_first(
    model: str, to: str, effort: str | None, output: str | None, request: Context[None, Any]
) -> Elicit[Agreement] | Refusal:
    """Return the question whether to write the file, or why it is not asked."""
    if not _can_ask(request):
        options = [
            f"--{name} {shlex.quote(value)}" for name, value in (("effort", effort), ("output", output)) if value
        ]
        command = " ".join(["thriftbit quantize", shlex.quote(model), f"--to {shlex.quote(to)}", *options])
        return Refusal(
            f"This client cannot ask whether to write a file, so nothing was written. In a terminal, this does it: "
            f"{command}"
        )
    server, key = request.mcp_server, (model, to, effort, output)
    assert isinstance(server, AssistantServer)
    question = (
        server.questions.pop(key, None) if request.input_responses else None
    )  # the answer came with a new request
    if question is None:
        outcome = await run_command("fit", [], [model], _tell_nobody)
        if outcome.error:
            return Refusal(outcome.error)
        question = server.questions[key] = _question(outcome.document, to, effort, output)
    return Elicit(question, Agreement)


async def quantize(
    model: Model,
    to: Preset,
    request: Context[None, Any],
    agreement: Annotated[ElicitationResult[Agreement], Resolve(ask_first)],
    effort: Effort = None,
    output: Output = None,
) -> CallToolResult:
    """Make a GGUF file of a model in a smaller precision. The person is asked first."""
    answer = agreement.data if agreement.action == "accept" else None
    if isinstance(answer, Refusal):
        return _refused(answer.sentence)
    if answer is None or not answer.go_on:
        return _refused("The person did not agree, so nothing was downloaded or written.")
    options = {"to": to, "effort": effort, "output": output}
    return await _answer(request, "quantize", options, [model], describe_file)


async def _answer(
    request: Context[None, Any],
    command: str,
    options: Mapping[str, Any],
    arguments: Sequence[str],
    describe: Describe,
) -> CallToolResult:
    """options: by their names; None and False are left out, True has no value."""

    async def tell(what: str, fraction: float) -> None:
        await request.report_progress(fraction, 1.0, what)

    given = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items() if _is_set(value)]
    outcome = await run_command(command, given, arguments, tell)
    if outcome.error:
        return _refused(outcome.error, outcome)
    text = "\n".join([describe(outcome.document), *outcome.messages])
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=dict(outcome.document))


def _is_set(value: object) -> bool:
    return value is not None and value is not False


def _refused(sentence: str, outcome: Outcome | None = None) -> CallToolResult:
    document = outcome.document if outcome else {"error": {"message": sentence, "exit_code": 1}}
    return CallToolResult(content=[TextContent(type="text", text=sentence)], structured_content=document, is_error=True)


def _what_is_wrong(tool: str, error: ValidationError) -> str:
    """Return what is wrong with the arguments, in a sentence for each."""
    found = {str(each["loc"][0]): each for each in error.errors()}
    wrong = [
        f"{name} is missing" if each["type"] == "missing" else f"{name} is {each['input']!r}, which it cannot be"
        for name, each in found.items()
    ]
    return f"{tool}: {'; '.join(wrong)}"


def _can_ask(request: Context[None, Any]) -> bool:
    """Return whether the client shows a person questions with a form."""
    capabilities = request.client_capabilities
    asking = capabilities.elicitation if capabilities else None
    return asking is not None and (asking.form is not None or asking.url is None)


async def _tell_nobody(what: str, fraction: float) -> None:
    pass


def _question(advice: Mapping[str, Any], to: str, effort: str | None, output: str | None) -> str:
    """advice: of `thriftbit fit --json`. The words are the same each time, as an answer counts only for those that were
    shown."""
    level = to.upper()
    sizes = [
        option["size_bytes"]["value"]
        for option in advice["options"]
        if level in (option["precision"].upper(), *(name.upper() for name in option["same_file_as"]))
    ]
    size = f"about {describe_bytes(round(sizes[0]))}" if sizes and sizes[0] else "a size that is not known yet"
    place = f"The file is {output}" if output else f"The file goes into {Path.cwd()}"
    here = Path(advice["model"]).expanduser().exists()
    download = "" if here else " The model's weights are downloaded first, if they are not on this disk yet."
    long = f" The effort {effort} takes minutes to hours, on every core." if effort in ("calibrated", "tuned") else ""
    return f"Quantize {advice['model']} to {to}? {place}, with {size}.{download}{long}"
