"""`thriftbit quantize`: a model goes in, a quantized GGUF comes out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

import thriftbit
from thriftbit.cli.budget_options import budget_options
from thriftbit.cli.printing import announce, json_option
from thriftbit.cli.progress import ProgressLine
from thriftbit.cli.quantize_printing import print_plan, print_result
from thriftbit.containers.atomic_file import check_target
from thriftbit.errors import ThriftbitError, UsageError

if TYPE_CHECKING:
    from thriftbit import ImportanceMatrix, Model, Plan
    from thriftbit.advice.budget import Request
    from thriftbit.quantization.allocation import Allocation
    from thriftbit.quantization.calibration_data import Calibration
    from thriftbit.quantization.rounded import Rounded


@click.command(short_help="Make a GGUF file that llama.cpp, Ollama and LM Studio run.")
@click.argument("source", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write; MODEL-PRESET.gguf or MODEL-4.50bpw.gguf by default.",
)
@click.option(
    "--to", "preset", metavar="PRESET", help="How small, for example Q4_K_M. Leave it out to see the choices."
)
@budget_options
@click.option("--imatrix", type=click.Path(path_type=Path), help="Importance data that llama-imatrix wrote.")
@click.option(
    "--effort",
    type=click.Choice(["plain", "calibrated", "tuned"]),
    show_default="plain; for a budget calibrated",
    help="calibrated: see what the model does with text, and round for that; minutes to hours, needs torch. "
    "tuned: layer after layer, each making up for those before; several times as long.",
)
@click.option(
    "--calibrate-on",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A text of yours for --effort calibrated or tuned; four kinds of text in the box by default.",
)
@click.option(
    "--save-imatrix",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write what calibration found as importance data for llama-quantize.",
)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    help="A plan in place of a preset: JSON, as --dry-run --json prints it.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and the exact size; write nothing.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads for encoding; every core by default.")
@click.option("--allow-requantize", is_flag=True, help="Accept a GGUF that is quantized already; quality suffers.")
@click.option("--offline", is_flag=True, help="Never use the network; take Hub models from the local cache.")
@json_option
def quantize(
    source: str,
    output: Path | None,
    preset: str | None,
    imatrix: Path | None,
    effort: str | None,
    calibrate_on: Path | None,
    save_imatrix: Path | None,
    plan_file: Path | None,
    dry_run: bool,
    force: bool,
    threads: int | None,
    allow_requantize: bool,
    offline: bool,
    as_json: bool,
    request: Request,
) -> None:
    """Quantize MODEL to a GGUF file that llama.cpp, Ollama and LM Studio run.

    MODEL is a folder in Hugging Face's layout, a GGUF file in 16 or 32 bits, or the name of a model on the Hugging Face
    Hub (owner/name).

    \b
    Examples:
      thriftbit quantize ./Qwen2.5-1.5B-Instruct --to Q4_K_M
      thriftbit quantize HuggingFaceTB/SmolLM2-135M-Instruct --to Q8_0 -o smollm2.gguf
      thriftbit quantize model-BF16.gguf --to IQ4_XS --imatrix imatrix.gguf
      thriftbit quantize ./my-model --to Q4_K_M --effort calibrated
      thriftbit quantize ./my-model --size 4GB                 the best file of that size
      thriftbit quantize ./my-model --max-loss 1%              the smallest that loses no more
      thriftbit quantize ./my-model --fits --min-speed 10      what this computer can take
      thriftbit quantize ./my-model --to Q5_K_M --dry-run
      thriftbit quantize ./my-model                            explains the presets
    """
    _check_choice(preset, plan_file, request)
    if effort is None or (calibrate_on and effort == "plain" and not request):  # with a budget it is the map's text
        effort = "calibrated" if calibrate_on or (request and not imatrix) else "plain"
    calibrated = effort != "plain"
    if calibrated and imatrix:
        raise UsageError(f"--imatrix and --effort {effort} both say what matters; give one of them")
    if save_imatrix and not calibrated:
        raise UsageError("--save-imatrix writes what calibration finds; add --effort calibrated")
    importance = thriftbit.read_importance(imatrix) if imatrix else None
    model = thriftbit.open_model(source, offline=offline, allow_requantize=allow_requantize, announce=announce)
    found = None
    if request:
        found, importance = _best(model, request, effort, importance, calibrate_on, threads)
    plan = found.plan if found else _plan(model, preset, plan_file, importance is not None or calibrated)
    level = f"{plan.bits_per_weight(model):.2f}bpw" if found else plan.preset
    output = output or Path(f"{_name_of(source)}-{level}.gguf")
    if dry_run:
        print_plan(model, plan, importance, effort, output, as_json, found)
        return
    calibration, rounded = None, None
    if calibrated:
        check_target(output, output, force)  # before the long run, and not only after it
        if save_imatrix:
            check_target(save_imatrix, save_imatrix, force)
        calibration, rounded = _learn(model, plan, calibrate_on, effort)
        if save_imatrix:
            text = calibrate_on.name if calibrate_on else "thriftbit's calibration texts"
            thriftbit.write_importance(calibration, save_imatrix, text=text, force=force)
    with ProgressLine() as line:
        result = thriftbit.quantize(
            model,
            plan,
            output,
            importance=importance,
            calibration=calibration,
            rounded=rounded,
            threads=threads,
            force=force,
            progress=lambda tensor, done_bytes, total_bytes: line.update(tensor, done_bytes / total_bytes),
        )
    if rounded:
        rounded.discard()
    print_result(model, plan, result, as_json, found)


def _check_choice(preset: str | None, plan_file: Path | None, request: Request) -> None:
    """What is wrong with the request is said before a model is opened, perhaps downloaded."""
    request.check()
    if request and (preset or plan_file):
        raise UsageError(f"{'--to' if preset else '--plan'} and a budget both choose the formats; give one of them")
    if preset and plan_file:
        raise UsageError("--to and --plan both choose the formats; give one of them")
    if preset:
        from thriftbit.quantization.presets import preset_named

        preset_named(preset)
    elif not plan_file and not request:
        from thriftbit.cli.choices import describe_choices

        raise UsageError(
            "say how small with --to PRESET, or with --size, --bpw or --max-loss; Q4_K_M suits most people. "
            f"The presets, and how many gigabytes each takes per billion parameters:\n\n{describe_choices()}"
        )


def _best(
    model: Model,
    request: Request,
    effort: str,
    importance: ImportanceMatrix | None,
    text: Path | None,
    threads: int | None,
) -> tuple[Allocation, ImportanceMatrix | None]:
    """-> the best plan, and for plain rounding the importance data that the map was made with"""
    budget = thriftbit.budget_for(model, request)
    with ProgressLine() as line:
        known = thriftbit.map_model(model, effort, text, threads=threads, announce=announce, progress=line.update)
    if effort == "plain" and importance is None:
        importance = thriftbit.map_importance(model, text)
    return thriftbit.find_plan(model, known, budget, effort, importance), importance


def _plan(model: Model, preset: str | None, plan_file: Path | None, knows_importance: bool) -> Plan:
    if preset:
        return thriftbit.make_plan(model, preset, importance=knows_importance)
    assert plan_file is not None
    try:
        return thriftbit.Plan.from_json(plan_file.read_text(encoding="utf-8"), model)
    except OSError as error:
        raise ThriftbitError(f"{plan_file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ThriftbitError(f"{plan_file}: is no plan: it is not text; a dry run with --json prints one") from None
    except ThriftbitError as error:
        raise ThriftbitError(f"{plan_file}: {error}") from None


def _learn(model: Model, plan: Plan, text: Path | None, effort: str) -> tuple[Calibration, Rounded | None]:
    """-> the calibration, and for `tuned` what was rounded with it"""
    from thriftbit.quantization import calibration_text, tuned

    windows = tuned.WINDOWS if effort == "tuned" else calibration_text.WINDOWS
    with ProgressLine() as line:
        calibration = calibration_text.calibration_of(
            model, text, windows=windows, announce=announce, progress=lambda share: line.update("calibrating", share)
        )
    if effort != "tuned":
        return calibration, None
    with ProgressLine() as line:
        rounded = tuned.tuned(
            model, plan, calibration, announce=announce, progress=lambda share: line.update("tuning", share)
        )
    return calibration, rounded


def _name_of(source: str) -> str:
    """-> the model's name: the folder's, the repository's, or the file's without its level and part"""
    if not Path(source).is_file():
        return Path(source).resolve().name.partition("@")[0]
    name = re.sub(r"-\d{5}-of-\d{5}$", "", Path(source).name.removesuffix(".gguf"))
    return re.sub(r"[-.](f32|f16|bf16)$", "", name, flags=re.IGNORECASE)
