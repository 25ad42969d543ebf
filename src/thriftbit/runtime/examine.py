"""What this computer is, the engine in the box included: what it can use only it can say.

llama.cpp is asked in a process of its own, as always: a broken driver may take the process with it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

from thriftbit.machine.detect import detect
from thriftbit.machine.facts import BUILT_IN, EngineFound, Fact, Facts, Gpu, known, unknown
from thriftbit.runtime.engine import engine_version

_PATIENCE_SECONDS = 60.0
_QUESTION = (
    "import json, xllamacpp; print(json.dumps({'system': xllamacpp.get_system_info(), 'devices': "
    "[{**device, 'type': device['type'].name} for device in xllamacpp.get_device_info()]}, default=str))"
)
_OWN_GPU = "GGML_BACKEND_DEVICE_TYPE_GPU"


def examine() -> Facts:
    """Return the facts of this computer; what is not known says why. Never fails."""
    return with_engine(detect())


def with_engine(facts: Facts) -> Facts:
    """Return the facts, with the engine in the box, and with what it knows of a GPU that nobody else told."""
    if importlib.util.find_spec("xllamacpp") is None:
        nothing: Fact[Any] = unknown("xllamacpp is not installed; try: pip install xllamacpp", "xllamacpp")
        return replace(facts, engines=(EngineFound(BUILT_IN, "", nothing, nothing), *facts.engines))
    answer = _ask()
    version, details = known(engine_version(), "xllamacpp"), _details(answer)
    if details.value is None:  # it is there, and does not run: the notes say why
        version = unknown(details.reason, "xllamacpp")
    engine = EngineFound(BUILT_IN, "" if details.value is None else "built in", version, details)
    devices = [] if answer.value is None else answer.value["devices"]
    gpus = [device for device in devices if device["type"].endswith("GPU")]
    return replace(
        facts,
        gpus=_completed(facts.gpus, gpus),
        engines=(engine, *facts.engines),
        notes=(*facts.notes, *_notes(facts, gpus, answer)),
    )


def _ask() -> Fact[dict[str, Any]]:
    source = "llama.cpp"
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        return unknown(f"it did not answer in {_PATIENCE_SECONDS:.0f} s", source)
    if ended.returncode:
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        return unknown(f"it could not be loaded: {lines[-1][:200] if lines else f'status {ended.returncode}'}", source)
    try:
        answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return unknown("its answer is not understood", source)
    return known(answer, source)


def _details(answer: Fact[dict[str, Any]]) -> Fact[tuple[str, ...]]:
    """Return "CPU: AVX2, FMA", "GPU: NVIDIA GeForce RTX 4090"."""
    if answer.value is None:
        return Fact(None, answer.source, answer.reason)
    of_processor = answer.value["system"].rpartition("CPU :")[2].split("|")
    used = [part.partition("=")[0].strip() for part in of_processor if part.partition("=")[2].strip() == "1"]
    gpus = [f"GPU: {device['description']}" for device in answer.value["devices"] if device["type"].endswith("GPU")]
    return known((f"CPU: {', '.join(used)}", *gpus), answer.source)


def _completed(gpus: tuple[Gpu, ...], devices: list[dict[str, Any]]) -> tuple[Gpu, ...]:
    """Return the GPUs; where there is one and the engine computes on one, with what it says of its memory."""
    if len(gpus) != 1 or len(devices) != 1:
        return gpus
    gpu, device = gpus[0], devices[0]
    if gpu.memory_bytes.value is None and device["memory_total"]:
        gpu = replace(gpu, memory_bytes=known(int(device["memory_total"]), "llama.cpp"))
    if gpu.free_bytes.value is None and device["memory_free"]:
        gpu = replace(gpu, free_bytes=known(int(device["memory_free"]), "llama.cpp"))
    return (gpu,)


def _notes(facts: Facts, devices: list[dict[str, Any]], answer: Fact[dict[str, Any]]) -> list[str]:
    if answer.value is None:
        return [f"The built-in llama.cpp does not run here: {answer.reason}."]
    if facts.gpus and not devices:
        return ["The built-in llama.cpp computes on the processor only: it was built without support for this GPU."]
    return []
