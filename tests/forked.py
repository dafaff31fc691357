"""Starts the program as `python -m` does, but from a process that has imported the libraries already: each line of
input is a request, each line of output the exit code of a process that was forked for it.

W&B is not imported, since what it sets up when it is imported belongs to one process.
"""

import gc
import json
import os
import runpy
import signal
import sys

import accelerate  # noqa: F401
import hydra  # noqa: F401
import pandas as pd  # noqa: F401
import scipy.stats  # noqa: F401
import torch
import transformers  # noqa: F401

torch.optim.AdamW([torch.zeros(1)])  # imports what torch imports with the first optimizer
gc.freeze()  # no fork searches for garbage what is imported, which would copy its memory

for line in sys.stdin:
    request = json.loads(line)
    if process := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
        continue
    signal.alarm(request["seconds"])  # ends a process that hangs
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, file in ((1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[1:1] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = ["", *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    sys.exit()
