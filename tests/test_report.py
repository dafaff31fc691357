"""The page from made-up records: it holds every claim, loads nothing, and is drawn by a real browser from disk."""

import html
import itertools
import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import pytest

from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.verdicts import judge
from experiments.recording.record import Record, to_json
from experiments.report.page.files import write_report
from experiments.report.page.run_comparison import comparable_runs
from experiments.report.runs import smooth
from experiments.sweeps.grid import Job
from tasks.data.source import write_atomically
from tests.conftest import CONFIGURATION, ENVIRONMENT

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
SWEEPS: dict[str, dict[str, tuple[str, ...]]] = {
    "properties": {
        "task.property": (
            "swish_shape",
            "monotonicity",
            "swish_by_beta",
            "position_similarity",
            "three_apart",
            "attention_by_rows",
            "rotary_distance",
            "rotary_reach",
            "cached_decoding",
            "memory_size",
            "delta_rewrite",
        ),
        "seed": ("0",),
    },
    "activation_images": {"activation": ("relu", "silu", "swish"), "model.depth": ("8", "14"), "seed": ("0", "1")},
    "activation_networks": {"activation": ("relu", "swish"), "model": ("resnet", "efficientnet"), "seed": ("0",)},
    "gradient_flow": {
        "activation": ("relu", "silu"),
        "model.depth": ("4", "36"),
        "training.initial_gain": ("1", "1.5"),
        "seed": ("0", "1"),
    },
    "feedforward_lm": {"feedforward": ("mlp", "glu"), "activation": ("relu", "gelu", "silu"), "seed": ("0", "1")},
    "positions": {"position": ("none", "learned", "sinusoidal", "relative_bias", "rope", HOSTILE), "seed": ("0", "1")},
    "extrapolation": {"position": ("learned", "sinusoidal", "relative_bias", "alibi", "rope"), "seed": ("0", "1")},
    "context_extension": {
        "position": ("rope", "rope_interpolated", "rope_base_500k"),
        "extension": ("2", "8"),
        "seed": ("0", "1"),
    },
    "masked_lm": {"position": ("learned", "rope"), "seed": ("0", "1")},
    "position_probes": {"position": ("learned", "rope"), "seed": ("0", "1")},
    "position_cost": {"seed": ("0", "1")},
    "memory_lm": {
        "attention": ("full", "window", "transformer_xl", "infini_linear", "infini_delta"),
        "seed": ("0", "1"),
    },
    "perplexity": {"attention": ("full", "infini_linear", HOSTILE), "seed": ("0", "1")},
    "context_cost": {"attention": ("full", "infini_delta", HOSTILE), "seed": ("0", "1")},
    "gates": {"gates": ("failing", "mended"), "seed": ("0", "1")},
    "passkey": {"attention": ("infini_linear", "infini_delta"), "seed": ("0", "1")},
    "passkey_gaps": {"attention": ("infini_linear", "infini_delta"), "seed": ("0",)},
    "passkey_controls": {"attention": ("window", HOSTILE), "seed": ("0",)},
    "summarization": {"model": ("decoder", "bart", "primera_unlimiformer", HOSTILE), "seed": ("0", "1")},
    "code_summarization": {"model": ("decoder", "bart"), "seed": ("0", "1")},
}
TABLES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "swish_shape": {
        "curves": [
            {"x": x / 4, "beta": beta, "value": x / 4 / (1 + math.exp(-float(beta) * x / 4))}
            for beta in ("0.1", "1.0", "10.0")
            for x in range(-20, 21)
        ],
    },
    "swish_by_beta": {
        "distances": [
            {"x": 10.0**i, "from": name, "value": 1.0 / (i + 9)} for i in (-1, 0) for name in ("x / 2", HOSTILE)
        ]
    },
    "monotonicity": {"falls": [{"function": HOSTILE, "falls by": 0.3}]},
    "position_similarity": {"similarities": [{"positions": HOSTILE, "x": i, "value": 1 / i} for i in (1, 2, 4)]},
    "three_apart": {"three_apart": [{"scheme": HOSTILE, "spread": 0.0}]},
    "attention_by_rows": {"attention": [{"way": HOSTILE, "tokens": 512, "operations": 9, "bytes": 9}]},
    "position_probes": {
        "similarities": [{"positions": HOSTILE, "x": i, "value": 1 / i} for i in (1, 2, 4)],
        "bands": [{"pairs": HOSTILE, "loss": 3.0}],
    },
    "rotary_distance": {"scores": [{"scheme": "rope", "alone": 0.5, "after": 0.5}, {"scheme": HOSTILE, "after": 0.1}]},
    "rotary_reach": {
        "reach": [
            {"base": base, "x": 2**i, "value": math.cos(i / size)}
            for base, size in (("1", 4), ("2", 8))
            for i in range(18)
        ]
    },
    "cached_decoding": {"caches": [{"scheme": HOSTILE, "largest_deviation": 1e-15}]},
    "extrapolation": {"by_position": [{"position": 16 + 32 * i, "loss": 4 - i / 100} for i in range(64)]},
    "position_cost": {
        "costs": [
            {
                "work": work,
                "length": length,
                "scheme": scheme,
                "tokens_per_second": 1e4,
                "speed": speed,
                "peak_bytes": 9,
                "memory": 1.0,
            }
            for work in ("training", "evaluation", "decoding")
            for length in (256, 1024)
            for scheme, speed in (("sinusoidal", 1.0), ("rope", 0.9), ("alibi", 0.8), (HOSTILE, 0.5))
        ],
        "rotations": [{"head_width": 32, "length": 256, "matrix_time": 15.0, "matrix_memory": 6.4}],
    },
    "perplexity": {
        "protocol": [{"protocol": "streaming", "tokens": 9}],
        "by_position": [
            {"protocol": protocol, "position": 64 * 2**i, "loss": 4 - i / 10, "tokens": 9}
            for protocol in ("nonoverlapping", "sliding", "streaming")
            for i in range(5)
        ],
    },
    "context_cost": {
        "context_cost": [
            {
                "length": 1024 * 4**i,
                "ms_per_token": 0.02,
                "ms_per_decoded_token": 1.0,
                "state_bytes": 9000,
                "peak_bytes": 1e7,
            }
            for i in range(6)
        ]
    },
    "memory_size": {"memory": [{"mechanism": "infini", "floats": 1585152}]},
    "delta_rewrite": {"rewrites": [{"update": "delta", "keys": "orthogonal", "second write / first": 0.0}]},
    "passkey": {
        "retrieval": [
            {
                "length": 128,
                "depth": "start",
                "memory": "on",
                "first_key": "90541",
                "first_answer": "9 0 5 4 " + HOSTILE,
            }
        ]
    },
    "gradient_flow": {"gradients": [{"layer": layer, "norm": 10.0**-layer} for layer in range(1, 5)]},
    "summarization": {
        "samples": [{"document": "A text.\n" + HOSTILE, "reference": HOSTILE, "summary": HOSTILE}],
        "by_length": [{"tokens": tokens, "overall": 40 - 2000 / tokens} for tokens in (1024, 512, 256)],
    },
}


