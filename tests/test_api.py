"""The harness in Python, and levels side by side: what a user reads, compares and loads."""

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments import compare
from experiments.api import judge, load_model, records, run
from experiments.ledger.levels import Result, factors_of, levels
from experiments.recording.metrics import HIGHER, LOWER, main_metric, meaning
from experiments.recording.record import Record
from experiments.report.export.text_tables import FORMATS, written
from experiments.report.sweep_answer import print_answer
from tests.conftest import CACHE, ROOT, tiny


def own(outputs: Path, *overrides: str) -> list[str]:
    return tiny(outputs, "training.steps=2", "tracking=none", *overrides)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two position schemes with two seeds, and one more of one of them."""
    folder = tmp_path_factory.mktemp("runs")
    for position, seeds in (("rope", (0, 1, 2)), ("alibi", (0, 1))):
        for seed in seeds:
            run(own(folder, f"position={position}", f"seed={seed}"), quiet=True)
    return folder


pytestmark = pytest.mark.slow


def test_a_run_returns_its_record_and_is_not_repeated(outputs: Path) -> None:
    first = run(own(outputs, "position=rope", "seed=0"), quiet=True)
    assert first.finished and first.summary["metrics"]["nonoverlapping/loss"] > 0
    written_at = first.metrics_file.stat().st_mtime_ns
    assert run(own(outputs, "position=rope", "seed=0"), quiet=True).metrics_file.stat().st_mtime_ns == written_at
    with pytest.raises(ValueError, match="no such choice; the nearest is 'rope'"):
        run(["experiment=positions", "position=rop"])


def test_records_are_a_table_of_levels_and_metrics(outputs: Path) -> None:
    table = records(outputs, "positions")
    assert list(table.columns[:5]) == ["experiment", "id", "status", "scale", "seed"]
    assert sorted(zip(table["position"], table["seed"])) == [
        ("alibi", 0), ("alibi", 1), ("rope", 0), ("rope", 1), ("rope", 2),
    ]  # fmt: skip
    for _, row in table.iterrows():
        record = Record(outputs / "runs" / "positions" / row["id"])
        assert row["nonoverlapping/loss"] == record.summary["metrics"]["nonoverlapping/loss"]
    assert records(outputs, "none").empty and records(outputs / "nowhere").empty


def test_a_run_that_chooses_nothing_has_its_experiments_own_levels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    default = run(own(tmp_path), quiet=True)
    run(own(tmp_path, "position=alibi", "optimizer.lr=0.5"), quiet=True)
    rate = str(default.config["optimizer"]["lr"])
    table = records(tmp_path)
    assert sorted(zip(table["position"], table["optimizer.lr"])) == [("alibi", "0.5"), ("rope", rate)]
    place = ["--scale", "smoke", "--outputs", str(tmp_path)]
    code, out, _ = compared(capsys, "positions", f"optimizer.lr=0.5,{rate}", *place)
    assert code == 0 and re.search(rf"^ *{rate} +1 ", out, re.M)


def test_a_damaged_record_is_a_row_without_figures(outputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "positions" / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("{}")
    assert records(tmp_path).to_dict("records") == [
        {"experiment": "positions", "id": "0123456789ab", "status": "damaged"}
    ]


def test_a_loaded_model_is_the_one_that_was_trained(outputs: Path) -> None:
    row = records(outputs, "positions").iloc[0]
    model, tokenizer = load_model(row["id"], outputs)
    assert not model.training and sum(weight.numel() for weight in model.parameters()) == row["parameters"]
    assert tokenizer is not None
    tokens = torch.tensor([tokenizer.encode("def loss(model, batch):").ids])
    logits, _ = model(tokens)
    assert logits.shape == (1, tokens.shape[1], tokenizer.get_vocab_size())
    with pytest.raises(ValueError, match="no finished run under"):
        load_model("0123456789ab", outputs)


def test_verdicts_are_those_of_the_ledger(outputs: Path) -> None:
    verdicts = {verdict.claim.id: verdict for verdict in judge("smoke", outputs)}
    assert len(verdicts) >= 38 and verdicts["S1"].verdict == "not run"
    with pytest.raises(ValueError, match="no such choice"):
        judge("small", outputs)


def of(factors: dict[str, str], seed: int, value: float, folder: Path) -> Result:
    record = Record(folder)
    record.__dict__["summary"] = {"metrics": {"loss": value}}
    return Result(factors, seed, record)


def test_differences_are_paired_by_seed_and_by_what_is_not_compared(tmp_path: Path) -> None:
    values = {("a", "x"): [1.0, 2.0, 4.0], ("b", "x"): [1.5, 2.6, 4.7], ("a", "y"): [3.0, 3.0, 3.0]}
    found = [
        of({"part": part, "net": net}, seed, value, tmp_path)
        for (part, net), own in values.items()
        for seed, value in enumerate(own)
    ]
    best, other = levels(found, ["part"], "loss", lower=True)
    assert best.factors == {"part": "a"} and best.estimate.mean == pytest.approx((2.0 + 2.5 + 3.5) / 3)
    assert other.estimate.n == 3 and other.difference is not None
    assert other.difference.mean == pytest.approx(0.6)  # y has no b, and takes no part
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert other.difference.high - other.difference.mean == pytest.approx(half) and other.decided
    assert levels(found, ["part"], "loss", lower=False)[0].factors == {"part": "b"}


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = compare.main(list(arguments))
    return code, *capsys.readouterr()


def test_levels_are_compared_by_a_command(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--scale", "smoke", "--outputs", str(outputs)]
    code, out, _ = compared(capsys, "positions", "position=rope,alibi", *place)
    assert code == 0 and "nonoverlapping/loss: lower is better" in out
    assert re.search(r"^ *alibi +2 ", out, re.M) and re.search(r"^ *rope +3 ", out, re.M)
    code, out, _ = compared(capsys, "positions", "position", "--format", "csv", *place)
    head, *rows = csv.reader(out.splitlines())
    assert head[:3] == ["position", "seeds", "nonoverlapping/loss, nats per token"] and len(rows) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["positons", "position"], "no finished run of positons at scale smoke"),
        (["positions", "positon"], "no run chooses positon; the nearest is 'position'"),
        (["positions", "position=rope,rop"], "no run has position=rop; the nearest is 'rope'"),
        (["positions", "--metric", "los"], "--metric los: no run has it"),
        (["positions", "--scale", "small"], "--scale=small: no such choice"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    arguments: list[str], message: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = compared(capsys, "--scale", "smoke", "--outputs", str(outputs), *arguments)
    assert code == 1 and message in err and err.count("\n") == 1


def test_of_two_runs_with_the_same_levels_the_later_one_counts(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger's own runs are those of today's code; beside them, the user's latest."""
    for width in ("model.width=32", "model.width=16"):
        run([*own(tmp_path, "position=rope", "seed=7"), width, "name=mine"], quiet=True)
    for record in [Record(folder) for folder in (tmp_path / "runs" / "mine").iterdir()]:
        environment = record.environment | {"overrides": ["experiment=mine", "seed=7", "position=rope"]}
        (record.folder / "environment.json").write_text(json.dumps(environment))
        record.set_status("finished")
    code, _, err = compared(capsys, "mine", "position", "--scale", "smoke", "--outputs", str(tmp_path))
    assert code == 0 and "1 runs are left out: later ones have the same levels and seed" in err


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_is_written_with_every_sign_of_its_cells(form: str) -> None:
    text = written(["a_b", "n, %"], [["x & y", "−0.5 [−0.6, −0.4]"], ["=1+1", "12 × 3"]], form, [(0, 1)])
    if form == "latex":
        assert r"\begin{tabular}{lr}" in text and text.count(r"\\") == 3
        assert r"x \& y & \textbf{$-$0.5 [$-$0.6, $-$0.4]} \\" in text and r"a\_b & n, \% \\" in text
        assert text.isascii()
    if form == "markdown":
        assert "| x & y | **−0.5 [−0.6, −0.4]** |" in text
    if form == "csv":
        assert list(csv.reader(text.splitlines()))[2] == ["'=1+1", "12 × 3"]


