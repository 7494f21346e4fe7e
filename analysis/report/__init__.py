"""Makes report.html, one self-contained page with all results and runs; docs/report.md describes it."""

from analysis.report.page import report

__all__ = ["report"]