CLAIMS = claims()
SUMMARIES = ("summarization", "code_summarization")


def made_up(outputs: Path, finished: float = 1.0) -> Evidence:
    """Jobs of every experiment with their records, of which a share is finished and one has failed."""
    evidence: Evidence = {}
    for experiment, sweep in SWEEPS.items():
        for index, levels in enumerate(itertools.product(*sweep.values())):
            job = Job(experiment, "laptop", str(outputs), tuple(zip(sweep, levels)))
            record = evidence[job] = Record(outputs / "runs" / experiment / f"{index:012x}")
            if random.Random(f"{experiment} {index}").random() < finished:
                write(record, job)
    failed = replace(next(iter(evidence)), factors=(("failed", HOSTILE), ("seed", "9")))
    evidence[failed] = Record(outputs / "runs" / "failed")
    evidence[failed].set_status("failed", ValueError(HOSTILE))
    return evidence


def write(record: Record, job: Job) -> None:
    """A finished record with every metric that a claim or a chart asks of its experiment; one value is not finite."""
    chance = random.Random(str(job.factors))
    quality = random.Random(str(job.factors[:-1])).gauss(0, 0.06) + chance.gauss(0, 0.01)
    metrics = {c.metric: c.threshold for claim in CLAIMS for c in claim.comparisons if c.experiment == job.experiment}
    metrics |= {c.trials: 20.0 for claim in CLAIMS for c in claim.comparisons if isinstance(c.trials, str) and c.trials}
    metrics |= {"nonoverlapping/loss": 3.2 + quality, "nonoverlapping/perplexity": math.exp(3.2 + quality)}
    metrics |= {"accuracy": 95 + 10 * quality}
    metrics.pop("state_floats", None)  # a number of the summary
    if job.factors[0] == ("position", "none"):
        metrics["nonoverlapping/loss"] = math.nan
    first = dict(metrics)
    if job.experiment.startswith("passkey"):
        places = [f"digits/{n}/{depth}" for n in (512, 2048, 32768) for depth in ("start", "middle", "end")]
        places += ["memory_off/512/start", *(f"through_memory/{n}/digits" for n in (512, 2048, 32768))]
        metrics |= {place: chance.uniform(0.7, 1) for place in places}
        metrics["digits/512/start"] = math.inf
        first |= {place: chance.uniform(0, 0.2) for place in places}
    if job.experiment == "extrapolation":
        protocols = [f"{kind}/{n}perplexity" for kind in ("nonoverlapping", "sliding") for n in ("", "2x/", "8x/")]
        metrics |= {name: chance.uniform(30, 60) for name in protocols}
    if job.experiment == "context_extension":
        places = {f"digits/{128 * n}/start": chance.uniform(0, 1) for n in (1, 2, 8)}
        first, metrics = ({**old, "digits_beyond": chance.uniform(0, 1), **places} for old in (first, metrics))
    if job.experiment == "gates":
        heads = [f"gates/layer_{layer}/head_{head}" for layer in range(2) for head in range(2)]
        first, metrics = ({**old, **{head: chance.random() for head in heads}} for old in (first, metrics))
    if job.experiment in SUMMARIES:
        scores = ("rouge1", "rouge2", "rougeL", "rougeLsum_by_stops", "overall")
        metrics |= {f"{prefix}{s}": chance.uniform(5, 20) for prefix in ("", "baseline/lead/") for s in scores}
    summary = {
        "evaluations": {"600": first, "1100": metrics},
        "metrics": metrics,
        "parameters": 918_656,
        "seconds": 61.5,
        "steps": 1100,
        "tokens": 819_200,
        "state_floats": chance.choice((16_896, 131_072, 262_144)),
    }
    kind = job.factors[0][1]
    model = {"width": 128, "part": {"kind": kind}}
    record.begin(
        CONFIGURATION
        | {
            "name": job.experiment,
            "seed": job.seed,
            "part": {"kind": kind},
            "model": model,
            "task": {"_target_": "t", "segment_length": 64, "stages": [{"shortest": 3, "doublings": 0}]},
        },
        ENVIRONMENT,
    )
    if job.experiment not in ("properties", *SUMMARIES):
        losses = [
            (step, 3 + quality + 4 * math.exp(-step / 150) + chance.gauss(0, 0.1)) for step in range(10, 1101, 10)
        ]
        rows = [json.dumps({"step": step, "train/loss": loss}) for step, loss in losses]
        write_atomically(record.metrics_file, "\n".join([*rows, json.dumps({"step": 1100} | metrics), ""]).encode())
    record.finish(summary, TABLES.get(job.experiment, TABLES.get(job.factors[0][1], {})))


def written(evidence: Evidence, outputs: Path, scale: str = "laptop") -> Path:
    return write_report([judge(claim, evidence) for claim in CLAIMS], evidence, scale, outputs)


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
