"""A plan says what a hand calculation says, and about what a run then takes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from experiments.config.build import build
from experiments.config.cache import composition
from experiments.config.errors import ConfigError
from experiments.cost.estimate import Estimate, estimate, of_evaluation, of_training, together, trainings
from experiments.cost.machine import ACCELERATORS, Machine, accelerator, this_machine
from experiments.cost.memory import step_bytes
from experiments.cost.op_tracer import trace
from experiments.cost.synthetic_data import task_of
from experiments.ledger.runs import expected
from experiments.measurements.tensor_memory import peak_bytes
from experiments.plan import Row, main, rows_of, table
from experiments.recording.memory import process_peak, reset_peak
from tasks.base import Reading
from tests.conftest import ROOT, Program

PLAN = "experiments.plan"
FLAT = Machine(1e-9, 0.0, 0.0, 1e12, 2, "flat")


class Tokens:
    """A task of tokens (2, 32) in a vocabulary of 64; evaluation reads three batches."""

    model_arguments = {"vocabulary_size": 64}  # noqa: RUF012

    def batch(self, step: int) -> dict[str, Tensor]:
        return {"tokens": torch.zeros(2, 32, dtype=torch.long), "targets": torch.zeros(2, 32, dtype=torch.long)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], state: Any) -> tuple[Tensor, Any]:
        return F.cross_entropy(model(batch["tokens"])[0].flatten(0, 1), batch["targets"].flatten()), None

    def readings(self, model: nn.Module) -> list[Reading]:
        return [Reading(2, 32, times=3)]


def decoder(device: str = "meta", layers: int = 4) -> nn.Module:
    config = composition(("experiment=positions", "scale=smoke", "position=none"), 0, "")
    with torch.device(device):
        return build(config["model"] | {"layers": layers}, vocabulary_size=64)


def test_the_products_of_a_decoder_are_those_of_the_formula() -> None:
    """Of 2 × 32 tokens at width 32: 12 w² per token and layer, 2 T w for attention, and the vocabulary. A causal mask
    hides up to half of attention's products."""
    tokens, length, width, layers, vocabulary = 64, 32, 32, 4, 64
    all_seen = 2 * tokens * (layers * (12 * width**2 + 2 * length * width) + vocabulary * width)
    half_seen = all_seen - 2 * tokens * layers * length * width
    found = of_training(decoder(), Tokens(), steps=5, pieces=1, precision="fp32", on_gpu=False)
    norms = 2 * tokens * width * (2 * layers + 1)  # the backward pass of each has a product with its weight
    assert 5 * 3 * half_seen <= found.flops <= 5 * (3 * all_seen + norms)
    work, _ = of_evaluation(decoder(), Tokens(), 0, on_gpu=False)
    assert 3 * half_seen <= work[0] <= 3 * all_seen


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "hidden"), [("linear", 0.0), ("infini_delta", 0.2), ("recurrent_memory", 0.2)])
def test_the_products_are_those_that_torch_counts(attention: str, hidden: float) -> None:
    """Without those that a causal mask hides, which are at most the share `hidden`."""
    config = composition(("experiment=memory_lm", "scale=smoke", f"attention={attention}"), 0, "")
    with torch.device("meta"):
        model = build(config["model"], vocabulary_size=64)
        tokens = torch.zeros(2, 128, dtype=torch.long)

    def step() -> None:
        model(tokens)[0].sum().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    counted = counter.get_total_flops()
    assert (1 - hidden) * counted <= trace(step, on_gpu=True).work[0] <= counted != 0


def test_further_layers_are_like_the_second() -> None:
    """Estimated with one layer and with two."""
    config = composition(("experiment=positions", "scale=smoke", "position=none"), 0, "")
    deep = config | {"model": config["model"] | {"layers": 5}}
    found = {layers: only(config | {"model": config["model"] | {"layers": layers}}) for layers in (1, 2)}
    expected = 4 * found[2].flops - 3 * found[1].flops
    assert only(deep).flops == pytest.approx(expected)
    assert only(deep).parameters == 4 * found[2].parameters - 3 * found[1].parameters


