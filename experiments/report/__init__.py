"""What people look at: the table in the terminal, the page, W&B's workspace and report, and files to take away."""
