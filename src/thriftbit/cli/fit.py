"""`thriftbit fit`: which precision of a model suits this computer."""

from __future__ import annotations

import re

import click

import thriftbit
from thriftbit.cli.fit_printing import print_advice, print_ranking
from thriftbit.cli.measure import Share
from thriftbit.cli.offer import offer_measuring
from thriftbit.cli.printing import announce, json_option
from thriftbit.errors import UsageError

NOTHING_FITS, CANNOT_TELL = 3, 4


class Amount(click.ParamType[int]):
    """ "4GB", "500 MB"; of tokens "16k" (16,384)"""

    def __init__(self, name: str, thousand: int = 1000) -> None:
        self.name, self._thousand = name, thousand

    def convert(self, value: str | int, parameter: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", value.strip(), re.IGNORECASE)
        if match is None or len(value) > 20:
            self.fail(f"{value!r} is no amount; say 16k or 4GB", parameter, context)
        power = "kmgt".find(match[2].lower()) + 1 if match[2] else 0
        amount: int = round(float(match[1]) * self._thousand**power)
        return amount


@click.command(short_help="Which precision of a model suits this computer.")
@click.argument("source", metavar="[MODEL]", required=False)
@click.option(
    "--task", default="chat", show_default=True, metavar="TASK", help="chat, code, math, science, or a text of yours."
)
@click.option("--min-speed", type=click.FloatRange(min=0), metavar="TOKENS", help="Tokens a second it has to write.")
@click.option("--max-loss", type=Share(), metavar="SHARE", help="How much perplexity may rise, for example 1%.")
@click.option(
    "--context",
    "context_tokens",
    type=Amount("tokens", 1024),
    metavar="TOKENS",
    help="How much text it has to keep in mind, for example 16k; 8k by default.",
)
@click.option("--leave-free", type=Amount("bytes"), metavar="SIZE", help="Memory for other programs, for example 4GB.")
@click.option(
    "--cache-type",
    type=click.Choice(["F16", "Q8_0", "Q4_0"], case_sensitive=False),
    default="F16",
    show_default=True,
    help="The precision that the text is kept in.",
)
@click.option("--battery", is_flag=True, help="Save energy: of what is good enough, the least work.")
@click.option("--machine", type=click.Path(dir_okay=False), metavar="FILE", help="Another computer's profile.")
@click.option("--offline", is_flag=True, help="Never use the network; take Hub models from the local cache.")
@json_option
def fit(
    source: str | None,
    task: str,
    min_speed: float | None,
    max_loss: float | None,
    context_tokens: int | None,
    leave_free: int | None,
    cache_type: str,
    battery: bool,
    machine: str | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Show every precision of MODEL on this computer, and recommend one.

    From 32 bits down: the size, the memory it takes, whether it fits, how fast it writes and what it loses.

    MODEL is a folder, a GGUF file, the name of a model on the Hugging Face Hub (owner/name), or a GGUF there
    (owner/name/file.gguf). Its weights are not needed and never downloaded: only its description is. Without MODEL, the
    models on this disk are ranked.

    Every number says where it comes from. Speeds need `thriftbit doctor --measure`, once. The exit code is 3 where
    nothing fits, and 4 where that cannot be told.

    \b
    Examples:
      thriftbit fit Qwen/Qwen2.5-7B-Instruct
      thriftbit fit ./my-model --task code --max-loss 1% --context 16k
      thriftbit fit ./my-model --min-speed 10 --leave-free 4GB
      thriftbit fit Qwen/Qwen2.5-7B-Instruct --machine laptop.json
      thriftbit fit
    """
    if context_tokens is not None and context_tokens < 1:
        raise UsageError("--context: a context has at least one token")
    wishes = thriftbit.Wishes(
        task=task,
        min_speed=min_speed,
        max_loss=max_loss,
        context_tokens=context_tokens,
        leave_free_bytes=leave_free,
        cache_type=cache_type.upper(),
        saves_energy=battery,
    )
    if machine is None:
        offer_measuring(as_json)
    if source is None:
        from thriftbit.advice.ranking import rank_local

        ranked = rank_local(wishes, machine=machine)
        print_ranking(ranked, as_json)
        return 0 if any(each.fits for each in ranked) else NOTHING_FITS
    advice = thriftbit.fit(source, wishes, machine=machine, offline=offline, announce=announce)
    print_advice(advice, as_json)
    if advice.is_undecided:
        return CANNOT_TELL
    return 0 if advice.fits else NOTHING_FITS
