"""The report in a terminal: a sentence, a table that needs no knowledge of the words, and loss against size.

Everything fits from 60 columns on: where there is little room, the loss in words and its number share a cell.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from thriftbit.measurement.measurement import Measurement
from thriftbit.report.numbers import describe, describe_interval, percent, times
from thriftbit.report.summary import FileSummary, Summary
from thriftbit.report.text_plot import LONGEST_LABEL, Dot, plot
from thriftbit.report.verdict import explanation, headline, judge, recommended, right_answers
from thriftbit.report.wording import not_measurable, remarks
from thriftbit.sizes import describe_bytes
from thriftbit.strangers import harmless, shortened

WIDE = 125  # characters from which every number has a column of its own
WIDEST_PLOT = 90
NOTHING = "–"


class TerminalReport:
    """Rich prints it: `console.print(TerminalReport(summarize(rows)))`"""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary
        self.choice = recommended(summary)
        # without an original, nothing was lost that could be told: then what was measured is shown as it is
        self._alone = summary.original is None and any(file.accuracy or file.tasks for file in summary.files)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.choice:
            yield Text(harmless(headline(self.summary, self.choice), keep=""), style="bold")
            if more := explanation(self.summary, self.choice):
                yield Text(more)
            yield Text()
        yield self._table(wide=options.max_width >= WIDE)
        if dots := self._dots():
            yield Text()
            yield Text("What was lost, against the size of the file")
            yield from (Text(line, no_wrap=True) for line in plot(dots, min(options.max_width, WIDEST_PLOT)))
        yield Text()
        yield from (Text(harmless(note, keep=""), style="dim") for note in self._notes())

    def _table(self, wide: bool) -> Table:
        headings = ["file", ">size", ">memory", ">writing"]
        if self._alone:
            headings += [">perplexity", ">right answers"]
        else:
            headings += ["what it lost"]
        if wide and not self._alone:
            headings += ["KL divergence", ">same next word"]
        table = Table(box=None, pad_edge=False, padding=(0, 3 if wide else 2, 0, 0), header_style="bold")
        for heading in headings:
            table.add_column(heading.lstrip(">"), justify="right" if heading[0] == ">" else "left", overflow="fold")
        for file in self.summary.subjects:
            style = "bold" if file is self.choice else ""
            table.add_row(*(Text(harmless(cell), style) for cell in self._cells(file, wide)))
        return table

    def _cells(self, file: FileSummary, wide: bool) -> Iterator[str]:
        yield shortened(file.label, LONGEST_LABEL)
        original = self.summary.original
        share = f" {percent(file.subject.size_bytes / original.subject.size_bytes):>4}" if original and wide else ""
        yield describe_bytes(file.subject.size_bytes) + share
        yield _cost(file.cost("peak_memory"))
        ratio = file.cost("decode_rate_ratio")
        rate = _cost(file.cost("decode_rate"))
        if wide:
            yield f"{rate} {times(ratio.value or 0) if ratio else '':>5}"
        else:
            yield rate.replace(" tokens", "")
        if self._alone:
            perplexity = file.quality("perplexity", self.summary.overall)
            yield (
                f"{describe(perplexity)} ({describe_interval(perplexity)})".replace(" ()", "")
                if perplexity
                else NOTHING
            )
            yield right_answers(file) or NOTHING
            return
        loss = self.summary.loss(file)
        number = f"{describe(loss)} ({describe_interval(loss)})".replace(" ()", "") if loss else ""
        words = str(judge(loss)) if loss else NOTHING
        if not wide:
            yield f"{words}\n{number}".rstrip()
            return
        yield words
        yield number
        same = file.quality("same_top_token", self.summary.overall)
        yield describe(same) if same else ""

    def _dots(self) -> list[Dot]:
        return [
            Dot(file.label, file.subject.size_bytes, loss.value or 0.0, file is self.choice)
            for file in self.summary.files
            if (loss := self.summary.loss(file))
        ]

    def _notes(self) -> Iterator[str]:
        if self._dots():
            yield (
                "The number is the KL divergence, in nats: how far the predictions of the next token are from the "
                "original's, on average. In brackets, where it lies with 95% confidence."
            )
        if self._alone:
            yield (
                "Perplexity is how surprised the model is by the next token, on average: less is better. It compares "
                "files of one model only. To learn what a file lost: thriftbit measure FILE --against MODEL"
            )
        yield from remarks(self.summary)
        yield from not_measurable(self.summary)


def _cost(row: Measurement | None) -> str:
    return describe(row) if row else NOTHING
