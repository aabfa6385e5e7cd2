"""What a dataset is and what is wrong with it, as JSON and as one page of HTML."""

from training.report.build import build_report
from training.report.page import render_report
from training.report.write import write_report

__all__ = ["build_report", "render_report", "write_report"]
