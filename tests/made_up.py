"""Made-up records of every experiment, and the page of them."""

import itertools
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.verdicts import judge
from experiments.recording.record import Record
from experiments.report.page.files import write_report
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
