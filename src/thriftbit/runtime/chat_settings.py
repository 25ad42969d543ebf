"""What can be set about an answer: names that people know, what they mean, and what is sensible.

Whatever is not set stays llama.cpp's own choice, which follows the file where the file says something.
"""

from __future__ import annotations

from dataclasses import dataclass

from thriftbit.errors import UsageError, enumeration, shown

Value = int | float | bool
_WORDS = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


@dataclass(frozen=True)
class Setting:
    """kind: of its value. low, high: of the value. sent_as: llama.cpp's name; "" for what is not sampling."""

    name: str
    kind: type[Value]
    low: float
    high: float
    sent_as: str
    meaning: str


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("temperature", float, 0, 10, "temperature", "how daring: 0 always takes the likeliest word"),
        Setting("top-k", int, 0, 1_000_000, "top_k", "how many of the likeliest words to choose from; 0 for all"),
        Setting("top-p", float, 0, 1, "top_p", "choose from the likeliest words that together have this probability"),
        Setting("min-p", float, 0, 1, "min_p", "leave out words less likely than this fraction of the likeliest"),
        Setting("repeat-penalty", float, 0.1, 10, "repeat_penalty", "above 1: repeat less"),
        Setting("seed", int, 0, 2**32 - 2, "seed", "the random seed, for the same answer every time"),
        Setting("max-tokens", int, 1, 1_000_000, "", "the longest answer, in tokens"),
        Setting("think", bool, 0, 1, "", "on: a model that can think first does so"),
    )
}


def parse_setting(name: str, text: str) -> tuple[str, Value]:
    """Return the setting's own name, and its value. Raises UsageError that says what would do."""
    setting = SETTINGS.get(name.lower().replace("_", "-"))
    if setting is None:
        raise UsageError(f"there is no setting {shown(name)}; there are {', '.join(SETTINGS)}")
    return setting.name, checked(setting, text)


def checked(setting: Setting, given: object) -> Value:
    """Return the value, given as text or as JSON has it."""
    try:
        value = _WORDS[str(given).lower()] if setting.kind is bool else setting.kind(str(given))
    except (ValueError, KeyError):
        value = None
    if value is None or not setting.low <= value <= setting.high:
        wanted = {bool: "on or off", int: "a whole number", float: "a number"}[setting.kind]
        span = "" if setting.kind is bool else f" from {setting.low:g} to {setting.high:,g}"
        raise UsageError(f"{setting.name} takes {wanted}{span}, and not {shown(given)}")
    return value


def parse_assignments(texts: tuple[str, ...]) -> dict[str, Value]:
    """texts: "temperature=0.2" each"""
    for text in texts:
        if "=" not in text:
            raise UsageError(f"--set {shown(text)}: write NAME=VALUE; NAME is {enumeration(list(SETTINGS))}")
    return dict(parse_setting(*text.split("=", 1)) for text in texts)
