"""What can be set about an answer is checked before it is sent."""

from __future__ import annotations

import pytest

from thriftbit.errors import UsageError
from thriftbit.runtime.chat_settings import parse_assignments, parse_setting


def test_settings_have_their_kinds() -> None:
    found = parse_assignments(("temperature=0.2", "Top_K=5", "think=on", "seed=7"))
    assert found == {"temperature": 0.2, "top-k": 5, "think": True, "seed": 7}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("heat", "1", "there is no setting 'heat'; there are temperature"),
        ("temperature", "hot", "temperature takes a number from 0 to 10, and not 'hot'"),
        ("temperature", "nan", "temperature takes"),
        ("temperature", "-1", "temperature takes"),
        ("top-k", "1.5", "top-k takes a whole number"),
        ("think", "maybe", "think takes on or off"),
        ("max-tokens", "0", "max-tokens takes a whole number from 1"),
    ],
)
def test_others_are_refused_with_what_would_do(name: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_setting(name, value)


def test_an_assignment_has_a_value() -> None:
    with pytest.raises(UsageError, match="write NAME=VALUE"):
        parse_assignments(("temperature",))
