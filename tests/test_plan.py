"""What a plan says is what a hand would say, and what a run then takes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from experiments.config.build import build
from experiments.config.cache import composition
from experiments.config.errors import ConfigError
from experiments.cost.loads import loads_of, together
from experiments.cost.machine import ACCELERATORS, Machine, accelerator, this_machine
from experiments.cost.recall import fused_attention, recalled
from experiments.cost.stand_in import source_of, task_of, without_checkpoint
from experiments.cost.trace import Work, traced
from experiments.cost.workload import Reader, Workload, depths, nats, stream, workload
from experiments.plan import Row, checked, planned_of, table
from experiments.records.memory import process_peak
from experiments.sweeps.grid import jobs
from models.attention.base import SHORT
from models.state import leaves
from tasks.base import Reading
from tasks.data.tokens import TokenizedCorpus
from tests.conftest import ROOT, Program

PLAN = "experiments.plan"
FLAT = Machine(0.0, 0.0, 1e-9, 0.0, 0.0, 0.0, 1e12, 2, "flat")


class Tokens:
    """A task of random tokens (2, 32), read once in evaluation."""

    model_arguments = {"vocabulary_size": 64}  # noqa: RUF012

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        return {"tokens": torch.zeros(2, 32, dtype=torch.long), "targets": torch.zeros(2, 32, dtype=torch.long)}

    def loss(self, model, batch, state):
        return F.cross_entropy(model(batch["tokens"])[0].flatten(0, 1), batch["targets"].flatten()), None

    def readings(self, model) -> list[Reading]:
        return [Reading(2, 32, times=3)]


def decoder(layers: int) -> dict:
    config = composition(("experiment=positions", "scale=smoke", "position=none"), 0, "")
    return {
        "model": config["model"] | {"layers": layers},
        "training": {"steps": 5, "evaluate_at": [0], "accumulation": None},
    }


def planned(config: dict, precision: str = "fp32") -> Workload:
    return workload(config, precision, Tokens(), lambda model: build(model, **Tokens.model_arguments))


def test_the_products_of_a_decoder_are_those_of_the_formula() -> None:
    """Of 2 × 32 tokens at width 32 and 4 layers: 12 w² a token and layer, 2 T w for attention, and the vocabulary."""
    tokens, length, width, layers, vocabulary = 64, 32, 32, 4, 64
    forward = 2 * tokens * (layers * (12 * width**2 + 2 * length * width) + vocabulary * width)
    found = planned(decoder(layers))
    assert found.training.flops == pytest.approx(5 * 3 * forward)
    assert found.evaluation.flops == pytest.approx(2 * 3 * forward)
    assert found.seen == 5 * tokens and found.steps == 5


@pytest.mark.parametrize("attention", ["full", "infini_delta", "transformer_xl", "linear", "recurrent_memory"])
def test_the_products_are_those_that_torch_counts(attention: str) -> None:
    config = composition(("experiment=memory_lm", "scale=smoke", f"attention={attention}"), 0, "")
    with torch.device("meta"):
        model = build(config["model"], vocabulary_size=64)
        tokens = torch.zeros(2, 128, dtype=torch.long)

    def step() -> None:
        model(tokens)[0].sum().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    assert traced(step)[0].flops == counter.get_total_flops() > 0


@pytest.mark.parametrize("model", ["decoder", "densenet", "bart", "primera"])
def test_what_is_recalled_is_what_was_traced(model: str) -> None:
    """The work to the last byte and the storage to a thousandth, the first time and when all is known."""
    images = model == "densenet"
    experiment = "activation_images" if images else "summarization"
    config = without_checkpoint(composition((f"experiment={experiment}", "scale=smoke", f"model={model}"), 0, ""))
    with torch.device("meta"):
        model_ = build(config["model"], **({"channels": 1, "classes": 10} if images else {"vocabulary_size": 512}))
        given = torch.zeros(2, 1, 32, 32) if images else torch.zeros(2, 64, dtype=torch.long)

    def step() -> None:
        made = model_(given) if images else model_(given, target=given[:, :8])[0]
        made.sum().backward()
        model_.zero_grad()

    traced(step)  # tables of positions are made once
    work, peak = traced(step)
    for _ in range(2):
        again, peak_again = recalled(step)
        assert again == work and peak_again == pytest.approx(peak, rel=1e-3)


def test_many_layers_are_as_one_and_two_say() -> None:
    config = decoder(5)
    with torch.device("meta"):
        model = build(config["model"], vocabulary_size=64)
    found = planned(config)
    assert len(depths(config["model"])) == 2
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.weights == 4 * found.parameters and found.optimizer == 2 * found.weights


def test_memory_is_that_of_a_real_step() -> None:
    config, task = decoder(2), Tokens()
    model = build(config["model"], **task.model_arguments)

    def step() -> None:
        task.loss(model, task.batch(0), None)[0].backward()
        model.zero_grad()

    _, real = traced(step)
    assert planned(config).step == pytest.approx(real, rel=0.1)
    assert planned(config, "bf16").step < planned(config).step
    halved = decoder(2) | {"training": config["training"] | {"accumulation": 2}}
    assert planned(halved).step < 0.8 * planned(config).step
    assert planned(halved).training.flops == pytest.approx(planned(config).training.flops)


def test_memory_of_evaluation_is_that_of_a_real_reading() -> None:
    """Of a batch far larger than that of training, which it then decides on."""

    class Evaluated(Tokens):
        def readings(self, model) -> list[Reading]:
            return [Reading(16, 64)]

    config = decoder(2)
    model, tokens = build(config["model"], **Tokens.model_arguments), torch.zeros(16, 64, dtype=torch.long)
    with torch.no_grad():
        _, real = traced(lambda: nats(model(tokens)[0], tokens))
    found = workload(config, "fp32", Evaluated(), lambda model: build(model, **Tokens.model_arguments))
    assert found.reading == pytest.approx(real, rel=0.2)  # few keys have weights, made otherwise on processors
    assert found.memory == found.weights + found.optimizer + found.reading > planned(config).memory


def test_attention_over_many_keys_is_what_a_processor_makes_of_it() -> None:
    """Work and storage, forwards and backwards, half of the products where a query sees what is before it: there each
    score is worked out once and then again for its gradient, and none is kept. Without the mode all are."""

    def step(device: str) -> None:
        x = torch.zeros(1, 2, 2 * SHORT, 16, device=device, requires_grad=True)
        F.scaled_dot_product_attention(x, x, x, is_causal=True).sum().backward()

    step("cpu")
    with fused_attention(on_gpu=False):
        found = recalled(lambda: step("meta"))
    (operations, flops, moved, _), peak = traced(lambda: step("cpu"))
    assert found == (Work(operations, flops / 2, moved, 3 * 2 * (2 * SHORT) ** 2 / 2), peak)
    assert recalled(lambda: step("meta"))[1] > 10 * found[1]


def test_pieces_that_are_not_looked_at_go_on_as_the_last_ones_do() -> None:
    """A state that grows makes every piece dearer than the last by the same; one that does not, none."""
    pieces = [Work(1, 10.0 + 5 * index, 0) for index in range(10)]
    assert stream(pieces[:3], 10).flops == sum(work.flops for work in pieces)
    assert stream([Work(1, 7, 0), Work(1, 9, 0), Work(1, 9, 0)], 10).flops == 7 + 9 * 9


@pytest.mark.parametrize(("tokens", "pieces"), [(64, 40), (1024, 8)])
def test_a_long_text_is_as_many_pieces_as_it_has(tokens: int, pieces: int) -> None:
    """Before the keys are too many to keep all scores, where that is so, and long after it."""
    config = composition(("experiment=memory_lm", "scale=smoke", "attention=full"), 0, "")
    with torch.device("meta"):
        model = build(config["model"], vocabulary_size=64)
        source = torch.zeros(1, tokens, dtype=torch.long)
    state, by_hand, peak = None, Work(), 0
    with torch.no_grad(), fused_attention(on_gpu=False):
        for _ in range(pieces):
            made: list = []
            given = sum(x.nbytes for x in leaves(state))
            work, most = recalled(lambda before=state, made=made: made.append(model(source, before)[1]))
            by_hand, peak, state = by_hand.and_also(work), max(peak, given + most), made[0]
        reader = Reader(model, [])
        found = reader.work(Reading(1, tokens, pieces=pieces, generated=1))
        found = found.and_also(reader.known[1, tokens, False][1], -1)  # the token
    assert found == pytest.approx(by_hand, rel=1e-3)
    assert by_hand.scores > 0 and reader.peak == pytest.approx(peak, rel=1e-3)


def test_a_search_is_all_that_it_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its work is that of its trainings, its memory that of the largest; and what is known is found out by no one."""
    monkeypatch.setattr("experiments.loads.FILE", tmp_path / "workloads.json")
    planned = [one for _, one in planned_of(jobs("activation_search", "smoke", str(tmp_path)), str(tmp_path))]
    (found,) = loads_of(planned)
    search = planned[0].config["search"]
    trained = search["trials"] + 2 + (2 + search["keep"]) * search["repeats"] * len(search["larger"])
    assert found.begun == trained and found.steps == trained * planned[0].config["training"]["steps"]
    monkeypatch.setattr("experiments.loads.found_out", None)
    assert loads_of(planned) == [found]
    small, large = Workload(weights=1, step=3, steps=2), Workload(weights=2, step=2, steps=5)
    assert together([(small, 4), (large, 1)])[:9] == (0, 2, 0, 3, 0, 0, 0, 13, 5)


