"""One run and a sweep, as a user starts them: real processes, real W&B runs, real errors."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from rich.console import Console

from experiments.config.choices import CONF
from experiments.recording.record import Record, records, to_json
from experiments.run import help_as_text
from experiments.training.debugging import debugging
from tests.conftest import CACHE, ROOT, Program, tiny


def one_line(process: subprocess.CompletedProcess[str]) -> str:
    """The only line of an error, without a traceback."""
    lines = process.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    assert len(errors) == 1, process.stderr
    return errors[0]


@pytest.fixture(scope="module")
def swept(program: Program, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A sweep of four runs and its outputs."""
    outputs = tmp_path_factory.mktemp("sweep")
    return outputs, program(*tiny(outputs, "-m", "position=rope,sinusoidal", "seed=0,1"))


def test_a_sweep_finishes_every_run_and_says_where_they_lie(swept) -> None:
    outputs, process = swept
    assert process.returncode == 0, process.stderr
    found = records(outputs, "positions")
    assert len(found) == 4
    assert all(record.finished for record in found)
    for record in found:
        names = {file.name for file in record.folder.iterdir()}
        wanted = (
            "config.yaml metrics.jsonl summary.json status.json environment.json tables.json checkpoint.safetensors"
        )
        assert names >= set(wanted.split())
        assert record.summary["parameters"] > 0
        assert record.summary["tokens"] == 8 * 2 * 64
        assert str(record.folder.relative_to(outputs)).split("/")[1] in process.stderr


def test_every_run_is_a_wandb_run_with_group_job_type_tags_config_and_steps(swept) -> None:
    outputs, _ = swept
    found = {record.id: record for record in records(outputs, "positions")}
    files = {file.stem.removeprefix("run-"): file for file in (outputs / "wandb").rglob("run-*.wandb")}
    assert set(files) == set(found)
    for identifier, file in files.items():
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert shown.returncode == 0, shown.stderr
        loss = found[identifier].summary["metrics"]["nonoverlapping/loss"]
        assert str(loss)[:8] in shown.stdout
        for word in ("positions", "LanguageModeling", "position=", "smoke"):
            assert word in shown.stdout


def test_a_finished_run_is_not_run_again(swept, program: Program) -> None:
    outputs, _ = swept
    before = {record.id: record.metrics_file.stat().st_mtime_ns for record in records(outputs)}
    again = program(*tiny(outputs, "position=rope", "seed=1"))
    assert again.returncode == 0
    assert "finished before" in again.stderr
    assert {record.id: record.metrics_file.stat().st_mtime_ns for record in records(outputs)} == before


def test_the_same_seed_gives_the_same_bytes(swept, program: Program, tmp_path: Path) -> None:
    outputs, _ = swept
    assert program(*tiny(tmp_path, "position=rope", "seed=1")).returncode == 0
    (again,) = records(tmp_path)
    first = Record(outputs / "runs" / "positions" / again.id)
    assert first.metrics_file.read_bytes() == again.metrics_file.read_bytes()


@pytest.mark.parametrize("setting", ["attention.memory_length=4_000_000_000", "model.width=1_000_000"])
def test_a_run_that_memory_cannot_hold_is_refused_before_it_starts(
    setting: str, program: Program, tmp_path: Path
) -> None:
    line = one_line(program(*tiny(tmp_path, "attention=transformer_xl", "segment_length=32", "model.heads=1", setting)))
    assert " GB are free" in line
    assert not records(tmp_path)


def test_a_job_that_fails_is_told_and_the_others_go_on(program: Program, tmp_path: Path) -> None:
    sweep = ("-m", "position=rope", "model.heads=3,2", "seed=0", "tracking=none")
    process = program(*tiny(tmp_path, *sweep))
    assert process.returncode == 1
    assert [record.status for record in records(tmp_path)] == ["finished"]
    assert "32, is not divisible by the number of heads, 3" in process.stderr
    assert "1 failed, 1 finished" in process.stderr
    assert re.findall(r"│ (\S+) +│ (failed|finished) +│ (the width)", process.stderr) == [
        ("model.heads=3", "failed", "the width")
    ]
    again = program(*tiny(tmp_path, *sweep))
    assert again.returncode == 1
    assert again.stderr.count("finished before: ") == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["positon=rope"], "unknown key 'positon'; the nearest is 'position'"),
        (["seed=0,1"], "add -m to run them all"),
        (["data=pg19"], "offline: set HF_HUB_OFFLINE=0 to load it, or data.path=<folder>"),
        (["data=pg19", "data.path=nowhere"], "data.path=nowhere is not a folder"),
        (["task.stride=1000"], "task.stride must be from 1 to the window of"),
        (["model=encoder"], "the model sees the tokens that it is to predict"),
        (["model.heads=3"], "the width, 32, is not divisible by the number of heads, 3"),
    ],
)
def test_bad_input_is_one_line_before_any_work(overrides: list[str], message: str, program: Program, tmp_path) -> None:
    assert message in one_line(program(*tiny(tmp_path, *overrides)))
    assert not (tmp_path / "runs").exists() or all(not record.finished for record in records(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.depth=9"], "6n + 2 layers"),
        (["activation=expression", "activation.text=x * sigmod(x)"], "character 5: unknown function 'sigmod'"),
        (["activation=expression", "activation.text=max(x, 1 / x)"], "not finite at x = 0"),
        (["activation=expression", "activation.text=x - x"], "constant on [-10, 10]"),
    ],
)
def test_a_network_or_function_that_does_not_exist_is_refused_before_any_work(
    overrides: list[str], message: str, program: Program, tmp_path: Path
) -> None:
    line = one_line(
        program("experiment=activation_images", "scale=smoke", f"outputs={tmp_path}", f"cache={CACHE}", *overrides)
    )
    assert message in line
    assert not records(tmp_path) and not (tmp_path / "wandb").exists()


