"""`python -m experiments.passkey_once RUN_FOLDER [length=1000000] [depth=start] [key=90541]`: one passkey prompt.

The model of a finished run reads the whole prompt and answers. Prints the answer, the time, and the peak memory.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.config.command import command
from experiments.evaluation.single_prompt import answer, passkey_model, prompt_of
from experiments.recording import environment


@command
def main(arguments: Sequence[str]) -> int:
    """Evaluate the prompt; returns the exit code."""
    if not arguments or "=" in arguments[0]:
        print(__doc__, file=sys.stderr)
        return 2
    prompt = prompt_of(arguments[1:])
    environment.use_threads(None)
    task, model, precision = passkey_model(Path(arguments[0]))
    found = answer(task, model, precision, prompt)
    right = found.digits.replace(" ", "") == str(prompt.key)
    print(f"{prompt.length:,} tokens, key {prompt.key} at the {prompt.depth}")
    print(f"answer: {found.digits} ({'right' if right else 'wrong'})")
    print(f"{found.seconds:.1f} s on {torch.get_num_threads()} threads, {prompt.length / found.seconds:,.0f} tokens/s")
    print(f"peak memory: {found.peak / 1e6:,.0f} MB in addition to model and prompt")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
