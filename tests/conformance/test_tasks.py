"""What holds for the tasks: every token scored once by a stated protocol, and batches that can be made again."""

import math
import re
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from support import choices, composed, decoder, settings
from torch import Tensor, nn

from experiments.conformance.tiny import noise
from tasks.data.images import Digits
from tasks.data.pairs import Docstrings, Pair
from tasks.data.text import Document
from tasks.data.tokens import DOCUMENT, END, SEPARATOR, TokenStream
from tasks.image_classification import ImageClassification
from tasks.language_modeling import LanguageModeling
from tasks.scoring import IGNORED
from tasks.summarization import Summarization

TEXT = "The rain in Spain stays mainly in the plain. Größe, naïveté and 日本語 are several bytes each.\n"


class Books:
    """A corpus of a few documents."""

    name, fingerprint = "books", "0123456789abcdef"

    def documents(self, split: str) -> list[Document]:
        text = TEXT if split == "train" else TEXT.swapcase()  # no span of the training text
        return [Document(f"{split}/{size}", text * size) for size in ((1, 3, 2) if split == "test" else (9, 8))]


def modeling(cache: Path, **settings: Any) -> LanguageModeling:
    given = {"length": 8, "batch_size": 3, "vocabulary_size": 270, "evaluation_tokens": 10**6, "stride": 3}
    return LanguageModeling(Books(), seed=0, cache=str(cache), **(given | settings))


def stream_of(*lengths: int) -> TokenStream:
    """Documents of so many tokens beside their opening one."""
    documents = [[DOCUMENT, *np.random.default_rng(length).integers(3, 23, length)] for length in lengths]
    starts = np.cumsum([0] + [len(document) for document in documents[:-1]])
    return TokenStream(np.concatenate(documents).astype(np.uint16), starts)


def nats_by_hand(model: nn.Module, document: np.ndarray, length: int, stride: int) -> float:
    """The loss of a document, one token after the other, each in the window that its protocol puts it in."""
    total = 0.0
    for target in range(1, len(document)):
        window = max(0, math.ceil((target - length) / stride))  # each window begins a stride after the one before
        context = torch.from_numpy(document[window * stride : target].astype(np.int64))
        logits = model(context[None])[0][0, -1]
        total -= float(torch.log_softmax(logits, dim=-1)[int(document[target])])
    return total


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 3, 8], ids=["sliding by 1", "sliding by 3", "nonoverlapping"])
def test_every_token_is_scored_once_in_its_own_window(stride: int, tmp_path: Path) -> None:
    lengths = (1, 5, 8, 9, 16, 17, 37)
    task, model, stream = modeling(tmp_path), decoder("full", "learned"), stream_of(*lengths)
    documents = np.split(stream.tokens, stream.starts[1:])
    scored = task.score(model, stream, 8, stride)
    nats = scored.losses.sum()
    assert len(scored.losses) == sum(lengths)
    by_document = [nats_by_hand(model, document, 8, stride) for document in documents]
    assert nats == pytest.approx(sum(by_document), rel=1e-6)
    for length, expected in zip(lengths, by_document):  # the loss of a document is its own, whatever stands around it
        assert task.score(model, stream_of(length), 8, stride).losses.sum() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_every_token_has_the_context_of_its_protocol(stride: int, tmp_path: Path) -> None:
    """At least length - stride tokens, but for those of a document's first window; never another document."""
    stream, scored = stream_of(5, 8, 37, 2), []
    for inputs, targets in modeling(tmp_path).windows(stream, 8, stride):
        assert inputs.shape[1] <= 8
        for row, target in zip(inputs, targets):
            places = (target != IGNORED).nonzero().flatten()
            assert row[0] == DOCUMENT or int(places[0]) >= 8 - stride
            assert not (row[1:] == DOCUMENT).logical_and(torch.arange(1, len(row)) <= places[-1]).any()
            scored += target[places].tolist()
    assert scored == stream.tokens[stream.tokens != DOCUMENT].tolist()


