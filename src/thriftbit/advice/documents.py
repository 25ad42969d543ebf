"""Advice as JSON documents, for programs: what `thriftbit fit --json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from thriftbit.advice.fit import Advice
from thriftbit.advice.options import Option
from thriftbit.advice.ranking import Ranked
from thriftbit.advice.wording import difference, next_command, reason, running_command


def advice_document(advice: Advice) -> dict[str, Any]:
    choice, outline = advice.choice, advice.outline
    return {
        "model": outline.model.source,
        "architecture": outline.model.architecture,
        "parameters": outline.model.parameters,
        "active_parameters": round(advice.options[0].shape.active_parameters),
        "context_tokens": advice.context_tokens,
        "born_small": outline.born and {**asdict(outline.born), "advice": outline.born.advice},
        "note": outline.note,
        "obstacle": outline.obstacle,
        "memory_for_models_bytes": advice.room.main,
        "gpu_memory_for_models_bytes": advice.room.gpu,
        "measured": advice.is_measured,
        "options": [_option_document(option) for option in advice.options],
        "worth_choosing": [option.name for option in advice.shown],
        "recommended": choice.option and choice.option.name,
        "reason": reason(advice),
        "misses": list(choice.misses),
        "better": choice.better and difference(advice, choice.better, better=True),
        "cheaper": choice.cheaper and difference(advice, choice.cheaper, better=False),
        "faster": choice.faster and difference(advice, choice.faster, better=False),
        "would_fit": list(advice.rescue),
        "next": next_command(advice),
        "then": running_command(advice),
    }


def _option_document(option: Option) -> dict[str, Any]:
    memory, place = option.memory, option.place
    return {
        "precision": option.name,
        "same_file_as": list(option.same),
        "bits_per_weight": round(option.bits_per_weight, 4),
        "size_bytes": asdict(option.size),
        "memory_bytes": {
            "weights": memory.weights,
            "copied_weights": memory.copied,
            "cache": memory.cache,
            "compute": memory.compute,
            "gpu_scratch": memory.gpu_scratch if place.gpu_layers else 0,
            "other": memory.other,
            "lasting": asdict(memory.lasting),
            "resident": asdict(memory.resident),
        },
        "fits": place.where,
        "gpu_layers": place.gpu_layers,
        "expert_layers_in_main_memory": place.expert_layers,
        "gpu_bytes": place.gpu_bytes,
        "main_memory_bytes": place.main_bytes,
        "plan": asdict(option.plan) | {"options": option.plan.options()},
        "tokens_per_second": asdict(option.speed) | {"provenance": option.speed_provenance},
        "prompt_tokens_per_second": asdict(option.prefill),
        "first_token_seconds": asdict(option.first_token),
        "joules_per_token": asdict(option.energy),
        "loss": asdict(option.loss.share) | {"provenance": option.loss.provenance},
        "cache_loss": asdict(option.cache_loss),
        "as_made": option.native,
    }


def ranking_document(ranked: Sequence[Ranked]) -> dict[str, Any]:
    return {"models": [_ranked_document(each) for each in ranked]}


def _ranked_document(each: Ranked) -> dict[str, Any]:
    option = each.option and _option_document(each.option)
    document = {"model": each.name, "path": str(Path(each.path)), "precision": each.level}
    return document | {"parameters": each.parameters, "option": option, "problem": each.problem}
