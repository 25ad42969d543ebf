"""Thriftbit: quantize a language model on an ordinary computer, and see what it cost.

    import thriftbit

    model = thriftbit.open_model("./my-model")
    plan = thriftbit.make_plan(model, "Q4_K_M")
    thriftbit.quantize(model, plan, "my-model-Q4_K_M.gguf")

Each name is loaded when it is first used: importing the package costs nothing, and loads neither torch nor an engine.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which takes ten milliseconds to load: Ctrl-C in them would be a traceback

if TYPE_CHECKING:
    from typing import Any

    from thriftbit.advice.budget import Request, budget_for
    from thriftbit.advice.fit import Advice, fit
    from thriftbit.advice.ready import ready_to_run
    from thriftbit.advice.wishes import Wishes
    from thriftbit.errors import ThriftbitError, UsageError
    from thriftbit.formats import FORMATS
    from thriftbit.inspection import inspect
    from thriftbit.library.explanations import explain
    from thriftbit.library.finding import find
    from thriftbit.library.locate import locate, obtain
    from thriftbit.library.pulling import pull
    from thriftbit.library.removing import removal_of
    from thriftbit.machine.profile import profile_of
    from thriftbit.measurement.measure import MeasureSettings, measure
    from thriftbit.measurement.measurement import Measurement
    from thriftbit.quantization.allocation import Budget, find_plan
    from thriftbit.quantization.importance import ImportanceMatrix, read_importance
    from thriftbit.quantization.importance_file import write_importance
    from thriftbit.quantization.model_map import map_importance, map_model
    from thriftbit.quantization.plan import Plan, make_plan
    from thriftbit.quantization.presets import PRESETS
    from thriftbit.quantization.quantize import QuantizeResult, quantize
    from thriftbit.quantization.same import same_plan
    from thriftbit.report import write_report
    from thriftbit.report.map_page import write_map
    from thriftbit.runtime import Engine
    from thriftbit.runtime.conversation import Conversation
    from thriftbit.runtime.examine import examine
    from thriftbit.runtime.export import Export, export
    from thriftbit.runtime.probe import measure_machine
    from thriftbit.side_by_side.comparing import compare
    from thriftbit.sources.model import Model
    from thriftbit.sources.open_model import open_model
    from thriftbit.sources.tensor import Tensor

__version__ = "0.1.0"

__all__ = [
    "FORMATS",
    "PRESETS",
    "Advice",
    "Budget",
    "Conversation",
    "Engine",
    "Export",
    "ImportanceMatrix",
    "MeasureSettings",
    "Measurement",
    "Model",
    "Plan",
    "QuantizeResult",
    "Request",
    "Tensor",
    "ThriftbitError",
    "UsageError",
    "Wishes",
    "budget_for",
    "compare",
    "examine",
    "explain",
    "export",
    "find",
    "find_plan",
    "fit",
    "inspect",
    "locate",
    "make_plan",
    "map_importance",
    "map_model",
    "measure",
    "measure_machine",
    "obtain",
    "open_model",
    "profile_of",
    "pull",
    "quantize",
    "read_importance",
    "ready_to_run",
    "removal_of",
    "same_plan",
    "write_importance",
    "write_map",
    "write_report",
]
_HOMES = {
    "Conversation": "runtime.conversation",
    "ready_to_run": "advice.ready",
    "Budget": "quantization.allocation",
    "Advice": "advice.fit",
    "Wishes": "advice.wishes",
    "examine": "runtime.examine",
    "measure_machine": "runtime.probe",
    "profile_of": "machine.profile",
    "fit": "advice.fit",
    "FORMATS": "formats",
    "PRESETS": "quantization.presets",
    "Engine": "runtime",
    "Export": "runtime.export",
    "ImportanceMatrix": "quantization.importance",
    "MeasureSettings": "measurement.measure",
    "Measurement": "measurement.measurement",
    "Model": "sources.model",
    "Plan": "quantization.plan",
    "QuantizeResult": "quantization.quantize",
    "Request": "advice.budget",
    "Tensor": "sources.tensor",
    "ThriftbitError": "errors",
    "UsageError": "errors",
    "budget_for": "advice.budget",
    "compare": "side_by_side.comparing",
    "explain": "library.explanations",
    "export": "runtime.export",
    "find": "library.finding",
    "find_plan": "quantization.allocation",
    "inspect": "inspection",
    "locate": "library.locate",
    "obtain": "library.locate",
    "pull": "library.pulling",
    "removal_of": "library.removing",
    "make_plan": "quantization.plan",
    "map_importance": "quantization.model_map",
    "map_model": "quantization.model_map",
    "measure": "measurement.measure",
    "open_model": "sources.open_model",
    "quantize": "quantization.quantize",
    "read_importance": "quantization.importance",
    "same_plan": "quantization.same",
    "write_importance": "quantization.importance_file",
    "write_map": "report.map_page",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