def test_both_protocols_are_reported_with_what_they_are(tmp_path: Path) -> None:
    task = modeling(tmp_path)
    model = Bigram(task.model_arguments["vocabulary_size"])
    found = task.evaluate(model)
    texts = [document.text for document in Books().documents("test")]
    size = sum(len(text.encode()) for text in texts)
    tokens = sum(len(task.corpus.tokenizer.encode(text).ids) for text in texts)
    for row, name, stride in zip(found.tables["protocol"], ("nonoverlapping", "sliding"), (8, 3), strict=True):
        sizes = {"tokens": tokens, "bytes": size, "documents": 3}
        assert row == {"protocol": name, "window": 8, "stride": stride, **sizes}
        loss = found.metrics[f"{name}/loss"]
        assert found.metrics[f"{name}/perplexity"] == pytest.approx(math.exp(loss))
        assert found.metrics[f"{name}/bits_per_byte"] == pytest.approx(loss * tokens / math.log(2) / size)
    # A model that looks at one token only does not see the difference.
    assert found.metrics["sliding/loss"] == pytest.approx(found.metrics["nonoverlapping/loss"], rel=1e-5)
    alone = modeling(tmp_path, stride=None).evaluate(model).metrics
    assert alone == {name: value for name, value in found.metrics.items() if not name.startswith("sliding/")}


class Bigram(nn.Module):
    """Logits from the last token alone."""

    def __init__(self, vocabulary_size: int):
        super().__init__()
        self.table = nn.Parameter(noise(vocabulary_size, vocabulary_size))

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        return self.table[tokens], None


@pytest.mark.parametrize("budget", [1, 8, 20, 100])
def test_the_evaluation_scores_as_many_tokens_as_asked(budget: int, tmp_path: Path) -> None:
    found = modeling(tmp_path, evaluation_tokens=budget).evaluate(Bigram(270))
    assert [row["tokens"] for row in found.tables["protocol"]] == [budget, budget]


def test_special_tokens_written_out_in_a_document_are_text(tmp_path: Path) -> None:
    """A file that mentions <end> holds five bytes, and no end of anything."""
    task, text = modeling(tmp_path), "before <end> and <document> after"
    encoded = task.corpus.tokenizer.encode(text).ids
    assert task.corpus.token_bytes[encoded].sum() == len(text.encode())
    assert task.corpus.tokenizer.decode(encoded) == text


def test_training_predicts_the_next_token_and_carried_rows_read_on(tmp_path: Path) -> None:
    for carry_state in (False, True):
        task, model = modeling(tmp_path, carry_state=carry_state), decoder("transformer_xl")
        batch, following = task.batch(4), task.batch(5)
        assert batch["tokens"].shape == batch["targets"].shape == (3, 8)
        assert torch.equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
        assert torch.equal(batch["targets"][:, -1], following["tokens"][:, 0]) == carry_state
        inside = {name: tensor % 23 for name, tensor in batch.items()}
        _, state = task.loss(model, inside, None)
        assert (state is not None) == carry_state
        if carry_state:  # what is carried counts
            assert task.loss(model, inside, state)[0] != task.loss(model, inside, None)[0]


class Folders(Docstrings):
    """Docstrings of small parts of the packages."""

    packages = ("numpy.linalg", "numpy.ma")


def embedded(task: str, cache: Path, seed: int) -> Any:
    """A task of the configuration on embedded data, at a small size."""
    data = {"passkey": "none", "summarization": "docstrings", "image_classification": "digits"}.get(task, "stdlib")
    small = {
        "passkey": ["attention=infini_linear"],
        "summarization": ["task.vocabulary_size=300", "task.source_length=64"],
        "language_modeling": ["task.vocabulary_size=300"],
    }.get(task, [])
    root = [f"+data.root={Path(re.__file__).parent}"] if data == "stdlib" else []  # one package of the library
    overrides = (f"task={task}", f"data={data}", f"seed={seed}", f"cache={cache}", *small, *root)
    config = composed(*overrides)
    source = Folders(str(cache)) if data == "docstrings" else hydra.utils.instantiate(config.data)
    return hydra.utils.instantiate(config.task, **({} if data == "none" else {"data": source}))