def test_a_command_without_a_word_says_what_to_give(program: Program) -> None:
    assert "say what to run, such as experiment=positions" in one_line(program())


def test_data_that_lacks_its_column_is_named(program: Program, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(f'{{"title": "{split}"}}\n')
    line = one_line(program(*tiny(tmp_path, "data=pg19", f"data.path={tmp_path}")))
    assert "lacks the column text; it has title" in line


def test_data_other_than_that_of_the_records_is_refused(swept, program: Program) -> None:
    outputs, _ = swept
    record = records(outputs)[0]
    environment = record.read("environment.json")
    file = record.folder / "environment.json"
    kept = file.read_bytes()
    try:
        file.write_bytes(to_json(environment | {"data": "0123456789abcdef"}))
        record.set_status("finished")
        assert "cannot be compared" in one_line(program(*tiny(outputs, "position=none")))
    finally:
        file.write_bytes(kept)
        record.set_status("finished")


def test_a_checkpoint_that_is_cut_short_is_named_and_nothing_is_lost(program: Program, tmp_path: Path) -> None:
    arguments = tiny(tmp_path, "tracking=none")
    assert program(*arguments).returncode == 0
    (record,) = records(tmp_path)
    metrics = record.metrics_file.read_bytes()
    record.set_status("interrupted")
    whole = record.checkpoint_file.read_bytes()
    record.checkpoint_file.write_bytes(whole[: len(whole) // 2])
    line = one_line(program(*arguments))
    assert str(record.checkpoint_file) in line
    assert "remove it to restart that run" in line
    assert record.metrics_file.read_bytes() == metrics


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_next_call_goes_on(tmp_path: Path) -> None:
    """A limit on the size of a file stands for the disk: the checkpoint is the one that does not fit."""
    command = [sys.executable, "-m", "experiments.run", *tiny(tmp_path, "tracking=none")]
    limit = "import resource, sys, os; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    limited = [sys.executable, "-c", limit + "os.execv(sys.argv[1], sys.argv[1:])", *command]
    process = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "checkpoint" in one_line(process)
    (record,) = records(tmp_path)
    assert not record.finished
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120).returncode == 0
    assert record.finished


def test_a_run_folder_is_whole_json(swept) -> None:
    outputs, _ = swept
    for record in records(outputs):
        assert record.config["seed"] in (0, 1)
        assert record.environment["data"]
        assert record.environment["libraries"]["torch"]
        for row in record.metrics():
            json.dumps(row, allow_nan=False)
    assert CACHE.exists()


def test_hydra_reads_a_command_line_where_argparse_checks_help_texts(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """As it does from Python 3.14 on."""
    add = argparse.ArgumentParser.add_argument

    def strict(parser: argparse.ArgumentParser, *names: Any, **settings: Any) -> argparse.Action:
        assert isinstance(settings.get("help", ""), str)
        return add(parser, *names, **settings)

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", strict)
    monkeypatch.setattr(sys, "argv", ["run", "--version"])
    with help_as_text(), pytest.raises(SystemExit) as ended:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda composed: None)()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"Hydra {hydra.__version__}\n"
    with pytest.raises(AssertionError):
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda composed: None)()


def test_one_batch_over_and_over_is_fitted(program: Program, tmp_path: Path) -> None:
    """The same steps on ever new batches are not."""
    settings = ["training.steps=60", "training.log_every=60", "optimizer.lr=0.01", "tracking=none"]
    losses = {}
    for debug in ("debug=overfit", "name=debug"):
        ended = program(*tiny(tmp_path / debug, debug, *settings))
        assert ended.returncode == 0, ended.stderr
        (record,) = records(tmp_path / debug, "debug")
        losses[debug] = next(row["train/loss"] for row in record.metrics() if row["step"] == 60)
    assert losses["debug=overfit"] < 1 < 4 < losses["name=debug"]


def test_a_profile_is_printed_and_written(program: Program, tmp_path: Path) -> None:
    ended = program(*tiny(tmp_path, "debug=profile", "tracking=none"))
    assert ended.returncode == 0 and "aten::mm" in ended.stderr, ended.stderr
    (record,) = records(tmp_path, "debug")
    trace = json.loads((record.folder / "profile.json").read_text())
    assert any(event.get("name") == "aten::mm" for event in trace["traceEvents"])


def test_anomalies_are_looked_for_while_a_training_runs(tmp_path: Path) -> None:
    with debugging("anomaly", None, tmp_path, Console()) as task:  # type: ignore[arg-type]
        assert task is None and torch.is_anomaly_enabled()
    assert not torch.is_anomaly_enabled()
