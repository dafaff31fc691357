"""The page from made-up records: it holds every claim, loads nothing, and is drawn by a real browser from disk."""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import altair as alt
import pytest

from experiments.ledger.evidence import Evidence
from experiments.ledger.verdicts import judge
from experiments.recording.record import Record, to_json
from experiments.report.page.files import write_report
from experiments.report.page.run_comparison import comparable_runs
from experiments.report.runs import smooth
from experiments.sweeps.grid import Job
from tasks.data.source import write_atomically
from tests.made_up import CLAIMS, made_up, write, written


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a world in which all runs but one are finished."""
    outputs = tmp_path_factory.mktemp("outputs")
    return written(made_up(outputs), outputs)


@pytest.mark.slow
def test_the_page_holds_every_claim_in_one_small_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 3_000_000
    for claim in CLAIMS:
        assert f'id="claim-{claim.id}"' in text
    assert sorted(file.name for file in page.parent.iterdir()) == ["index.html", "ledger.json", "records.csv"]
    assert [row["claim"]["id"] for row in json.loads((page.parent / "ledger.json").read_text())["claims"]] == [
        claim.id for claim in CLAIMS
    ]


@pytest.mark.slow
def test_every_chart_is_a_valid_specification(page: Path) -> None:
    found = re.findall(r'id="spec-\d+"[^>]*>(.*?)</script>', page.read_text(encoding="utf-8"), flags=re.DOTALL)
    specs = [json.loads(text) for text in found]
    assert len(specs) > 40
    for spec in specs:
        alt.Chart.from_dict(spec)
    with pytest.raises(Exception, match="no such thing"):
        alt.Chart.from_dict(specs[0] | {"autosize": "no such thing"})


@pytest.mark.slow
def test_the_page_loads_nothing_and_shows_markup_as_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    markup = re.sub(r"<script( type=.module.)?>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href|url|@import)\s*[=(:]?\s*["']?\s*(?:https?:)?//""", markup)
    assert "http://" not in markup and "https://" not in markup
    assert "default-src 'none'" in html.unescape(text)
    assert "<script>alert" not in text and "<img" not in markup
    assert "ValueError: &lt;script&gt;alert(1)" in text  # among the failed runs
    assert '<td class="text">&lt;script&gt;alert(1)' in text  # in the table of samples
    assert "\\u003cscript\\u003ealert(1)" in text  # in the data of a chart


@pytest.mark.slow
@pytest.mark.parametrize("finished", [0.0, 0.3])
def test_the_page_can_be_written_while_runs_are_missing(tmp_path: Path, finished: float) -> None:
    evidence = made_up(tmp_path, finished)
    text = written(evidence, tmp_path, "smoke").read_text(encoding="utf-8")
    assert "its numbers are meaningless" in text and "not run" in text
    done = sum(record.finished for record in evidence.values())
    assert f"<dd>{done} of {len(evidence)}</dd>" in text


@pytest.mark.slow
def test_an_experiment_without_an_entry_is_shown_by_default(tmp_path: Path) -> None:
    claim = CLAIMS[0]
    comparison = replace(claim.comparisons[0], experiment="brand_new", metric="some/metric")
    job = Job("brand_new", "laptop", str(tmp_path), (("kind", "a"), ("seed", "0")))
    record = Record(tmp_path / "runs" / "brand_new" / "0")
    write(record, job)
    write_atomically(
        record.folder / "summary.json", to_json(record.summary | {"evaluations": {"1": {"some/metric": 4.0}}})
    )
    record.set_status("finished")
    evidence: Evidence = {job: Record(record.folder)}
    verdict = judge(replace(claim, comparisons=[comparison]), evidence)
    text = write_report([verdict], evidence, "laptop", tmp_path).read_text(encoding="utf-8")
    assert "Last value of some/metric" in text and text.count('data-spec="') == 2


def test_smoothing_keeps_a_constant_and_follows_a_step() -> None:
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2, 2, 2])
    followed = smooth([0.0] * 20 + [1.0] * 20)
    assert followed[19] == 0 and 0 < followed[20] < followed[25] < 1 and followed[-1] > 0.99


@pytest.mark.slow
def test_without_records_the_page_says_what_to_run(tmp_path: Path) -> None:
    evidence: Evidence = {job: Record(tmp_path / "runs" / "none") for job in made_up(tmp_path, 0.0)}
    text = written(evidence, tmp_path).read_text(encoding="utf-8")
    assert f"make reproduce OUTPUTS={tmp_path}" in text
    assert 'class="chart"' not in text and "Compare runs" not in text and "records.csv" not in text
    assert all(f'id="claim-{claim.id}"' in text for claim in CLAIMS)


@pytest.mark.slow
def test_what_is_compared_is_what_was_recorded(tmp_path: Path) -> None:
    """Configuration, last metrics and curve of a run, put together again from what the page holds."""
    evidence = made_up(tmp_path)
    compared = comparable_runs(evidence)
    texts = compared["texts"]
    records = {(job.experiment, record.id): record for job, record in evidence.items() if record.finished}
    found = [(experiment, run) for experiment in compared["experiments"] for run in experiment["runs"]]
    assert len(found) == len(records)
    for experiment, run in found:
        record = records[experiment["name"], run["id"]]
        settings = {texts[key]: texts[value] for key, value in experiment["base"]}
        for key, value in zip(run["set"][::2], run["set"][1::2]):
            settings[texts[key]] = texts[value]
        assert settings["part.kind"] == record.config["part"]["kind"]
        assert settings["seed"] == str(record.config["seed"])
        assert settings["environment.libraries.torch"] == "t"
        values = dict(zip(experiment["metrics"], run["values"]))
        assert not any(name.startswith("gates/layer_") for name in values)
        for name, value in record.summary["metrics"].items():
            if name in values and math.isfinite(value):
                assert values[name] == pytest.approx(value, rel=1e-4)
        assert all(isinstance(values[name], str) for name, value in record.summary["metrics"].items() if value != value)
        assert len(run["loss"]) <= 60
        if run["loss"]:
            assert compared["steps"][run["steps"]][-1] == record.summary["steps"]
            assert len(compared["steps"][run["steps"]]) == len(run["loss"])
    assert len(json.dumps(compared)) < 700 * len(found)  # a thousand runs leave the page below 3 MB
