"""Run experiments, and judge the papers' claims from their results.

In Python: `run`, `records`, `judge` and `load_model`, from experiments/api.py.
"""

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

# A command, so `python -m`, in a Python without the libraries: most likely the environment is not activated.
if sys.argv[:1] == ["-m"] and not importlib.util.find_spec("torch"):
    sys.exit(f"{sys.executable} has no torch: `make setup`, then `source .venv/bin/activate`")

# The libraries read these variables when they are imported, so they are set before.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

if TYPE_CHECKING:
    from experiments.api import judge, load_model, records, run

__all__ = ["judge", "load_model", "records", "run"]


def __getattr__(name: str) -> Any:
    """Import the interface when it is used: it needs torch, which takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'experiments' has no attribute '{name}'")
    from experiments import api

    return getattr(api, name)
