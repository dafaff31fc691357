"""Causal language modelling and perplexity by two protocols."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Batch, Evaluation, device_of, random_generator
from tasks.data.source import DataError
from tasks.data.tokens import Corpus, TokenizedCorpus, TokenStream

IGNORED = -100


class Scored(NamedTuple):
    """What scoring a stream came to: nats and place in its window of each token, (N,), and the bytes of all."""

    losses: np.ndarray
    places: np.ndarray
    bytes: int

    def by_position(self, bin: int) -> list[dict[str, float]]:
        """The mean loss of the tokens whose place in their window falls into each bin of so many tokens."""
        bins = self.places // bin
        return [
            {"position": int(bin * (index + 0.5)), "loss": float(self.losses[bins == index].mean())}
            for index in np.unique(bins)
        ]


def long_documents(stream: TokenStream, length: int) -> TokenStream:
    """The documents that fill a window of so many tokens. Raises DataError if none does."""
    documents = [d for d in np.split(stream.tokens, stream.starts[1:]) if len(d) > length]
    if not documents:
        raise DataError(f"no test document has the {length} tokens of the longest window: choose a shorter one")
    starts = np.cumsum([0] + [len(document) for document in documents[:-1]])
    return TokenStream(np.concatenate(documents), starts)


class LanguageModeling:
    """Predict the next token of a corpus.

    length: tokens of a training sequence. window: tokens of an evaluation window, `length` if None.
    carry_state: every row of the batch reads on where it stopped a step ago, with the model's state carried along, as
    Transformer-XL is trained; otherwise sequences start anywhere and know nothing before them.
    evaluation_tokens: how many tokens of the test split are scored. stride: how many the sliding protocol scores a
    window, every one of them with at least window - stride tokens of context.
    multiples: how many times the window to evaluate with. Where there are longer ones than 1, only documents that fill
    the longest are scored, so that every window scores the same tokens; that a model refuses a window is a result.
    """

    def __init__(
        self,
        data: Corpus,
        seed: int,
        length: int,
        batch_size: int,
        vocabulary_size: int,
        evaluation_tokens: int,
        stride: int,
        cache: str,
        carry_state: bool = False,
        multiples: Sequence[int] = (1,),
        window: int | None = None,
    ):
        self.window = window or length
        if not 0 < stride <= self.window:
            raise ValueError(f"task.stride must be from 1 to the window of {self.window} tokens, not {stride}")
        if 1 not in multiples or min(multiples) < 1:
            raise ValueError(f"task.multiples must be whole numbers from 1 on, 1 among them, not {list(multiples)}")
        self.seed, self.length, self.batch_size, self.stride = seed, length, batch_size, stride
        self.evaluation_tokens = evaluation_tokens
        self.carry_state, self.multiples = carry_state, multiples
        self.corpus = TokenizedCorpus(data, vocabulary_size, cache)
        self.model_arguments = {"vocabulary_size": self.corpus.tokenizer.get_vocab_size()}
        self.train = self.corpus.stream("train").tokens
        self.test = self.corpus.stream("test")
        if max(multiples) > 1:
            self.test = long_documents(self.test, max(multiples) * self.window)
        if len(self.train) <= length:
            raise DataError(f"{data.name} has {len(self.train)} training tokens; task.length={length} needs more")

    def batch(self, step: int) -> Batch:
        if self.carry_state:
            starts = random_generator(self.seed).integers(0, len(self.train), self.batch_size) + step * self.length
        else:
            starts = random_generator(self.seed, step).integers(0, len(self.train) - self.length, self.batch_size)
        rows = (starts[:, None] + np.arange(self.length + 1)) % len(self.train)
        tokens = torch.from_numpy(self.train[rows].astype(np.int64))
        return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        logits, state = model(batch["tokens"], state)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch["targets"].flatten())
        return loss, state if self.carry_state else None

    def evaluate(self, model: nn.Module) -> Evaluation:
        result = Evaluation(tables={"protocol": []})
        for multiple in self.multiples:
            try:
                self.evaluate_with(model, multiple, result)
                refused = ""
            except ValueError as error:  # a position that the model's scheme does not have
                if multiple == 1:
                    raise
                refused = str(error)
            if multiple > 1:
                result.metrics[f"refused/{multiple}x"] = float(bool(refused))
        return result

    def evaluate_with(self, model: nn.Module, multiple: int, result: Evaluation) -> None:
        """Add what both protocols find with `multiple` times the window."""
        window, place = multiple * self.window, "" if multiple == 1 else f"{multiple}x/"
        for name, stride in (("nonoverlapping", window), ("sliding", multiple * self.stride)):
            scored = self.score(model, self.test, window, stride)
            tokens, size = len(scored.losses), scored.bytes
            loss = float(scored.losses.mean())
            result.metrics |= {
                f"{name}/{place}loss": loss,
                f"{name}/{place}perplexity": math.exp(min(loss, 700.0)),
                f"{name}/{place}bits_per_byte": float(scored.losses.sum()) / math.log(2) / size,
            }
            if multiple > 1:
                result.metrics[f"{name}/{place}degradation"] = loss - result.metrics[f"{name}/loss"]
            result.tables["protocol"].append(
                {"protocol": name, "window": window, "stride": stride, "tokens": tokens, "bytes": size}
            )
            if name == "nonoverlapping" and max(self.multiples) > 1:
                result.tables["by_position"] = scored.by_position(bin=self.window // 4)

    @torch.no_grad()
    def score(self, model: nn.Module, stream: TokenStream, window: int, stride: int) -> "Scored":
        """The loss of every token of the documents, each once."""
        device, losses, places, size = device_of(model), [], [], 0
        for inputs, targets in self.windows(stream, window, stride):
            logits, _ = model(inputs.to(device))
            found = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten().to(device), reduction="none")
            counted = targets != IGNORED
            losses.append(found.cpu()[counted.flatten()].double().numpy())
            places.append(counted.nonzero()[:, 1].numpy())
            size += int(self.corpus.token_bytes[targets[counted].numpy()].sum())
        return Scored(np.concatenate(losses), np.concatenate(places), size)

    def windows(self, stream: TokenStream, window: int, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of windows (B, window) with their targets, IGNORED where another window scores the token.

        A document's first window scores all of its tokens, each later one the `stride` tokens after those scored.
        """
        pieces: list[tuple[int, int, int]] = []  # start, end, first target scored
        budget = self.evaluation_tokens
        for start, end in zip(stream.starts, [*stream.starts[1:], len(stream.tokens)]):
            last = min(end - 1, start + budget)  # the document's own opening token is given, not scored
            scored = start
            while scored < last:
                stop = min(last, scored + (window if scored == start else stride))
                first = start if scored == start else scored + stride - window
                pieces.append((max(start, first), stop, scored))
                scored = stop
            budget -= last - start
            if budget <= 0:
                break
        rows = max(1, self.batch_size * self.length // window)
        for index in range(0, len(pieces), rows):
            group = pieces[index : index + rows]
            inputs = torch.zeros(len(group), max(stop - first for first, stop, _ in group), dtype=torch.long)
            targets = torch.full_like(inputs, IGNORED)
            for row, (first, stop, scored) in enumerate(group):
                tokens = torch.from_numpy(stream.tokens[first : stop + 1].astype(np.int64))
                inputs[row, : stop - first] = tokens[:-1]
                targets[row, scored - first : stop - first] = tokens[1 + scored - first :]
            yield inputs, targets
