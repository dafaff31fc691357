"""Run experiments, and judge the papers' claims from their results."""

import os

# The libraries read these variables when they are imported, so they are set before.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
