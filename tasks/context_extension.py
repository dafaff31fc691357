"""Context extension: perplexity with a window beyond the trained length, and how far away passkeys are found."""

from statistics import fmean
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from tasks.base import Batch, Evaluation, Reading
from tasks.data.source import ScoredSplit
from tasks.data.tokens import Corpus
from tasks.language_modeling import LanguageModeling
from tasks.passkey import Passkey
from tasks.ranges import VocabularySize

REACHES = (1, 2, 3, 4, 6, 8, 12, 16)  # prompt lengths in the evaluation, in trained lengths
FOUND = 0.5  # share of correct digits from which a passkey counts as found


class ContextExtension:
    """Language modelling on sequences `extension` times the trained length, and passkeys at the trained length.

    Passkeys are never trained at a greater length, so that finding them there measures how far the positions
    generalise. The words of their prompts have their own tokens, after those of the corpus. Each step trains on
    `tokens_per_batch` tokens of each. prompts: passkey prompts evaluated at each length. split: of the
    documents and keys in the evaluation.
    """

    predicts_next = True

    def __init__(
        self,
        data: Corpus,
        seed: NonNegativeInt,
        trained_length: PositiveInt,
        extension: PositiveInt,
        tokens_per_batch: PositiveInt,
        vocabulary_size: VocabularySize,
        evaluation_tokens: PositiveInt,
        prompts: PositiveInt,
        cache: str,
        split: ScoredSplit = "test",
    ):
        self.length = trained_length * extension

        def text(length: int, multiples: list[int]) -> LanguageModeling:
            rows = max(1, tokens_per_batch // length)
            return LanguageModeling(
                data,
                seed,
                length,
                rows,
                vocabulary_size,
                evaluation_tokens,
                None,
                cache,
                multiples=multiples,
                split=split,
            )

        self.extension = extension
        self.trained_text = text(self.length, [1])
        self.judged_text = text(trained_length, sorted({1, extension}))
        words = self.trained_text.model_arguments["vocabulary_size"]
        lengths = [trained_length * reach for reach in REACHES if reach <= extension]
        stages = [{"steps": 1, "shortest": 1, "doublings": 0}]
        self.passkey = Passkey(
            seed,
            trained_length,
            tokens_per_batch,
            stages,  # type: ignore[arg-type]
            1.0,
            lengths,
            prompts,
            first_token=words,
            split=split,
        )
        self.model_arguments = {"vocabulary_size": words + self.passkey.model_arguments["vocabulary_size"]}

    def batch(self, step: int) -> Batch:
        return self.trained_text.batch(step) | self.passkey.batch(step)

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        text, _ = self.trained_text.loss(model, batch, None)
        key, _ = self.passkey.loss(model, batch, None)
        return text + key, None

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        text = self.judged_text.evaluate(model)
        found = text.metrics
        at = f"nonoverlapping/{self.extension}x/" if self.extension > 1 else "nonoverlapping/"
        rows = [{"length": n, "depth": "start", **self.passkey.retrieve(model, n, "start")} for n in self.lengths]
        metrics = {
            "extended/loss": found[f"{at}loss"],
            "extended/perplexity": found[f"{at}perplexity"],
            "trained_window/loss": found["nonoverlapping/loss"],
            "gain_from_context": found["nonoverlapping/loss"] - found[f"{at}loss"],
            "reach": float(reach(rows)),
            "documents": found["documents"],
            "leaked_share": found["leaked_share"],
        }
        if self.extension > 1:
            metrics["digits_beyond"] = fmean(row["digits"] for row in rows[1:])
        metrics |= {f"digits/{row['length']}/start": row["digits"] for row in rows}
        return Evaluation(metrics, text.tables | {"retrieval": rows})

    def readings(self, model: nn.Module) -> list[Reading]:
        prompts = [call for length in self.lengths for call in self.passkey.answering(length, "start")]
        return self.judged_text.readings(model) + prompts

    @property
    def lengths(self) -> list[int]:
        """The prompt lengths in the evaluation, in tokens."""
        return self.passkey.evaluation_lengths


def reach(rows: list[dict[str, Any]]) -> int:
    """The longest prompt in tokens up to which a key at its start is found at every length; 0 if at none."""
    reached = 0
    for row in rows:
        if row["digits"] < FOUND:
            break
        reached = row["length"]
    return reached
