"""`thriftbit map`: what a model loses at every size, measured once; afterwards every budget is answered at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import thriftbit
from thriftbit.cli.completion import complete_models
from thriftbit.cli.options import json_option, offline_option, work_options
from thriftbit.cli.printing import output, print_json, say, show, table
from thriftbit.cli.progress import ProgressLine
from thriftbit.cli.questions import model_here
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import quoted

if TYPE_CHECKING:
    from thriftbit import Model
    from thriftbit.quantization.model_frontier import Point
    from thriftbit.quantization.sensitivity import Sensitivities


@click.command("map", short_help="Find out what a model loses at every size; then any budget is answered at once.")
@click.argument("source", metavar="MODEL", shell_complete=complete_models)
@click.option(
    "--effort",
    type=click.Choice(["plain", "calibrated"]),
    default="calibrated",
    show_default=True,
    help="How files will be rounded; plain takes half the time.",
)
@click.option(
    "--calibrate-on",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A text of yours; four kinds of text in the box by default.",
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write it as one HTML page as well.")
@click.option("--force", is_flag=True, help="Replace the HTML page if it exists.")
@work_options
@offline_option
@json_option
def map_command(
    source: str,
    effort: str,
    calibrate_on: Path | None,
    html: Path | None,
    force: bool,
    work: dict[str, Any],
    offline: bool,
    as_json: bool,
) -> None:
    """Measure what MODEL loses at every size, tensor by tensor and format by format.

    This takes minutes for a small model and hours for a large one, and is needed only once. An interrupted run
    continues where it stopped. Afterwards `thriftbit quantize` answers any budget at once: a size, bits per weight, or
    the loss you allow. Needs the extra torch. MODEL is what `thriftbit quantize` takes.

    \b
    Examples:
      thriftbit map ./Qwen2.5-1.5B-Instruct
      thriftbit map ./my-model --html map.html
      thriftbit map ./my-model --calibrate-on my-work.txt
      thriftbit quantize ./my-model --size 4GB        uses the map
    """
    from thriftbit.containers.atomic_file import check_target

    if html:
        check_target(html, html, force)
    source = model_here(source, offline=offline, yes=True)
    model = thriftbit.open_model(source, offline=offline)
    with ProgressLine() as line:
        sensitivities = thriftbit.map_model(model, effort, calibrate_on, **work, progress=line.update)
    if html:
        thriftbit.write_map(model, sensitivities, effort, html, force=force)
    if as_json:
        map_document(model, sensitivities, effort)
    else:
        print_map(model, sensitivities, effort, source, html)


MOST_PLOT_COLUMNS = 110


def print_map(model: Model, sensitivities: Sensitivities, effort: str, source: str, html: Path | None) -> None:
    from thriftbit.quantization.model_frontier import best_points, preset_points
    from thriftbit.report.text_plot import Dot, plot

    presets, best = preset_points(model, sensitivities, effort), best_points(model, sensitivities, effort)
    say(f"What {source} loses at every size", style="bold")
    say(f"as predicted with {effort} rounding: mean KL divergence from the original, in nats\n")
    dots = [Dot("", point.size_bytes, point.loss.value, True) for point in best]
    dots += [Dot(point.name, point.size_bytes, point.loss.value, False) for point in presets]
    for line in plot(dots, min(output.width, MOST_PLOT_COLUMNS)):
        say(line)
    say("  ● the best plan of its size   ○ llama.cpp's preset\n")
    beside = best_points(model, sensitivities, effort, [point.size_bytes for point in presets])
    show(table(("preset", ">size", ">bits", ">loses", ">our plan", ">perplexity"), _rows(presets, beside)))
    say(f"\n{_how_sure(sensitivities, effort)}")
    if html:
        say(f"The same as a page: {html}")
    middle = presets[len(presets) // 2] if presets else best[len(best) // 2]
    size = describe_bytes(middle.size_bytes).replace(" ", "")
    say("\nAny budget is answered at once now:")
    for budget in (f"--size {size}", f"--bpw {middle.bits_per_weight:.1f}", "--max-loss 1%"):
        say(f"  thriftbit quantize {quoted(source)} {budget}")


def map_document(model: Model, sensitivities: Sensitivities, effort: str) -> None:
    from thriftbit.quantization.model_frontier import best_points, preset_points

    trust = sensitivities.trust(effort)
    print_json(
        {
            "model": model.source,
            "effort": effort,
            "provenance": "predicted",
            "prediction_spread": trust.spread,
            "presets": [_point(point) for point in preset_points(model, sensitivities, effort)],
            "plans": [_point(point) for point in best_points(model, sensitivities, effort)],
            "measured_plans": [vars(anchor) for anchor in sensitivities.anchors],
            "losses": {
                tensor: {name: sensitivities.loss_of(tensor, name, effort) for name in losses}
                for tensor, losses in sensitivities.losses.items()
            },
        }
    )


def _rows(presets: list[Point], best: list[Point]) -> Sequence[tuple[str, ...]]:
    from thriftbit.report.numbers import significant

    rows = []
    for preset in presets:
        ours = [point for point in best if point.size_bytes <= preset.size_bytes]
        own = ours[-1] if ours else preset
        rows.append(
            (
                preset.name,
                describe_bytes(preset.size_bytes),
                f"{preset.bits_per_weight:.2f}",
                significant(preset.loss.value, 2),
                significant(own.loss.value, 2),
                f"≤ +{100 * own.loss.perplexity_rise:.2g}%",
            )
        )
    return rows


def _how_sure(sensitivities: Sensitivities, effort: str) -> str:
    from thriftbit.quantization.sensitivity import TWO_SIGMA

    trust = sensitivities.trust(effort)
    factor = math.exp(TWO_SIGMA * trust.spread)
    checked = len(sensitivities.anchors)
    return (
        f"Predicted from every tensor's part, corrected by {checked} whole plans that were measured:\n"
        f"19 times in 20 the truth is within a factor of {factor:.2f}, on text like that calibrated on.\n"
        "Perplexity rises by exp(loss) − 1 at most, where text follows the original's predictions."
    )


def _point(point: Point) -> dict[str, Any]:
    return {
        "preset": point.name or None,
        "size_bytes": point.size_bytes,
        "bits_per_weight": round(point.bits_per_weight, 4),
        "kl_divergence": point.loss.value,
        "low": point.loss.low,
        "high": point.loss.high,
        "perplexity_rise_at_most": point.loss.perplexity_rise,
        "gap": point.gap,
    }
