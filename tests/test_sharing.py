"""Results that leave one machine: tables for a paper, folders merged, a folder to publish."""

import csv
import json
import platform
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from experiments import merge, publish, tables
from experiments.ledger.claims import FOLDER
from experiments.recording.contents import to_yaml
from experiments.recording.record import Record, records
from experiments.report.export import release
from experiments.report.export.text_tables import escaped
from tests.conftest import CACHE, ROOT, Program

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outputs(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one experiment of the ledger at smoke scale."""
    folder = tmp_path_factory.mktemp("of someone") / "outputs"
    options = ["--scale", "smoke", "--only", "masked_lm", "--outputs", str(folder)]
    ended = program(*options, module="experiments.reproduce")
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def two(outputs: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two outputs folders that share all records but one of masked_lm each."""
    folders = tmp_path / "a", tmp_path / "b"
    for index, folder in enumerate(folders):
        shutil.copytree(outputs, folder)
        shutil.rmtree(records(folder, "masked_lm")[index].folder)
    return folders


def change(record: Record, name: str, **values: Any) -> None:
    """Change a file of a record, which stays whole."""
    content = json.loads((record.folder / name).read_text()) | values
    (record.folder / name).write_text(json.dumps(content))
    record.set_status("finished")


def merged(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = merge.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_records_are_brought_together_and_kept_once(
    two: tuple[Path, Path], outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = merged(capsys, *two, "--outputs", tmp_path / "all")
    count = len(records(outputs))
    assert (code, out) == (0, f"{count} records copied, {count - 2} there already\n")
    for record in records(outputs):
        own = Record(tmp_path / "all" / "runs" / record.folder.parent.name / record.id)
        assert own.finished and own.summary == record.summary
    assert merged(capsys, *two, "--outputs", tmp_path / "all")[1].startswith("0 records copied")


def test_what_cannot_join_is_listed_with_its_reason(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two
    only = next(record for record in records(b, "masked_lm") if not (a / "runs/masked_lm" / record.id).exists())
    other = next(record for record in records(b, "masked_lm") if record.id != only.id)
    code_there = other.environment["code"]
    change(other, "environment.json", code="0123456789abcdef")
    (records(b, "properties")[0].folder / "summary.json").write_text("{")
    only.set_status("interrupted")
    code, out, _ = merged(capsys, b, "--outputs", a)
    assert code == 0 and "0 records copied" in out
    assert f"masked_lm: different code: 0123456789abcdef, not {code_there}" in out
    assert "properties: summary.json was changed after the run finished" in out
    assert "masked_lm: the run is interrupted" in out


def test_times_of_another_processor_stay_where_they_are(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = two
    for folder, processor in ((a, "one"), (b, "another")):
        record = records(folder, "masked_lm")[-1]
        shutil.copytree(record.folder, timed := folder / "runs" / "position_cost" / f"{processor:_>12}")
        change(Record(timed), "environment.json", processor=processor)
    _, out, _ = merged(capsys, b, "--outputs", a)
    assert "left out: 1 of position_cost: it measured time on another" in out


@pytest.mark.parametrize("machine", ["this one", "another"])
def test_two_results_of_one_run_are_refused_and_nothing_is_copied(
    machine: str, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """On one machine each byte counts, on two the rounding may differ."""
    a, b = two
    shared = next(record for record in records(b, "masked_lm") if (a / "runs/masked_lm" / record.id).exists())
    other = {"processor": "another"} if machine == "another" else {}
    change(shared, "environment.json", **other)
    for factor, code in ((1 + 1e-6, int(machine == "this one")), (1.5, 1)):
        own = Record(shared.folder)
        metrics = {name: value * factor for name, value in own.summary["metrics"].items()}
        change(own, "summary.json", metrics=metrics)
        before = {record.folder for record in records(a)}
        found, _, err = merged(capsys, b, "--outputs", a)
        assert found == code
        if code:
            assert re.search(r"are one run with two results: .*; remove one of them\n", err)
            assert {record.folder for record in records(a)} == before


def test_a_folder_without_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = merged(capsys, tmp_path, "--outputs", tmp_path / "all")
    assert code == 1 and "is no outputs folder: it has no folder runs" in err and not (tmp_path / "all").exists()


def test_a_release_redoes_the_ledger_and_names_no_path_and_no_user(
    outputs: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = records(outputs, "masked_lm")[0]
    tracking = record.config["tracking"] | {"entity": "someone", "notes": "mine"}
    (record.folder / "config.yaml").write_bytes(to_yaml(record.config | {"tracking": tracking}))
    record.set_status("finished")
    folder = tmp_path / "published"
    assert publish.main(["--scale", "smoke", "--outputs", str(outputs), "--to", str(folder)]) == 0
    texts = [file.read_text() for file in folder.rglob("*") if file.is_file() and file.suffix != ".gz"]
    assert not [text for text in texts if "of someone" in text or str(ROOT) in text or str(CACHE) in text]
    assert not any('"someone"' in text or "entity: someone" in text for text in texts)
    assert not any(platform.release() in text for text in texts)
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True).returncode == 0
    with tarfile.open(folder / "records.tar.gz") as archive:
        assert {member.uname for member in archive.getmembers()} == {""}
        assert not [name for name in archive.getnames() if name.endswith(".safetensors")]
        archive.extractall(tmp_path / "unpacked", filter="data")
    ended = program("--scale", "smoke", "--no-runs", "--outputs", str(tmp_path / "unpacked" / "outputs"),
                    module="experiments.reproduce")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    again = json.loads((tmp_path / "unpacked" / "outputs" / "report" / "ledger.json").read_text())
    first = json.loads((folder / "ledger.json").read_text())
    assert [each["verdict"] for each in again["claims"]] == [each["verdict"] for each in first["claims"]]
    assert first["excluded_records"] == []


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish.main(["--to", str(tmp_path)]) == 1 and "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("value", [{"path": "/home/someone/books"}, ["~/books"], "/home/someone/books"])
def test_a_path_is_cut_to_its_last_part(value: Any) -> None:
    assert "books" in str(release.without_paths(value)) and "/" not in str(release.without_paths(value))


def test_tables_are_written_for_the_ledger_and_each_experiment(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables.main(["--scale", "smoke", "--outputs", str(outputs)]) == 0
    folder = outputs / "report" / "tables"
    assert capsys.readouterr().out == f"{len(list(folder.glob('*.tex')))} tables in {folder}\n"
    head, *rows = csv.reader((folder / "masked_lm.csv").read_text().splitlines())
    assert head[:3] == ["position", "seeds", "masked/loss (nats per masked token)"]
    values = {record.environment["overrides"][3]: record.summary["metrics"] for record in records(outputs, "masked_lm")}
    for row in rows:
        shown = float(row[2].split(" ")[0].replace("−", "-"))
        assert shown == pytest.approx(values[f"position={row[0]}"]["masked/loss"], abs=0.01)
    for file in folder.glob("*.tex"):
        check_latex(file.read_text())


def test_latex_has_every_sign_that_claims_use() -> None:
    """Those that a paper's font may lack are written as commands."""
    texts = "".join(file.read_text(encoding="utf-8") for file in FOLDER.glob("*.yaml"))
    assert escaped(texts).isascii()


def check_latex(text: str) -> None:
    """Raise AssertionError unless a text is one tabular whose braces are closed and whose rows have all their cells."""
    assert text.isascii() and text.startswith(r"\begin{tabular}") and text.endswith("\\end{tabular}\n")
    bare = re.sub(r"\\[&%$#_{}]", "", text)
    depth = 0
    for sign in bare:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0
    columns = re.match(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert columns
    rows = [line for line in bare.splitlines() if line.endswith(r"\\")]
    assert rows and all(row.count("&") == len(columns[1]) - 1 for row in rows)
    assert [line for line in text.splitlines() if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
