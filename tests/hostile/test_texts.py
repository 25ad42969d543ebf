"""Text files that are none, or in no encoding we read: one ThriftbitError that names the file and says what to do."""

from __future__ import annotations

import codecs
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from thriftbit.errors import ThriftbitError
from thriftbit.measurement.texts import read_text

FIXTURE_ONCE = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refusal(path: Path) -> str:
    with pytest.raises(ThriftbitError) as caught:
        read_text(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (codecs.BOM_UTF8, "is empty"),
        (codecs.BOM_UTF16_LE, "is empty"),
        (b" \n\t\r\n", "nothing but white space"),
        ("\u3000\u00a0\n".encode(), "nothing but white space"),
        ("naïve".encode("latin-1"), "is not UTF-8: byte 2 (0xef) does not fit. Save it as UTF-8"),
        ("价格".encode("gb18030"), "is not UTF-8: byte 0 (0xbc)"),
        (codecs.BOM_UTF8 + b"abc\xff", "is not UTF-8: byte 6 (0xff)"),
        ("cut short: é".encode()[:-1], "is not UTF-8: byte 11 (0xc3)"),
        (b"\xed\xa0\x80", "is not UTF-8: byte 0 (0xed)"),  # half of a UTF-16 pair
        (b"abc\0def", "is no text: byte 3 is zero"),
        (codecs.BOM_UTF8 + "é\0".encode(), "byte 5 is zero"),
        ("UTF-16 without its mark".encode("utf-16-le"), "UTF-16 must begin with its byte order mark"),
        (codecs.BOM_UTF16_LE + "ab\0".encode("utf-16-le"), "byte 6 is zero"),
        (codecs.BOM_UTF16_LE + "odd".encode("utf-16-le") + b"x", "is not UTF-16: byte 8 (0x78)"),
        (codecs.BOM_UTF16_BE + b"\xd8\x00\x00a", "is not UTF-16: byte 2 (0xd8)"),
        (codecs.BOM_UTF32_LE + "text".encode("utf-32-le"), "is UTF-32"),
        (codecs.BOM_UTF32_BE + "text".encode("utf-32-be"), "is UTF-32"),
        (b"GGUF\x03\x00\x00\x00", "is no text: byte 5 is zero"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is not UTF-8: byte 0 (0x89)"),
    ],
)
def test_what_is_no_text_is_refused_with_the_reason(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "letters.txt"
    path.write_bytes(content)
    assert expected in refusal(path)


def test_the_offset_is_right_far_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    for before in ("é" * 700_001, "x" + "é" * 700_001, "€" * 699_051):  # over the border of the pieces it is read in
        path.write_bytes(before.encode() + b"\xfe...")
        assert f"byte {len(before.encode())} (0xfe)" in refusal(path)
        path.write_bytes(before.encode() + b"\xe2\x82")
        assert f"byte {len(before.encode())} (0xe2)" in refusal(path)
        path.write_bytes(before.encode() + b"\0")
        assert f"byte {len(before.encode())} is zero" in refusal(path)


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    assert "no such file; the texts in the box are prose, code, math, multilingual" in refusal(tmp_path / "none.txt")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(ThriftbitError, match="cannot be read"):
        read_text(name)


def test_the_empty_name() -> None:
    with pytest.raises(ThriftbitError, match="is a folder"):
        read_text("")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("text")
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_an_endless_file_is_read_as_far_as_needed(tmp_path: Path) -> None:
    path = tmp_path / "endless.txt"
    with path.open("wb") as file:
        file.write(b"word " * 1_000_000)
        file.truncate(1 << 40)  # zeros, and nearly nothing on the disk
    tracemalloc.start()
    try:
        text = read_text(str(path), limit_characters=2_000_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text.text) == 2_000_000
    assert peak_bytes < 16 << 20
    assert "is zero" in refusal(path)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda raw: b"Some text. " + raw))
@example(b"\xff\xfe\x00\x00")
@FIXTURE_ONCE
def test_any_bytes_are_text_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.txt"
    path.write_bytes(content)
    try:
        text = read_text(str(path)).text
    except ThriftbitError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert text.strip() and "\0" not in text
        assert content.endswith((text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be")))


@given(st.text(min_size=1, max_size=100).filter(lambda text: text.strip() and "\0" not in text))
@FIXTURE_ONCE
def test_any_text_survives(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.txt"
    marks = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    for encoding, mark in marks.items():
        path.write_bytes(mark + text.encode(encoding))
        assert read_text(str(path)).text == text
