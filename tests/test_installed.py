"""The package as `pip install .` puts it beside other packages: complete, and run from any folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.ledger.claims import claims
from tests.conftest import ROOT, tiny

FOLDERS = ("conf", "experiments", "models", "tasks")
OURS = (*FOLDERS, "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel of a copy of the source holds."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in OURS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-compile", "--target", str(target), str(source)], check=True, capture_output=True)
    return target


@pytest.mark.slow
def test_every_file_of_the_source_is_installed(installed: Path) -> None:
    def files(folder: Path) -> set[str]:
        found = (path for name in FOLDERS for path in (folder / name).rglob("*"))
        return {str(path.relative_to(folder)) for path in found if path.is_file() and "__pycache__" not in path.parts}

    assert files(installed) == files(ROOT)
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == set(FOLDERS)


@pytest.mark.slow
def test_a_run_and_the_ledger_work_from_another_folder(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed)}

    def call(*arguments: str) -> str:
        command = [sys.executable, "-P", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert Path(call("-c", "import experiments; print(experiments.__file__)").strip()).is_relative_to(installed)
    call("-m", "experiments.run", *tiny(tmp_path / "outputs"))
    assert len(list(tmp_path.glob("outputs/runs/positions/*/summary.json"))) == 1
    assert f"{len(claims())} not run" in call("-m", "experiments.reproduce", "--scale", "smoke", "--no-runs")
    assert (tmp_path / "outputs" / "report" / "index.html").stat().st_size > 100_000
