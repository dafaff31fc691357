"""What holds for the models that summaries are compared by: what they read and retrieve, and where they come from."""

from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from support import composed
from torch import Tensor

from experiments.config.compose import compose
from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import VOCABULARY, noise, random_tokens, shake
from experiments.training.execute import assemble
from experiments.training.run_spec import resolve
from models.initialization import initialize
from models.retrieval import Retrieval
from models.seq2seq import EncoderDecoder
from tasks.summarization import pretrained_vocabulary
from tests.conformance.test_tasks import summarization

pytestmark = pytest.mark.slow

WINDOW = 8
FAMILIES = ("bart", "primera")
SUMMARIZERS = [
    "decoder",
    "decoder_window",
    "decoder_truncated",
    "bart",
    "primera",
    "bart_unlimiformer",
    "primera_unlimiformer",
]


def model_of(choice: str, *overrides: str) -> Any:
    """A tiny encoder-decoder of the configuration in float64."""
    sizes = ["width=16", "heads=2", "encoder_layers=1", "decoder_layers=1", f"window={WINDOW}"]
    sizes += ["attention_window=4", "target_length=16"] if "primera" in choice else []
    config = composed(f"model={choice}", *(f"model.{size}" for size in sizes), *overrides)
    model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
    initialize(model, 0)
    shake(model)
    return model.double().eval()


def sources(rows: int, length: int, seed: int = 0) -> Tensor:
    """Tokens that are no padding."""
    return random_tokens(rows, length, seed) % 20 + 3


@pytest.mark.parametrize("family", FAMILIES)
def test_retrieval_within_one_chunk_is_the_plain_model(family: str) -> None:
    plain, retrieving = model_of(family), model_of(f"{family}_unlimiformer")
    assert plain.retrieved is None and retrieving.retrieved == WINDOW
    source, target = sources(2, WINDOW), random_tokens(2, 5, seed=1)
    source[0, :3] = 0  # a shorter one
    assert_close(retrieving(source, target=target)[0], plain(source, target=target)[0])
    assert torch.equal(retrieving.answer(source, 6, end=VOCABULARY - 1), plain.answer(source, 6, end=VOCABULARY - 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_only_retrieval_reads_beyond_the_window_and_only_after_training(family: str) -> None:
    plain, retrieving = model_of(family), model_of(f"{family}_unlimiformer")
    source, target = sources(2, 5 * WINDOW), random_tokens(2, 5, seed=1)
    others = torch.cat([source[:, :-1], (source[:, -1:] - 2) % 20 + 3], dim=1)
    assert torch.equal(plain(source, target=target)[0], plain(others, target=target)[0])
    assert not torch.equal(retrieving(source, target=target)[0], retrieving(others, target=target)[0])
    assert_close(retrieving.train()(source, target=target)[0], plain(source, target=target)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_overlap_by_half_and_keep_their_middles(family: str) -> None:
    model, source = model_of(f"{family}_unlimiformer"), sources(1, 2 * WINDOW)
    states, exists = model.read(source)
    assert states.shape == (1, 2 * WINDOW, 16) and exists.all()
    chunks = [model.read(source[:, start : start + WINDOW])[0] for start in (0, 4, 8)]
    assert_close(states, torch.cat([chunks[0][:, :6], chunks[1][:, 2:6], chunks[2][:, 2:]], dim=1))
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), source], dim=1)
    states_of_padded, exists = model.read(padded)  # a chunk more, nothing of which exists
    assert exists.sum() == 2 * WINDOW
    assert_close(states_of_padded[:, : 2 * WINDOW - 2], states[:, :-2])
    target = random_tokens(1, 3)
    assert model(padded, target=target)[0].isfinite().all()


class Attention(torch.nn.Module):
    """The weights of a cross-attention."""

    num_heads = 2

    def __init__(self) -> None:
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, torch.nn.Linear(6, 6).double())


def test_every_head_attends_to_the_tokens_that_score_highest() -> None:
    weights, found, x, encoded = Attention(), 3, noise(2, 4, 6), noise(2, 9, 6, seed=1)
    mask = torch.ones(2, 1, 4, 9, dtype=torch.bool)
    mask[0, ..., 5:] = False
    retrieval = Retrieval(weights, found, returns=2)
    y, nothing = retrieval(x, encoded, attention_mask=mask)
    assert nothing is None
    query, key, value = (
        layer(of).unflatten(-1, (2, 3)).transpose(1, 2)
        for layer, of in ((weights.q_proj, x), (weights.k_proj, encoded), (weights.v_proj, encoded))
    )
    for row in range(2):
        for place in range(4):
            heads = []
            for head in range(2):
                scores = key[row, head, : 5 if row == 0 else 9] @ query[row, head, place] / 3**0.5
                best = scores.topk(found)
                heads.append(best.values.softmax(dim=0) @ value[row, head, best.indices])
            assert_close(y[row, place], weights.out_proj(torch.cat(heads)))
    assert_close(retrieval(x, encoded, attention_mask=torch.where(mask, 0.0, -1e9))[0], y)