@pytest.mark.parametrize(
    ("metric", "unit", "direction"),
    [
        ("nonoverlapping/loss", "nats per token", LOWER),
        ("accuracy", "%", HIGHER),
        ("masked/accuracy", "of 1", HIGHER),
        ("digits/1024/end", "of 1", HIGHER),
        ("overall", "of 100", HIGHER),
        ("glossary", "", ""),
    ],
)
def test_a_metric_has_its_unit_and_direction(metric: str, unit: str, direction: str) -> None:
    assert meaning(metric) == (unit, direction)


def test_the_main_metric_chooses_the_learning_rate_or_has_a_direction() -> None:
    assert (
        main_metric({"tuning": {"metric": "sliding/loss"}}, ["nonoverlapping/loss", "sliding/loss"]) == "sliding/loss"
    )
    assert main_metric({"tuning": None}, ["documents", "sliding/loss", "nonoverlapping/loss"]) == "nonoverlapping/loss"
    assert main_metric({}, ["copied"]) == "copied" and main_metric({}, []) == ""


def test_a_sweep_ends_with_what_varied_and_what_it_found(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    begun = [
        {"overrides": [f"position={row['position']}", f"seed={row['seed']}", "scale=smoke", f"outputs={outputs}"],
         "record": str(outputs / "runs" / "positions" / row["id"])}
        for _, row in records(outputs, "positions").iterrows()
    ]  # fmt: skip
    print_answer([*begun, {"overrides": ["position=none"], "record": ""}], Console(width=200))
    out = capsys.readouterr().out
    head = next(line for line in out.splitlines() if "seeds" in line)
    assert re.split(r" {2,}", head.strip()) == [
        "position", "seeds", "mean", "difference",
    ]  # fmt: skip
    assert out.lstrip().startswith("nonoverlapping/loss, nats per token")
    assert f"compare: python -m experiments.compare positions position --scale smoke --outputs {outputs}" in out


def test_factors_are_what_was_chosen_and_not_where_it_ran() -> None:
    overrides = ["experiment=positions", "scale=smoke", "outputs=o", "+task.x=1", "tracking.mode=offline", "seed=3"]
    assert factors_of(overrides) == {"task.x": "1", "seed": "3"}


def test_the_package_offers_it_without_loading_torch_first() -> None:
    code = (
        "import sys, experiments; assert 'torch' not in sys.modules; "
        "print(experiments.records('nowhere').empty, callable(experiments.run), callable(experiments.load_model))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.split() == ["True", "True", "True"], ended.stderr


def test_the_notebook_of_the_docs_runs(tmp_path: Path) -> None:
    """Its cells in their order, at smoke scale into a folder of the test's own."""
    notebook = json.loads((ROOT / "docs" / "python.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    replaced = [cell.replace('"outputs"', repr(str(tmp_path))) for cell in cells]
    replaced[0] = f"{replaced[0]}\nfixed = ['cache={CACHE}', 'threads=1', 'tracking=none']"
    ended = subprocess.run([sys.executable, "-c", "\n".join(replaced)], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "rope" in ended.stdout
