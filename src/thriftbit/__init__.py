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

    from thriftbit.advice.budget import Request as Request
    from thriftbit.advice.budget import budget_for as budget_for
    from thriftbit.advice.fit import Advice as Advice
    from thriftbit.advice.fit import fit as fit
    from thriftbit.advice.options import Option as Option
    from thriftbit.advice.promises import Tried as Tried
    from thriftbit.advice.proving import Make as Make
    from thriftbit.advice.proving import Proof as Proof
    from thriftbit.advice.proving import prove as prove
    from thriftbit.advice.ready import Ready as Ready
    from thriftbit.advice.ready import ready_to_run as ready_to_run
    from thriftbit.advice.wishes import Wishes as Wishes
    from thriftbit.errors import ThriftbitError as ThriftbitError
    from thriftbit.errors import UsageError as UsageError
    from thriftbit.formats import FORMATS as FORMATS
    from thriftbit.formats.format import Format as Format
    from thriftbit.inspection import Inspection as Inspection
    from thriftbit.inspection import inspect as inspect
    from thriftbit.library.artefacts import MadeOf as MadeOf
    from thriftbit.library.explanations import Explanation as Explanation
    from thriftbit.library.explanations import explain as explain
    from thriftbit.library.explanations import explanation_of as explanation_of
    from thriftbit.library.finding import Finding as Finding
    from thriftbit.library.finding import Findings as Findings
    from thriftbit.library.finding import find as find
    from thriftbit.library.locate import Located as Located
    from thriftbit.library.locate import locate as locate
    from thriftbit.library.locate import obtain as obtain
    from thriftbit.library.pulling import pull as pull
    from thriftbit.library.removing import Removal as Removal
    from thriftbit.library.removing import removal_of as removal_of
    from thriftbit.machine.facts import Facts as Facts
    from thriftbit.machine.profile import Profile as Profile
    from thriftbit.machine.profile import profile_of as profile_of
    from thriftbit.machine.running_plan import PlanWishes as PlanWishes
    from thriftbit.machine.running_plan import RunningPlan as RunningPlan
    from thriftbit.measurement.measure import MeasureSettings as MeasureSettings
    from thriftbit.measurement.measure import measure as measure
    from thriftbit.measurement.measurement import Measurement as Measurement
    from thriftbit.progress import Progress as Progress
    from thriftbit.quantization.allocation import Allocation as Allocation
    from thriftbit.quantization.allocation import Budget as Budget
    from thriftbit.quantization.allocation import find_plan as find_plan
    from thriftbit.quantization.calibration_data import Calibration as Calibration
    from thriftbit.quantization.calibration_text import calibrate as calibrate
    from thriftbit.quantization.container import Container as Container
    from thriftbit.quantization.container import Making as Making
    from thriftbit.quantization.container import Writer as Writer
    from thriftbit.quantization.importance import ImportanceMatrix as ImportanceMatrix
    from thriftbit.quantization.importance import read_importance as read_importance
    from thriftbit.quantization.importance_file import write_importance as write_importance
    from thriftbit.quantization.model_map import map_importance as map_importance
    from thriftbit.quantization.model_map import map_model as map_model
    from thriftbit.quantization.model_map import what_a_map_takes as what_a_map_takes
    from thriftbit.quantization.plan import Plan as Plan
    from thriftbit.quantization.plan import make_plan as make_plan
    from thriftbit.quantization.presets import PRESETS as PRESETS
    from thriftbit.quantization.presets import Preset as Preset
    from thriftbit.quantization.quantize import QuantizeResult as QuantizeResult
    from thriftbit.quantization.quantize import quantize as quantize
    from thriftbit.quantization.rounded import Rounded as Rounded
    from thriftbit.quantization.same import same_plan as same_plan
    from thriftbit.quantization.sensitivity import Sensitivities as Sensitivities
    from thriftbit.quantization.tuned import tune as tune
    from thriftbit.report import write_report as write_report
    from thriftbit.report.map_page import write_map as write_map
    from thriftbit.runtime import Engine as Engine
    from thriftbit.runtime.conversation import Conversation as Conversation
    from thriftbit.runtime.examine import examine as examine
    from thriftbit.runtime.export import Export as Export
    from thriftbit.runtime.export import export as export
    from thriftbit.runtime.generation import Generation as Generation
    from thriftbit.runtime.probe import measure_machine as measure_machine
    from thriftbit.runtime.serve import Server as Server
    from thriftbit.runtime.serve import serving as serving
    from thriftbit.side_by_side.comparing import Page as Page
    from thriftbit.side_by_side.comparing import compare as compare
    from thriftbit.sources.converter.converted import ConverterOptions as ConverterOptions
    from thriftbit.sources.model import Model as Model
    from thriftbit.sources.open_model import open_model as open_model
    from thriftbit.sources.tensor import Tensor as Tensor

__version__ = "0.1.0"

# Where each public name is defined. The imports above tell type checkers the same; a test holds the two together.
_NAMES_BY_MODULE = {
    "advice.budget": "Request budget_for",
    "advice.fit": "Advice fit",
    "advice.options": "Option",
    "advice.promises": "Tried",
    "advice.proving": "Make Proof prove",
    "advice.ready": "Ready ready_to_run",
    "advice.wishes": "Wishes",
    "errors": "ThriftbitError UsageError",
    "formats": "FORMATS",
    "formats.format": "Format",
    "inspection": "Inspection inspect",
    "library.artefacts": "MadeOf",
    "library.explanations": "Explanation explain explanation_of",
    "library.finding": "Finding Findings find",
    "library.locate": "Located locate obtain",
    "library.pulling": "pull",
    "library.removing": "Removal removal_of",
    "machine.facts": "Facts",
    "machine.profile": "Profile profile_of",
    "machine.running_plan": "PlanWishes RunningPlan",
    "measurement.measure": "MeasureSettings measure",
    "measurement.measurement": "Measurement",
    "progress": "Progress",
    "quantization.allocation": "Allocation Budget find_plan",
    "quantization.calibration_data": "Calibration",
    "quantization.calibration_text": "calibrate",
    "quantization.container": "Container Making Writer",
    "quantization.importance": "ImportanceMatrix read_importance",
    "quantization.importance_file": "write_importance",
    "quantization.model_map": "map_importance map_model what_a_map_takes",
    "quantization.plan": "Plan make_plan",
    "quantization.presets": "PRESETS Preset",
    "quantization.quantize": "QuantizeResult quantize",
    "quantization.rounded": "Rounded",
    "quantization.sensitivity": "Sensitivities",
    "quantization.tuned": "tune",
    "quantization.same": "same_plan",
    "report": "write_report",
    "report.map_page": "write_map",
    "runtime": "Engine",
    "runtime.conversation": "Conversation",
    "runtime.examine": "examine",
    "runtime.export": "Export export",
    "runtime.generation": "Generation",
    "runtime.probe": "measure_machine",
    "runtime.serve": "Server serving",
    "side_by_side.comparing": "Page compare",
    "sources.converter.converted": "ConverterOptions",
    "sources.model": "Model",
    "sources.open_model": "open_model",
    "sources.tensor": "Tensor",
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}

if not TYPE_CHECKING:
    __all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
