"""`make dashboard`: open the report page in the browser or, in a terminal without one, W&B's dashboard of all runs."""

import argparse
import os
import subprocess
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from experiments.tracking.offline import local_folder, run_files


def main(arguments: Sequence[str]) -> int:
    """Show the results in <outputs>; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.dashboard", description=__doc__)
    parser.add_argument("outputs", nargs="?", default="outputs")
    outputs = Path(parser.parse_args(arguments).outputs).resolve()
    page = outputs / "report" / "index.html"
    if page.exists() and graphical() and webbrowser.open(page.as_uri()):
        print(f"opened {page}")
        return 0
    if not run_files(str(outputs)):
        print(f"error: there is nothing to show in {outputs} yet: run `make reproduce` first", file=sys.stderr)
        return 1
    return subprocess.run([sys.executable, "-m", "wandb", "leet", str(local_folder(outputs))], check=False).returncode


def graphical() -> bool:
    """Whether there is a graphical display; a text browser cannot draw the page's charts."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