def test_processes_of_a_plan_wait_for_no_thread_of_their_parent() -> None:
    """A fork has none of the threads that torch has begun to compute with."""
    code = """import torch
from experiments.pool import of_all
def used(size): return torch.ones(size).add(1).sum().item()
used(2**24)
print(of_all(used, [2**24, 2**24]))"""
    command, threads = [sys.executable, "-c", code], os.environ | {"OMP_NUM_THREADS": "2"}
    ended = subprocess.run(command, cwd=ROOT, env=threads, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "[33554432.0, 33554432.0]\n", ended.stderr


def test_hours_are_the_work_over_what_a_machine_does() -> None:
    h100 = accelerator("h100")
    assert h100.seconds(Workload(training=Work(0, 0.4 * 989e12, 0))) == pytest.approx(1)
    assert h100.seconds(Workload(evaluation=Work(200_000, 0, 0))) == pytest.approx(1)
    assert h100.seconds(Workload(begun=3)) == pytest.approx(3)
    assert all(0 < accelerator(name).flop < 1e-12 for name in ACCELERATORS)
    with pytest.raises(ConfigError, match="ACCELERATOR=h10 is not known; the nearest is"):
        accelerator("h10")


def row(experiment: str, finished: bool, flops: float, seconds: float = 1.0) -> Row:
    record = SimpleNamespace(
        finished=finished, summary={"seconds": seconds, "peak_bytes": 10**9}, environment={"resident_bytes": 6 * 10**8}
    )
    config = {"task": {"_target_": "tasks.language_modeling.LanguageModeling"}}
    return Row(experiment, SimpleNamespace(record=record, config=config), Workload(training=Work(1, flops, 0)))


def test_only_what_is_not_finished_is_to_go_and_the_sum_is_of_all() -> None:
    rows = [row("a", True, 1e12), row("a", False, 36e12), row("b", False, 3.6e12)]
    lines = [list(column.cells) for column in table(rows, FLAT, "laptop").columns]
    cells = {line[0]: line for line in zip(*lines)}
    assert cells["a"][1:3] == ("2", "1") and cells["b"][1:3] == ("1", "0") and cells["sum"][1:3] == ("3", "1")
    assert (cells["a"][-1], cells["b"][-1], cells["sum"][-1]) == ("5.00", "0.50", "5.50")
    assert cells["sum"][5] == "39.6 T"


def test_what_does_not_fit_is_marked() -> None:
    found = table([row("a", False, 1e9)], FLAT._replace(memory=-1), "laptop")
    assert "*" in next(iter(found.columns[-1].cells)) and "a does not fit" in str(found.caption)
    assert not table([row("a", False, 1e9)], FLAT, "laptop").caption


@pytest.mark.parametrize(("trained", "memory", "ratio"), [(5 * 10**8, "600 MB", "0.60"), (8 * 10**8, "800 MB", "0.80")])
def test_plan_stands_beside_fact(trained: int, memory: str, ratio: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of memory what the run's process held before it, 600 MB, or what this one holds if that is more."""
    monkeypatch.setattr("psutil.Process.memory_info", lambda self: SimpleNamespace(rss=trained))
    columns = checked([row("a", True, 2e9, 4.0), row("a", False, 1e9)], FLAT, "laptop").columns
    cells = [next(iter(column.cells)) for column in columns]
    assert cells[:5] == ["a", "1", "2", "4", "0.50"] and cells[6:] == [memory, "1 GB", ratio]


def test_memory_that_was_given_back_is_no_peak_of_what_comes_after() -> None:
    from experiments.records.memory import reset_peak

    reset_peak()
    before = process_peak()
    held = torch.ones(2**26)
    assert process_peak() >= before + 2**27
    del held


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "huge"], "scale=huge: no such choice"),
        (["--accelerator", "h10"], "ACCELERATOR=h10 is not known; the nearest is 'h100'"),
        (["--only", "position"], "only=position: no such experiment; the nearest is 'positions'"),
    ],
)
def test_a_wrong_name_is_one_line(arguments: list[str], message: str, program: Program) -> None:
    ended = program(*arguments, module=PLAN)
    assert ended.returncode == 1 and message in ended.stderr and "Traceback" not in ended.stderr


