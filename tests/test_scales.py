"""The greater scales: every experiment is composed, built without weights, and makes a step at reduced width."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from experiments.config.build import build, data_source
from experiments.config.checks import plain
from experiments.config.choices import groups
from experiments.config.composition import compose_unchecked
from experiments.cost.synthetic_data import source_of, task_of, without_checkpoint
from experiments.sweeps.grid import jobs
from experiments.training.loop import parameter_groups, pieces, size
from tasks.base import device_of
from tests.conftest import CACHE

EXPERIMENTS, SCALES = groups()["experiment"], ("gpu", "paper")
UNTRAINED = ("context_cost", "position_cost", "position_probes", "properties")
DECODER = ["model.width=32", "model.heads=2", "model.layers=2"]
TEXT = ["task.vocabulary_size=300"]
LANGUAGE = [*DECODER, *TEXT, "segment_length=32", "task.length=64", "task.stride=32", "task.batch_size=4"]
SCORED = [*LANGUAGE, "task.evaluation_tokens=256"]
IMAGES = ["model.depth=11", "model.width=4"]
PASSKEY = [*DECODER, "segment_length=64", "task.tokens_per_batch=512"]
REAL = ("", "HubText", "HubImages", "HubPairs", "DocumentedCode")
CODE = ["data.packages.train=[rich]", "data.packages.test=[omegaconf]", "task.summary_length=16"]
REDUCED = {
    **dict.fromkeys(("positions", "extrapolation", "feedforward_lm", "linear_attention", "memory_lm"), SCORED),
    **dict.fromkeys(("passkey", "passkey_gaps", "passkey_controls", "gates"), PASSKEY),
    **dict.fromkeys(("activation_images", "activation_networks", "activation_search"), IMAGES),
    "gradient_flow": ["model.width=8"],
    "activation_robustness": ["model.depth=8", "model.width=4"],
    "training_length": [*SCORED, "task.window=64"],
    "perplexity": [*LANGUAGE, "task.evaluation_documents=1", "task.longest=64"],
    "masked_lm": [*DECODER, *TEXT, "task.length=64", "task.batch_size=4", "task.evaluation_tokens=256"],
    "context_extension": [*DECODER, *TEXT, "trained_length=128", "extension=2", "task.tokens_per_batch=512"],
    "code_summarization": [*DECODER, *TEXT, "segment_length=32", "task.source_length=96", *CODE],
    "summarization": [*DECODER, *TEXT, "segment_length=32", "task.source_length=96", "task.summary_length=16"],
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small files in the columns of the data sets that the scales name, by the name of each."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("hub")
    kinds = {"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)}
    features = datasets.Features(kinds | {"fine_label": kinds["label"]})
    found = {name: folder / name for name in ("pg19", "booksum-complete-cleaned", "cifar10", "cifar100")}
    for split in ("train", "test"):
        texts = [" ".join(random.choice(["a", "book", "of", "few", "words"], 4_000)) for _ in range(2)]
        pixels = [Image.fromarray(shade) for shade in random.integers(0, 256, (160, 32, 32, 3), np.uint8)]
        labels = random.integers(0, 10, 160)
        images = {"img": pixels, "label": labels, "fine_label": labels}
        summaries = {"text": texts, "summary": [[{"source": "a", "text": text[:80]}] for text in texts]}
        books, pairs = datasets.Dataset.from_dict({"text": texts}), datasets.Dataset.from_dict(summaries)
        pictures = datasets.Dataset.from_dict(images, features=features)
        sets = (books, pairs, pictures, pictures)
        for path, rows in zip(found.values(), sets):
            path.mkdir(exist_ok=True)
            rows.to_parquet(str(path / f"{split}.parquet"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_planned_in_full(experiment: str, scale: str, tmp_path: Path) -> None:
    """All its runs differ, its data is real and of a named revision, and what it trains is compiled and in bf16."""
    planned = [job.spec(source_of) for job in jobs(experiment, scale, str(tmp_path))]
    assert len({one.record.id for one in planned}) == len(planned)
    for one in planned:
        assert one.record.identity["precision"] == "bf16" and one.config["training"]["compile"]
        assert one.config["data"].get("_target_", "").split(".")[-1] in REAL
        if "identifier" in one.config["data"]:
            assert one.config["data"]["revision"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name not in ("properties", "position_cost")])
def test_a_model_is_built_without_weights(experiment: str, scale: str, tmp_path: Path) -> None:
    """Of the first run and of the last, with the vocabulary or the classes of its own data."""
    found = jobs(experiment, scale, str(tmp_path))
    for job in (found[0], found[-1]):
        config = without_checkpoint(job.spec(source_of).config)
        settings = config["task"] | ({"cache": str(CACHE)} if "cache" in config["task"] else {})
        task = task_of(json.dumps(config["data"]), json.dumps(settings))
        with torch.device("meta"):
            model = build(OmegaConf.create(config["model"]), **task.model_arguments)
        assert sum(parameter.numel() for parameter in model.parameters()) > 100_000
        assert device_of(model).type == "meta"
        if "vocabulary_size" in settings:
            assert task.model_arguments["vocabulary_size"] >= settings["vocabulary_size"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name not in UNTRAINED])
def test_a_step_is_made_at_reduced_width(experiment: str, scale: str, hub: dict[str, Path], tmp_path: Path) -> None:
    overrides = [f"experiment={experiment}", f"scale={scale}", f"cache={tmp_path}", *REDUCED[experiment]]
    config = without_checkpoint(plain(compose_unchecked(overrides)))
    name = config["data"].get("identifier", "").split("/")[-1]
    own = {"path": str(hub[name])} if name else {}
    data = data_source(json.dumps(config["data"] | own)) if config["data"] else None
    settings = OmegaConf.create(config)
    task = build(settings.task, **({} if data is None else {"data": data}))
    model = build(settings.model, **task.model_arguments)
    training = config["training"]
    optimizer = build(settings.optimizer)(parameter_groups(model, training["groups"]))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for piece in pieces(task.batch(0), training.get("accumulation") or 1):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = task.loss(model, piece, None)
        loss.backward()
        assert torch.isfinite(loss)
    optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters()))


def test_a_batch_in_pieces_gives_the_gradient_of_the_whole() -> None:
    config = plain(compose_unchecked(["experiment=positions", "scale=smoke"]))
    model = build(OmegaConf.create(config["model"]), vocabulary_size=32)
    batch = {"tokens": torch.randint(0, 32, (6, 16))}
    whole = model(batch["tokens"])[0].square().mean()
    whole.backward()
    expected = model.embedding.weight.grad.clone()
    model.zero_grad()
    parts = pieces(batch, 4)
    assert [len(part["tokens"]) for part in parts] == [2, 2, 1, 1]
    for part in parts:
        (model(part["tokens"])[0].square().mean() * (size(part) / size(batch))).backward()
    torch.testing.assert_close(model.embedding.weight.grad, expected)
