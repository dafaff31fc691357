"""What people look at: the table in the terminal, ledger.json and the page."""

from experiments.report.page import write_report
from experiments.report.terminal import terminal_table

__all__ = ["terminal_table", "write_report"]