def test_a_plan_of_every_scale_is_printed(program: Program, tmp_path: Path) -> None:
    """Each experiment on a line of its own. Nothing is run, and nothing is asked of the hub."""
    scales = "smoke,laptop,gpu,paper"
    asked = ("--scale", scales, "--only", "linear_attention,properties", "--accelerator", "h100")
    ended = program(*asked, "--outputs", str(tmp_path), module=PLAN)
    assert ended.returncode == 0, ended.stderr
    assert [f"scale={scale}" in ended.stdout for scale in scales.split(",")] == [True] * 4
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert sum(line[:1] == ["linear_attention"] and len(line) > 10 for line in lines) == 4
    assert not (tmp_path / "runs").exists()


def test_this_machine_is_measured() -> None:
    """No coefficient is negative, a run takes time, and a product of matrices no longer than it may on any machine."""
    machine = this_machine()
    assert min(machine[:6]) >= 0 and 0 < machine.flop < 1e-9 and machine.memory > 0
    assert re.search("measured in .* small pieces of work", machine.source)


def test_a_plan_leaves_the_tokens_of_the_hubs_texts_alone(tmp_path: Path) -> None:
    """A run after it would take a stand-in's for them."""
    config = composition(("experiment=positions", "scale=gpu", "position=none"), 0, "")
    settings = config["task"] | {"cache": str(tmp_path)}
    task = task_of(json.dumps(config["data"]), json.dumps(settings))
    kept = {folder.name for folder in (tmp_path / "tokens").iterdir()}
    real = TokenizedCorpus(source_of(json.dumps(config["data"])), settings["vocabulary_size"], str(tmp_path))
    assert kept == {task.corpus.folder.name} != {real.folder.name}