def test_a_truncated_decoder_reads_the_beginning_and_the_last_token() -> None:
    size = ["model.width=16", "model.heads=2", "model.layers=1", f"model.window={WINDOW}"]
    config = composed("model=decoder_truncated", "position=rope", *size)
    model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
    source, target = sources(2, 20), random_tokens(2, 4)
    source[0, :3] = 0
    read = model.truncate(source)
    assert read[1].tolist() == [*source[1, :7].tolist(), int(source[1, -1])]
    assert read[0].tolist() == [*source[0, 3:10].tolist(), int(source[0, -1])]
    assert torch.equal(model(source, target=target)[0], model(read, target=target)[0])
    assert torch.equal(model.answer(source, 5), model.answer(read, 5))
    short = torch.cat([torch.zeros(1, 12, dtype=torch.long), source[:1, -4:]], dim=1)
    assert torch.equal(model.truncate(short), short[:, -WINDOW:])


def test_all_summarizers_have_about_as_many_parameters() -> None:
    sizes = {}
    for choice in SUMMARIZERS:
        config = composed("experiment=summarization", f"model={choice}")
        model = hydra.utils.instantiate(config.model, vocabulary_size=700)
        sizes[choice] = sum(parameter.numel() for parameter in model.parameters())
    assert max(sizes.values()) < 1.03 * min(sizes.values()), sizes


@pytest.fixture(params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Any]:
    """A family, and a folder with a small random model of it and a tokenizer like BART's."""
    from transformers import BartTokenizerFast

    tokenizer = summarization(tmp_path / "cache").vocabulary.tokenizer
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = BartTokenizerFast(tokenizer_object=tokenizer, **special)
    sizes = {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "window": 64}
    if request.param == "primera":
        sizes |= {"attention_window": 8, "target_length": 64}
    model = EncoderDecoder(len(fast), **sizes, padding=fast.pad_token_id, end=fast.eos_token_id)
    model.model.save_pretrained(tmp_path / "model")
    fast.save_pretrained(tmp_path / "model")
    return request.param, tmp_path / "model", model.eval()


def test_a_checkpoint_of_a_folder_keeps_its_weights_and_its_tokenizer(checkpoint: Any, tmp_path: Path) -> None:
    family, folder, saved = checkpoint
    task = summarization(tmp_path / "cache", tokenizer=str(folder), summary_length=20)
    overrides = [f"model={family}_unlimiformer", f"model.checkpoint={folder}", "model.window=64"]
    model = hydra.utils.instantiate(composed(*overrides).model, **task.model_arguments)
    initialize(model, 3)  # as a run does
    batch = task.batch(0)
    assert batch["source"].min() > 0 and pretrained_vocabulary(str(folder), "main").padding == model.padding
    target = batch["targets"].clamp(min=0)
    assert_close(model.eval()(batch["source"], target=target)[0], saved(batch["source"], target=target)[0], 1e-5)
    assert task.loss(model, batch, None)[0].isfinite()
    assert "overall" in task.evaluate(model).metrics


def test_a_run_begins_with_a_checkpoints_weights(checkpoint: Any, tmp_path: Path) -> None:
    family, folder, saved = checkpoint
    overrides = [f"model={family}", f"model.checkpoint={folder}", "model.window=64", f"task.tokenizer={folder}"]
    settings = ["experiment=summarization", "data=docstrings", "scale=smoke", f"cache={tmp_path}", *overrides]
    _, model = assemble(resolve(compose(settings)))
    weights = saved.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_with_another_vocabulary_than_the_tasks_is_refused(checkpoint: Any) -> None:
    _, folder, _ = checkpoint
    with pytest.raises(ValueError, match=f"and the task one of 300: set task.tokenizer={folder}"):
        EncoderDecoder(300, 16, 2, 1, 1, WINDOW, checkpoint=str(folder))


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"model.checkpoint=.*nowhere cannot be loaded"):
        EncoderDecoder(300, 16, 2, 1, 1, WINDOW, checkpoint=nowhere)
    with pytest.raises(ValueError, match=r"task.tokenizer=.*nowhere cannot be loaded"):
        pretrained_vocabulary(nowhere, "main")
