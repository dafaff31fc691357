"""`make verify`: runs repeated for real, byte for byte here, within a tolerance elsewhere, or refused."""

from pathlib import Path

import pytest
from rich.console import Console

from experiments.config.compose import compose
from experiments.config.errors import ConfigError
from experiments.evaluation.repeat import TOLERANCE, repeat
from experiments.evaluation.single_prompt import passkey_model
from experiments.recording.record import Record, to_json
from experiments.training.execute import execute
from experiments.training.run_spec import resolve
from experiments.verify import main
from tasks.data.source import write_atomically
from tests.conftest import CACHE, CONFIGURATION, ENVIRONMENT, tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """A finished run of a few steps."""
    overrides = tiny(tmp_path, "tracking=none")
    return execute(resolve(compose(overrides), overrides), Console(quiet=True))


def rewrite(record: Record, name: str, **changes: object) -> None:
    """Change a file of a record as if it had been written so."""
    write_atomically(record.folder / name, to_json(record.read(name) | changes))
    record.set_status("finished")


def verify(record: Record, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main([record.id, "--outputs", str(record.folder.parents[2])])
    return code, capsys.readouterr().err


def test_a_run_is_repeated_byte_for_byte(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = verify(record, capsys)
    assert code == 0 and "repeated byte for byte" in told
    rows = record.metrics_file.read_text().replace('"step": 4', '"step": 5')
    record.metrics_file.write_text(rows)
    rewrite(record, "summary.json", parameters=1)
    code, told = verify(Record(record.folder), capsys)
    assert code == 1 and "metrics.jsonl differs" in told and "summary.json: parameters differs" in told


def test_on_another_machine_metrics_may_differ_a_little(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = record.summary["metrics"]
    name, value = next(iter(metrics.items()))
    rewrite(record, "environment.json", processor="another")
    for factor, code in ((1 + TOLERANCE / 2, 0), (1 + 2 * TOLERANCE, 1)):
        rewrite(record, "summary.json", metrics=metrics | {name: value * factor})
        ended, told = verify(record, capsys)
        assert ended == code and "within 2%" in told and (f"{name}: " in told) == bool(code)


def test_what_cannot_be_repeated_is_one_line(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(record, "environment.json", code="older", data="elsewhere")
    code, told = verify(record, capsys)
    assert code == 1 and "its code differ from today's" in " ".join(told.split())
    assert main(["none", "--outputs", str(record.folder.parents[2])]) == 1
    assert "RUN=none: no finished run" in capsys.readouterr().err


def test_a_run_that_starts_from_another_is_repeated_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [
        "experiment=context_extension",
        "scale=smoke",
        "model.width=32",
        "extension=2",
        "tracking=none",
        "threads=1",
    ]
    overrides += ["position=rope", "threads=1", f"outputs={tmp_path}", f"cache={CACHE}"]
    code, told = verify(execute(resolve(compose(overrides), overrides), Console(quiet=True)), capsys)
    assert code == 0 and "repeated byte for byte" in told


def test_settings_and_code_are_compared_before_the_data_is_built(
    record: Record, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(record, "environment.json", data="elsewhere")
    code, told = verify(Record(record.folder), capsys)
    assert code == 1 and "its data differ from today's" in " ".join(told.split())
    monkeypatch.setattr("experiments.evaluation.repeat.spec_of", None)  # builds the data
    for name in ("settings", "code", "precision"):
        rewrite(record, "environment.json", **{name: "older"})
        code, told = verify(Record(record.folder), capsys)
        assert code == 1 and name in told


def test_an_evaluation_is_not_repeated_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(tmp_path / "runs" / "evaluate_passkey" / "0123456789ab")
    record.begin(CONFIGURATION | {"name": "evaluate_passkey", "pretrained": "mine"}, ENVIRONMENT)
    record.metrics_file.write_text("")
    record.finish({"metrics": {}, "evaluations": {"0": {}}, "parameters": 0, "steps": 0, "seconds": 0.0}, {})
    code, told = verify(record, capsys)
    assert code == 1 and "is an evaluation of a model from outside" in " ".join(told.split())


def test_a_record_cannot_have_anything_called(tmp_path: Path) -> None:
    """Of a folder that someone else has made: nothing of it is built before it is checked."""
    (tmp_path / "hubconf.py").write_text(f"open({str(tmp_path / 'called')!r}, 'w')\ndef mine(): pass")
    hostile = {"_target_": "torch.hub.load", "repo_or_dir": str(tmp_path), "model": "mine", "source": "local"}
    record = Record(tmp_path / "runs" / "mine" / "0123456789ab")
    record.begin(CONFIGURATION | {"name": "mine", "training": {}, "data": hostile}, ENVIRONMENT)
    record.metrics_file.write_text("")
    record.finish({"metrics": {}, "evaluations": {"0": {}}, "parameters": 0, "steps": 0, "seconds": 0.0}, {})
    for call in (lambda: repeat(record, str(tmp_path), Console()), lambda: passkey_model(record.folder)):
        with pytest.raises(ConfigError, match=r"data\._target_=torch\.hub\.load is not allowed"):
            call()
    assert not (tmp_path / "called").exists()