@pytest.mark.slow
def test_memory_of_many_layers_is_that_of_a_step() -> None:
    """Even where reading long sequences for evaluation takes more than a step in a model of one layer or two."""
    config = composition(("experiment=extrapolation", "scale=smoke"), 0, "")
    task = task_of(json.dumps(config["data"]), json.dumps(config["task"]))
    with torch.device("meta"):
        model = build(config["model"] | {"layers": 20}, **task.model_arguments)
    step = of_training(model, task, config["training"]["steps"], 1, "fp32", on_gpu=False)
    found = only(config | {"model": config["model"] | {"layers": 20}})
    assert found.memory == pytest.approx(step.memory, rel=0.02)


def only(config: dict[str, Any]) -> Estimate:
    """The estimate of a run that is one training."""
    ((settings, times),) = trainings(config, "fp32")
    assert times == 1
    return estimate(settings)


def test_memory_is_that_of_a_real_step_within_a_factor_of_two() -> None:
    task = Tokens()

    def step(model: nn.Module) -> None:
        device = next(model.parameters()).device
        task.loss(model, {name: x.to(device) for name, x in task.batch(0).items()}, None)[0].backward()

    real, sketch = peak_bytes(lambda: step(decoder("cpu"))), decoder()
    weights = sum(parameter.nbytes for parameter in sketch.parameters())
    found = trace(lambda: step(sketch), on_gpu=False)
    assert real / 2 < step_bytes(found, weights, "fp32") < 2 * real
    assert step_bytes(found, weights, "bf16") < step_bytes(found, weights, "fp32")


def test_half_a_batch_at_a_time_takes_less_memory_and_as_many_products() -> None:
    whole, halved = (of_training(decoder(), Tokens(), 5, pieces, "fp32", on_gpu=False) for pieces in (1, 2))
    assert halved.memory < 0.9 * whole.memory
    assert halved.flops == pytest.approx(whole.flops)


def test_a_search_is_all_that_it_trains() -> None:
    """Its work is the sum of its trainings, its memory that of the largest."""
    config = composition(("experiment=activation_search", "scale=smoke"), 0, "")
    search = config["search"]
    times = [times for _, times in trainings(config, "fp32")]
    assert times == [search["trials"] + 2, *[(2 + search["keep"]) * search["repeats"]] * len(search["larger"])]
    small, large = Estimate(parameters=1, memory=3, flops=5), Estimate(parameters=2, memory=2, flops=7)
    found = together([(small, 4), (large, 1)])
    assert (found.parameters, found.memory, found.flops) == (2, 3, 27)


@pytest.mark.slow
def test_processes_of_a_plan_wait_for_no_thread_of_their_parent() -> None:
    """A fork has none of the threads that torch and the tokenizers have begun to compute with."""
    code = """import torch
from tokenizers import Tokenizer, models
from experiments.cost.estimate import on_all_cores
def used(size):
    Tokenizer(models.WordLevel({"a": 0}, "a")).encode_batch(["a"] * 1000)
    return torch.ones(size).add(1).sum().item()
used(2**24)
print(on_all_cores(used, [2**24, 2**24]))"""
    command, threads = [sys.executable, "-c", code], os.environ | {"OMP_NUM_THREADS": "2"}
    ended = subprocess.run(command, cwd=ROOT, env=threads, capture_output=True, text=True, timeout=120)
    assert ended.stdout == "[33554432.0, 33554432.0]\n", ended.stderr


def test_hours_are_the_work_over_what_a_machine_does() -> None:
    h100 = accelerator("h100")
    assert h100.seconds(Estimate(flops=0.4 * 989e12)) == pytest.approx(1)
    assert h100.seconds(Estimate(operations=200_000)) == pytest.approx(1)
    assert all(0 < accelerator(name).flop < 1e-12 for name in ACCELERATORS)
    with pytest.raises(ConfigError, match="ACCELERATOR=h10 is not known; the nearest is"):
        accelerator("h10")


def row(experiment: str, finished: bool, flops: float, seconds: float = 1.0) -> Row:
    record = SimpleNamespace(finished=finished, summary={"seconds": seconds})
    return Row(experiment, SimpleNamespace(record=record), Estimate(flops=flops, operations=1))


def cells_of(rows: list[Row]) -> dict[str, tuple[str, ...]]:
    """The cells of each line of the table, by the first."""
    lines = zip(*(list(column.cells) for column in table(rows, FLAT, "laptop").columns))
    return {line[0]: line for line in lines}


