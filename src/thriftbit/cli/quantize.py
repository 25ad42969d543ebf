"""`thriftbit quantize`: a model goes in, a quantized GGUF comes out."""

from __future__ import annotations

import logging
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import thriftbit
from thriftbit.cli.completion import complete_models, complete_presets
from thriftbit.cli.options import (
    budget_options,
    converter_options,
    encoding_threads_option,
    json_option,
    offline_option,
    work_options,
)
from thriftbit.cli.printing import print_json, say
from thriftbit.cli.progress import ProgressLine
from thriftbit.cli.prove import check_wishes, describe_effort, prove_and_print
from thriftbit.cli.quantize_output import print_plan, print_result
from thriftbit.cli.questions import model_here
from thriftbit.containers.atomic_file import check_target, folder_for
from thriftbit.errors import UsageError
from thriftbit.strangers import quoted

_logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from thriftbit import ImportanceMatrix, Make, Model, Plan, Progress
    from thriftbit.advice.budget import Request
    from thriftbit.quantization.allocation import Allocation
    from thriftbit.quantization.calibration_data import Calibration
    from thriftbit.quantization.rounded import Rounded
    from thriftbit.sources.converter import ConverterOptions


@click.command(short_help="Make a GGUF file that llama.cpp, Ollama and LM Studio run.")
@click.argument("source", metavar="MODEL", shell_complete=complete_models)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write; MODEL-PRESET.gguf or MODEL-4.50bpw.gguf by default.",
)
@click.option(
    "--to",
    "preset",
    metavar="PRESET",
    shell_complete=complete_presets,
    help="How small, for example Q4_K_M. Leave it out to see the choices. same: keep weights that are small already.",
)
@budget_options
@click.option("--imatrix", type=click.Path(path_type=Path), help="Importance data that llama-imatrix wrote.")
@click.option(
    "--effort",
    type=click.Choice(["plain", "calibrated", "tuned"]),
    show_default="plain; for a budget calibrated",
    help="calibrated: run the model on text first, and round each matrix as a whole; minutes to hours, needs torch. "
    "tuned: layer by layer, each corrects the errors of the layers before it; several times as long.",
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
@click.option(
    "--prove",
    is_flag=True,
    help="Make the file that `fit` names for --min-speed and --max-loss, measure both here, and try the next if one is "
    "missed; exit code 3 if no file meets them.",
)
@click.option("--no-mtp", is_flag=True, help="Leave out layers that guess the tokens after the next (MTP).")
@click.option("--dry-run", is_flag=True, help="Show the plan and the exact size; write nothing.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@encoding_threads_option
@work_options
@click.option("--allow-requantize", is_flag=True, help="Accept a GGUF that is quantized already; quality suffers.")
@offline_option
@converter_options
@click.option("--no-check", is_flag=True, help="Do not compare the file with the original at the end.")
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
    prove: bool,
    no_mtp: bool,
    dry_run: bool,
    force: bool,
    threads: int | None,
    work: dict[str, Any],
    allow_requantize: bool,
    offline: bool,
    converter: ConverterOptions,
    no_check: bool,
    as_json: bool,
    request: Request,
) -> int:
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
      thriftbit quantize ./my-model --min-speed 30 --max-loss 2% --context 8k --prove
      thriftbit quantize ./my-model --to Q5_K_M --dry-run
      thriftbit quantize ./gpt-oss-20b --to same               weights that come packed, unchanged
      thriftbit quantize ./my-model                            explains the presets
    """
    if prove:
        others = {"--to": preset, "--plan": plan_file, "--imatrix": imatrix, "--save-imatrix": save_imatrix}
        check_wishes(request, others | {"--dry-run": dry_run})
    else:
        _check_choice(preset, plan_file, request)
    insists = effort == "plain"
    if effort is None or (calibrate_on and effort == "plain" and not request):  # with a budget it is the map's text
        effort = "calibrated" if calibrate_on or (request and not imatrix and not prove) else "plain"
    calibrated = effort != "plain"
    if calibrated and imatrix:
        raise UsageError(f"--imatrix and --effort {effort} both say what matters; give one of them")
    if save_imatrix and not calibrated:
        raise UsageError("--save-imatrix writes what calibration finds; add --effort calibrated")
    if preset and not (calibrated or imatrix or insists or dry_run):
        _refuse_without_importance(preset)
    from thriftbit.library.inventory import check_quantizable

    importance = thriftbit.read_importance(imatrix) if imatrix else None
    asked, source = source, model_here(source, offline=offline, yes=True)
    check_quantizable(source)
    model = thriftbit.open_model(
        source,
        offline=offline,
        allow_requantize=allow_requantize,
        converter=converter,
        next_token_layers=not no_mtp,
    )
    if prove:
        way = describe_effort(effort, calibrate_on)
        make, name = _maker(effort, calibrate_on, threads, work), _name_of(source, asked)
        return prove_and_print(model, request, way, make, output, name, force, as_json)
    found = None
    if dry_run and request and (missing := thriftbit.what_a_map_takes(model, effort, calibrate_on)):
        _print_missing_map(asked, missing, as_json)
        return 0
    if request:
        found, importance = _best(model, request, effort, importance, calibrate_on, work)
    plan = found.plan if found else _plan(model, preset, plan_file, importance is not None or calibrated)
    level = f"{plan.bits_per_weight(model):.2f}bpw" if found else plan.preset
    if _is_same(preset):
        level = plan.most_common_format(model)
    output = output or Path(f"{_name_of(source, asked)}-{level}.gguf")
    if dry_run:
        print_plan(model, plan, importance, effort, output, as_json, found)
        if calibrated and not as_json:
            _say_what_calibration_takes(model, calibrate_on, effort)
        return 0
    with folder_for(output):
        calibration, rounded = None, None
        if calibrated:
            check_target(output, output, force)  # before the long run, and not only after it
            if save_imatrix:
                check_target(save_imatrix, save_imatrix, force)
            calibration, rounded = _learn(model, plan, calibrate_on, effort, work)
            if save_imatrix:
                text = calibrate_on.name if calibrate_on else "thriftbit's calibration texts"
                thriftbit.write_importance(calibration, save_imatrix, text=text, force=force)
        with _target(model, output, force, no_check) as target, ProgressLine() as line:
            result = thriftbit.quantize(
                model,
                plan,
                target,
                importance=importance,
                calibration=calibration,
                rounded=rounded,
                without_importance=insists,
                threads=threads,
                workers=work["workers"],
                memory_bytes=work["memory_bytes"],
                force=force,
                check=not no_check,
                progress=line.update,
            )
    result = replace(result, path=output)
    if rounded:
        rounded.discard()
    print_result(model, plan, result, as_json, found)
    return 0


def _maker(effort: str, text: Path | None, threads: int | None, work: dict[str, Any]) -> Make:
    """Return what makes a file for a proof, with this effort."""

    def make(model: Model, plan: Plan, path: Path, progress: Progress) -> None:
        calibration, rounded = _learn(model, plan, text, effort, work) if effort != "plain" else (None, None)
        options: dict[str, Any] = {"calibration": calibration, "rounded": rounded, "threads": threads}
        options |= {"workers": work["workers"], "memory_bytes": work["memory_bytes"]}
        thriftbit.quantize(model, plan, path, **options, without_importance=True, progress=progress)
        if rounded:
            rounded.discard()

    return make


def _refuse_without_importance(preset: str) -> None:
    """Raises NeedsImportanceError for a preset that needs importance data, before a model is opened or downloaded."""
    from thriftbit.quantization.importance_needed import NeedsImportanceError, refusal
    from thriftbit.quantization.preset_names import preset_named

    if not _is_same(preset) and (chosen := preset_named(preset)).wants_importance:
        raise NeedsImportanceError(refusal(chosen.name, chosen.most))


def _is_same(preset: str | None) -> bool:
    """Return whether the weights are to be kept as they are."""
    return preset is not None and preset.lower() == "same"


def _print_missing_map(source: str, missing: str, as_json: bool) -> None:
    """A dry run computes nothing long, and a budget needs a map of the model."""
    command = f"thriftbit map {quoted(source)}"
    if as_json:
        print_json({"written": False, "needs": command, "takes": missing})
        return
    say(f"Nothing was computed. A budget needs a map of the model, which is not here yet: {missing}.")
    say(f"  {command}")
    say("After that, a dry run takes seconds. Without --dry-run, the map is made first.")


def _say_what_calibration_takes(model: Model, text: Path | None, effort: str) -> None:
    from thriftbit.quantization import calibration_text, tuned

    windows = tuned.WINDOWS if effort == "tuned" else calibration_text.WINDOWS
    say(f"  first {calibration_text.what_calibration_takes(model, text, windows)}")


def _target(model: Model, output: Path, force: bool, no_check: bool) -> AbstractContextManager[Path]:
    """Return where to write the file; what llama.cpp's converter made is proven before it gets its name."""
    if model.conversion is None or no_check:
        return nullcontext(output)
    from thriftbit.measurement.proof import proven

    return proven(model, output, force)


def _check_choice(preset: str | None, plan_file: Path | None, request: Request) -> None:
    """What is wrong with the request is said before a model is opened, perhaps downloaded."""
    request.check()
    if request and (preset or plan_file):
        raise UsageError(f"{'--to' if preset else '--plan'} and a budget both choose the formats; give one of them")
    if preset and plan_file:
        raise UsageError("--to and --plan both choose the formats; give one of them")
    if preset:
        from thriftbit.quantization.preset_names import preset_named

        if not _is_same(preset):
            preset_named(preset)
    elif not plan_file and not request:
        from thriftbit.quantization.preset_sizes import describe_presets

        raise UsageError(
            "say how small with --to PRESET, or with --size, --bpw or --max-loss; Q4_K_M suits most people. "
            f"The presets, and how many gigabytes each takes per billion parameters:\n\n{describe_presets()}"
        )


def _best(
    model: Model,
    request: Request,
    effort: str,
    importance: ImportanceMatrix | None,
    text: Path | None,
    work: dict[str, Any],
) -> tuple[Allocation, ImportanceMatrix | None]:
    """Return the best plan, and for plain rounding the importance data that the map was made with."""
    budget = thriftbit.budget_for(model, request)
    with ProgressLine() as line:
        known = thriftbit.map_model(model, effort, text, **work, progress=line.update)
    if effort == "plain" and importance is None:
        importance = thriftbit.map_importance(model, text)
    return thriftbit.find_plan(model, known, budget, effort, importance), importance


def _plan(model: Model, preset: str | None, plan_file: Path | None, knows_importance: bool) -> Plan:
    from thriftbit.quantization.plan_summary import describe_fallbacks

    if _is_same(preset):
        return thriftbit.same_plan(model)
    if preset:
        plan = thriftbit.make_plan(model, preset, importance=knows_importance)
        if note := describe_fallbacks(model, thriftbit.PRESETS[plan.preset], knows_importance):
            _logger.info(note)
        return plan
    assert plan_file is not None
    return thriftbit.Plan.from_file(plan_file, model)


def _learn(
    model: Model, plan: Plan, text: Path | None, effort: str, work: dict[str, Any]
) -> tuple[Calibration, Rounded | None]:
    """Return the calibration, and for `tuned` what was rounded with it."""
    from thriftbit.quantization import calibration_text, tuned

    windows = tuned.WINDOWS if effort == "tuned" else calibration_text.WINDOWS
    with ProgressLine() as line:
        calibration = thriftbit.calibrate(model, text, windows=windows, **work, progress=line.update)
    if effort != "tuned":
        return calibration, None
    with ProgressLine() as line:
        rounded = thriftbit.tune(model, plan, calibration, **work, progress=line.update)
    return calibration, rounded


def _name_of(source: str, asked: str) -> str:
    """Return the model's name: the folder's, the repository's, or the file's without its level and part. asked: what
    the user typed, which names it where the file is named by its content, as Ollama's are."""
    if Path(source).name.startswith("sha256-"):
        return re.sub(r"[^\w.-]+", "-", asked)
    if not Path(source).is_file():
        return Path(source).resolve().name.partition("@")[0]
    name = re.sub(r"-\d{5}-of-\d{5}$", "", Path(source).name.removesuffix(".gguf"))
    return re.sub(r"[-.](f32|f16|bf16)$", "", name, flags=re.IGNORECASE)
