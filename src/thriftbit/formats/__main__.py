"""`python -m thriftbit.formats`: the formats as a Markdown table, for docs/formats.md."""

from __future__ import annotations

from thriftbit.formats import FORMATS


def markdown_table() -> str:
    """Return one row for each format that can be written, from the most bits to the fewest."""
    lines = [
        "| format | bits per weight | weights in a block | bytes in a block | for other widths | |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    for format in FORMATS.values():
        size = [f"{format.bits_per_weight:g}", str(format.block_size), str(format.block_bytes)]
        cells = [format.name, *size, format.fallback or "", format.summary]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table())