TRAINED = [name for name in choices("task") if settings("task", name)._target_.startswith("tasks.")]


OWN_DATA = {"passkey": ["data=none"], "summarization": ["data=docstrings"], "image_classification": ["data=digits"]}


@pytest.mark.slow
@pytest.mark.parametrize("task", TRAINED)
def test_a_batch_is_a_pure_function_of_seed_and_step(task: str, tmp_path: Path) -> None:
    first, again, other = (embedded(task, tmp_path, seed) for seed in (3, 3, 4))
    steps = [0, 1, 2, 500]
    forward = {step: first.batch(step) for step in steps}
    np.random.seed(0)
    torch.manual_seed(0)
    for step in reversed(steps):
        assert same(again.batch(step), forward[step])
        assert step == 500 or not same(again.batch(step + 1), forward[step])
    assert not all(same(other.batch(step), forward[step]) for step in steps)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Writer(nn.Module):
    """Writes the summary it was told for the n-th document, and rubbish after its end."""

    def __init__(self, summaries: dict[tuple[int, ...], list[int]]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.summaries = summaries

    def answer(self, source: Tensor, steps: int, end: int) -> Tensor:
        rows = [self.summaries[without_padding(row)] for row in source.tolist()]
        return torch.tensor([[*row, end, *[5] * (steps - len(row) - 1)] for row in rows])


def without_padding(row: list[int]) -> tuple[int, ...]:
    return tuple(token for token in row if token != DOCUMENT)


class Stories:
    """Documents of two sentences, the first of them also being the summary."""

    name, fingerprint = "stories", "fedcba9876543210"

    def pairs(self, split: str) -> list[Pair]:
        animals = ["cats", "dogs", "horses", "elephants of the old king", "bees"]
        return [Pair(a, f"All {a} sleep. {'Nobody knows why. ' * n}", f"All {a} sleep.") for n, a in enumerate(animals)]


def summarization(cache: Path, **settings: Any) -> Summarization:
    given = {"source_length": 99, "summary_length": 40, "tokens_per_batch": 200, "vocabulary_size": 300, "stages": []}
    sizes = given | {"evaluation_documents": 9, "halvings": 0} | settings
    return Summarization(Stories(), seed=0, cache=str(cache), **sizes)


def test_summaries_are_scored_beside_their_baselines(tmp_path: Path) -> None:
    task, pairs = summarization(tmp_path), Stories().pairs("test")
    sources = map(without_padding, task.encode_sources(pairs, 99))
    written = task.encode([pair.summary for pair in pairs], 40)
    found = task.evaluate(Writer(dict(zip(sources, written, strict=True))))
    for name in ("rouge1", "rouge2", "rougeL", "overall"):
        assert found.metrics[name] == found.metrics[f"baseline/lead/{name}"] == pytest.approx(100)
        assert found.metrics[f"baseline/oracle/{name}"] == pytest.approx(100)
        assert found.metrics[f"baseline/random/{name}"] < 99
    assert [row["summary"] for row in found.tables["samples"]] == [pair.summary for pair in pairs]


def test_what_reads_nothing_is_a_floor(tmp_path: Path) -> None:
    """The summary of another document, drawn from the training, and the first sentence."""
    task, pairs = summarization(tmp_path), Stories().pairs("test")
    sources = map(without_padding, task.encode_sources(pairs, 99))
    wrong = task.encode(["Nobody knows why." for _ in pairs], 40)
    found = task.evaluate(Writer(dict(zip(sources, wrong, strict=True)))).metrics
    floors = [found[f"baseline/{name}/overall"] for name in ("lead", "another")]
    assert found["over_floors"] == pytest.approx(found["overall"] - max(floors)) and found["over_floors"] < 0
    assert 0 < found["baseline/another/rouge1"] < 100


def test_half_of_the_batches_are_cut_to_lengths_that_are_read_in_evaluation(tmp_path: Path) -> None:
    task = summarization(tmp_path, source_length=32, halvings=2, tokens_per_batch=1000)
    whole = [without_padding(row) for row in task.pad(task.sources).tolist()]
    lengths = []
    for step in range(200):
        rows = [without_padding(row) for row in task.batch(step)["source"].tolist()]
        assert all(row[-1] == SEPARATOR for row in rows)
        assert all(any(row[:-1] == other[: len(row) - 1] for other in whole) for row in rows)
        lengths.append(max(map(len, rows)))
    assert {*lengths} == {8 - 1, 16 - 1, max(map(len, whole))}  # the opening token is that of padding
    assert 70 < sum(length < 16 for length in lengths) < 130


class Guesser(nn.Module):
    """Fixed random logits for whatever target it is given."""

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, None]:
        assert int(source.min()) >= 0 and int(target.min()) >= 0
        return noise(*target.shape, 300), None