def test_finished_runs_are_done_and_the_sum_is_of_all() -> None:
    cells = cells_of([row("a", True, 1e12), row("a", False, 36e12), row("b", False, 3.6e12)])
    assert cells["a"][1:3] == ("2", "1") and cells["b"][1:3] == ("1", "0") and cells["sum"][1:3] == ("3", "1")
    assert (cells["a"][6], cells["b"][6], cells["sum"][6]) == ("5.00", "0.50", "5.50")
    assert cells["sum"][5] == "39.6 T"


def test_what_does_not_fit_is_marked() -> None:
    found = table([row("a", False, 1e9)], FLAT._replace(memory=-1), "laptop")
    assert "*" in next(iter(found.columns[4].cells)) and "a does not fit" in str(found.caption)
    assert not table([row("a", False, 1e9)], FLAT, "laptop").caption


def test_plan_stands_beside_fact() -> None:
    """Of finished runs that took 4 and 1 seconds, and were planned to take 2 and 1."""
    cells = cells_of([row("a", True, 2e9, 4.0), row("a", False, 1e9), row("b", True, 1e9), row("c", False, 1e9)])
    assert [cells[name][-1] for name in ("a", "b", "c", "sum")] == ["0.50", "1.00", "", "0.60"]


def test_freed_memory_is_not_part_of_a_later_peak() -> None:
    reset_peak()
    before = process_peak()
    held = torch.ones(2**26)
    assert process_peak() >= before + 2**27
    del held


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "huge"], "scale=huge: no such choice"),
        (["--accelerator", "h10"], "ACCELERATOR=h10 is not known; the nearest is 'h100'"),
        (["--only", "position"], "only=position: no such choice; the nearest is 'positions'"),
    ],
)
def test_a_wrong_name_is_one_line(arguments: list[str], message: str, program: Program) -> None:
    ended = program(*arguments, module=PLAN)
    assert ended.returncode == 1 and message in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_plan_of_every_scale_is_printed(program: Program, tmp_path: Path) -> None:
    """Each experiment on a line of its own. Nothing is run or downloaded."""
    scales = "smoke,laptop,gpu,paper"
    chosen = ("--scale", scales, "--only", "linear_attention,properties", "--accelerator", "h100")
    ended = program(*chosen, "--outputs", str(tmp_path), module=PLAN)
    assert ended.returncode == 0, ended.stderr
    assert [f"scale={scale}" in ended.stdout for scale in scales.split(",")] == [True] * 4
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert sum(line[:1] == ["linear_attention"] and len(line) >= 7 for line in lines) == 4
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_this_machine_is_measured() -> None:
    """No rate is negative, and no machine multiplies faster than 10¹² operations in a nanosecond."""
    machine = this_machine()
    assert min(machine[:3]) >= 0 and 0 < machine.flop < 1e-9 and machine.memory > 0
    assert re.search("measured in .* small pieces of work", machine.source)


@pytest.mark.slow
def test_a_plan_leaves_no_tokens_where_a_run_looks_for_its_own(tmp_path: Path) -> None:
    """A run after it would train on synthetic tokens."""
    config = composition(("experiment=positions", "scale=gpu", "position=none"), 0, "")
    task = task_of(json.dumps(config["data"]), json.dumps(config["task"] | {"cache": str(tmp_path)}))
    assert task.batch(0)["tokens"].shape[1] == config["task"]["length"]
    assert not list(tmp_path.rglob("*"))


@pytest.mark.slow
def test_trials_on_validation_documents_are_planned(tmp_path: Path) -> None:
    trial = next(job for job in expected(["code_summarization"], "laptop", str(tmp_path)) if job.trial)
    assert rows_of([trial], str(tmp_path))[0].needed.flops > 0


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True])
def test_a_plan_needs_no_data(begun: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where a learning rate that trials on the hub's data have chosen cannot be looked up."""
    if begun:
        (tmp_path / "runs").mkdir()
    options = ["--scale", "gpu", "--only", "masked_lm", "--accelerator", "h100", "--outputs", str(tmp_path)]
    assert main(options) == 0
    assert "masked_lm" in capsys.readouterr().out
