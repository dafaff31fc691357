"""W&B's workspace, report and summary runs."""
