"""Measurements for people: a table in the terminal, and one HTML page. This room reads rows and nothing else."""

from thriftbit.report.document import summary_document
from thriftbit.report.family import rows_about
from thriftbit.report.identity import identity
from thriftbit.report.page import is_report, render_page, write_report
from thriftbit.report.summary import Summary, summarize
from thriftbit.report.terminal import TerminalReport

__all__ = [
    "Summary",
    "TerminalReport",
    "identity",
    "is_report",
    "render_page",
    "rows_about",
    "summarize",
    "summary_document",
    "write_report",
]