def test_the_loss_of_a_summary_is_the_mean_over_its_tokens_and_its_end(tmp_path: Path) -> None:
    task = summarization(tmp_path, tokens_per_batch=1000)
    batch, losses = task.batch(0), []
    logits = noise(*batch["targets"].shape, 300).log_softmax(dim=-1)
    summaries = [pair.summary for pair in Stories().pairs("train")]
    for row in range(5):
        tokens = batch["targets"][row][batch["targets"][row] != IGNORED].tolist()
        assert tokens.pop() == END
        summaries.remove(task.vocabulary.tokenizer.decode(tokens))
        losses += [-float(logits[row, place, token]) for place, token in enumerate([*tokens, END])]
    assert float(task.loss(Guesser(), batch, None)[0]) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", TRAINED)
def test_a_task_scores_test_or_validation_and_names_both(task: str) -> None:
    from experiments.config.compose import compose
    from experiments.config.errors import ConfigError

    assert compose([f"task={task}", *OWN_DATA.get(task, [])]).task.split == "test"
    with pytest.raises(ConfigError, match=r"task\.split='tests': Input should be 'test' or 'validation'$"):
        compose([f"task={task}", "task.split=tests", *OWN_DATA.get(task, [])])


def test_validation_scores_the_documents_of_its_own_split(tmp_path: Path) -> None:
    for split in ("test", "validation"):
        task = modeling(tmp_path, split=split)
        assert np.array_equal(task.test.tokens, task.corpus.stream(split).tokens)
    assert len(task.test.starts) == 2  # of Books, which has three for testing


def test_validation_images_are_training_images_that_are_not_trained_on() -> None:
    settings = composed("task=image_classification", "data=digits").task
    judged, tuned = (hydra.utils.instantiate(settings, data=Digits(), split=s) for s in ("test", "validation"))
    assert np.array_equal(judged.test.pixels, Digits().images("test").pixels)
    assert np.array_equal(judged.train.pixels, Digits().images("train").pixels)
    assert len(tuned.test.labels) == round(0.2 * len(judged.train.labels))
    together = np.concatenate([tuned.test.pixels, tuned.train.pixels])
    assert sorted(map(bytes, together)) == sorted(map(bytes, judged.train.pixels))
    with pytest.raises(ValueError, match=r"task\.held_out must be between 0 and 1"):
        ImageClassification(Digits(), seed=0, batch_size=4, shift=0, flip=False, split="validation", held_out=1.0)


def test_images_are_judged_over_the_whole_test_split() -> None:
    settings = composed("task=image_classification", "data=digits").task
    task = hydra.utils.instantiate(settings, data=Digits())
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    train, test = Digits().images("train"), Digits().images("test")
    pixels = (test.pixels / 255 - (train.pixels / 255).mean()) / (train.pixels / 255).std()
    logits = model(torch.from_numpy(pixels).float()).detach()
    found, labels = task.evaluate(model).metrics, torch.from_numpy(test.labels)
    assert found["accuracy"] == pytest.approx(100 * float((logits.argmax(dim=1) == labels).float().mean()), abs=1e-3)
    assert found["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-4)
