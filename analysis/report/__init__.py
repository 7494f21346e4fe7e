"""report.html: one self-contained page that shows what happened. docs/report.md says what is on it."""

from analysis.report.page import report

__all__ = ["report"]
