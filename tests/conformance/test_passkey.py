"""What holds for passkey retrieval: exact prompts, no leak, honest depths, scores that mean what they say."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from support import choices, task_decoder
from torch import Tensor, nn

from tasks.passkey import ANSWERED, DIGITS, Passkey, words

PAPER = (  # appendix B of Munkhdalai et al. 2024, with its misprint mended
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the important information there.{before} The pass key is 90541. Remember it. 90541 is the pass key.{after} "
    "What is the pass key? The pass key is"
)
FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
LANDMARK = (  # Mohtashami & Jaggi 2023
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the important information there.\n{before}\nThe pass key is 90541. Remember it. 90541 is the pass key.\n"
    "{after}\nWhat is the pass key? The pass key is"
)


GROWING = ["full", "memorizing", "reformer"]  # at a few hundred tokens: they keep all they have read


def passkey(segment_length: int = 64, **settings: Any) -> Passkey:
    stages = [{"steps": 10, "shortest": 3, "doublings": 1}, {"steps": 10, "shortest": 8, "doublings": 0}]
    given = {"seed": 0, "tokens_per_batch": 2048, "stages": stages, "language_weight": 0.2, "prompts": 7}
    lengths = [3 * segment_length, 3 * segment_length + 5, 8 * segment_length]
    return Passkey(segment_length=segment_length, evaluation_lengths=lengths, **(given | settings))


def text_of(task: Passkey, tokens: np.ndarray) -> list[str]:
    names = {index: word for word, index in task.identifiers.items()}
    return [names[int(token)] for token in tokens]


def digit_places(task: Passkey, tokens: np.ndarray) -> np.ndarray:
    return np.flatnonzero([word.isdigit() for word in text_of(task, tokens)])


def keys_of(task: Passkey, batch: dict[str, Tensor]) -> list[str]:
    return ["".join(text_of(task, answer)) for answer in batch["answer"].numpy()]


class Reader(nn.Module):
    """Finds the key in the prompt and names it, with the last `wrong` digits changed; keeps what it was asked."""

    def __init__(self, task: Passkey, wrong: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.task, self.wrong, self.asked = task, wrong, []

    def answer(self, prompts: Tensor, steps: int) -> Tensor:
        assert steps == DIGITS
        answers = []
        for prompt in prompts.numpy():
            self.asked.append(prompt)
            key = text_of(self.task, prompt[digit_places(self.task, prompt)][:DIGITS])
            key[DIGITS - self.wrong :] = [str((int(digit) + 1) % 10) for digit in key[DIGITS - self.wrong :]]
            answers.append([self.task.identifiers[digit] for digit in key])
        return torch.tensor(answers)


def test_the_prompt_is_the_papers() -> None:
    task = passkey()
    filler = len(words(FILLER))
    prompt = task.prompt(task.fixed + 3 * filler, 90541, 2 * filler)
    assert text_of(task, prompt) == words(PAPER.format(before=2 * FILLER, after=FILLER))


def test_the_landmark_papers_prompt_has_its_parts_on_lines_and_its_filler_begins_anew() -> None:
    task = passkey(wording="landmark")
    filler = len(words(FILLER))
    prompt = task.prompt(task.fixed + 3 * filler, 90541, 2 * filler)
    assert text_of(task, prompt) == words(LANDMARK.format(before=2 * FILLER, after=FILLER))
    cut = task.prompt(task.fixed + 12, 90541, 7)
    assert text_of(task, cut) == words(
        LANDMARK.format(before="The grass is green. The sky", after="The grass is green.")
    )


@pytest.mark.parametrize("wording", ["infini", "landmark"])
def test_prompts_have_their_exact_length_at_every_depth(wording: str) -> None:
    task = passkey(wording=wording)
    for length in (task.fixed, task.fixed + 1, 200, 1024):
        for depth in {0, (length - task.fixed) // 2, length - task.fixed}:
            assert len(task.prompt(length, 12345, depth)) == length
    lengths = {step: task.batch(step)["prompt"].shape[1] for step in range(20)}
    assert {lengths[step] + ANSWERED for step in range(10)} == {3 * 64, 6 * 64}
    assert {lengths[step] + ANSWERED for step in range(10, 20)} == {8 * 64}


def test_a_prompt_too_short_for_the_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs at least \d+ tokens; 44 were requested"):
        passkey(segment_length=16)


def test_the_key_stands_in_its_sentence_and_nowhere_else() -> None:
    task = passkey()
    for step in range(20):
        batch = task.batch(step)
        for prompt, key in zip(batch["prompt"].numpy(), keys_of(task, batch)):
            text, places = text_of(task, prompt), digit_places(task, prompt)
            assert len(key) == DIGITS and key.isdigit() and key[0] != "0"
            start = places[0] - len(words("The pass key is"))
            sentence = words(f"The pass key is {key}. Remember it. {key} is the pass key.")
            assert text[start : start + len(sentence)] == sentence
            assert len(places) == 2 * DIGITS and places[-1] < start + len(sentence)


def test_keys_of_training_are_many_and_none_is_asked_for() -> None:
    task, asked = passkey(), []
    for seed in range(6):
        model = Reader(passkey(seed=seed))
        model.task.evaluate(model)
        asked += ["".join(text_of(task, prompt[digit_places(task, prompt)][:DIGITS])) for prompt in model.asked]
    by_cell = np.array(asked).reshape(-1, task.prompts)
    assert all(len(set(keys)) == task.prompts for keys in by_cell)
    assert len({tuple(keys) for keys in by_cell}) == len(by_cell)
    trained = [key for step in range(400) for key in keys_of(task, task.batch(step))]
    assert len(set(trained)) > 0.8 * len(trained) > 1000
    assert not set(trained) & set(asked)


def test_depths_are_uniform_in_tokens() -> None:
    task = passkey(stages=[{"steps": 1, "shortest": 3, "doublings": 0}])
    space = 3 * 64 - ANSWERED - task.fixed
    firsts = [digit_places(task, prompt)[0] for step in range(400) for prompt in task.batch(step)["prompt"].numpy()]
    depths = np.array(firsts) - min(firsts)
    assert min(firsts) == len(task.introduction) + 4 and max(depths) == space
    observed, possible = (np.bincount(places * 8 // (space + 1)) for places in (depths, np.arange(space + 1)))
    assert chisquare(observed, possible / (space + 1) * len(depths)).pvalue > 0.001


@pytest.mark.parametrize("wrong", [0, 1, 3, 5])
def test_exact_match_and_digits_are_both_reported(wrong: int) -> None:
    task = passkey()
    found = task.evaluate(Reader(task, wrong))
    exact, digits = float(wrong == 0), 1 - wrong / DIGITS
    for length in task.evaluation_lengths:
        for depth in ("start", "middle", "end"):
            assert found.metrics[f"exact/{length}/{depth}"] == exact
            assert found.metrics[f"digits/{length}/{depth}"] == pytest.approx(digits)
    for part in ("through_memory", "through_memory_longest", "last_segment"):
        assert found.metrics[f"{part}/exact"] == exact
        assert found.metrics[f"{part}/digits"] == pytest.approx(digits)


def test_prompts_are_asked_at_their_depth() -> None:
    task = passkey()
    model = Reader(task)
    rows = task.evaluate(model).tables["retrieval"]
    for row, prompts in zip(rows, np.split(np.arange(len(model.asked)), len(rows))):
        for index in prompts:
            prompt = model.asked[index]
            assert len(prompt) + ANSWERED == row["length"]
            before = digit_places(task, prompt)[0] - 4 - len(task.introduction)
            space = len(prompt) - task.fixed
            assert before == {"start": 0, "middle": space // 2, "end": space}[row["depth"]]


@pytest.mark.parametrize("segment_length", [32, 48, 64, 128])
def test_what_only_memory_can_reach_is_reported_apart(segment_length: int) -> None:
    """A depth is through memory if no digit of the key stands in the prompt's last segment, where the answer begins."""
    task = passkey(segment_length)
    model = Reader(task)
    rows = task.evaluate(model).tables["retrieval"]
    for row, prompt in zip(rows, model.asked[:: task.prompts]):
        last_segment = (len(prompt) - 1) // segment_length
        reachable = digit_places(task, prompt)[-1] // segment_length == last_segment
        assert row["last_segment"] == reachable, f"{row['depth']} of {row['length']}"


def test_the_loss_weighs_the_answer_and_the_prompt() -> None:
    task = passkey()
    vocabulary = task.model_arguments["vocabulary_size"]

    class Knows(nn.Module):
        """Certain of every digit of the answer and undecided about all else, or the other way round."""

        def __init__(self, answers: bool):
            super().__init__()
            self.answers = answers

        def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
            logits = torch.zeros(*tokens.shape, vocabulary)
            truth = nn.functional.one_hot(full[:, 1:], vocabulary) * 100.0
            knows = torch.arange(tokens.shape[1]) >= tokens.shape[1] - DIGITS
            return torch.where((knows == self.answers)[:, None], truth, logits), None

    batch = task.batch(0)
    full = torch.cat([batch["prompt"], batch["answer"]], dim=1)
    assert float(task.loss(Knows(True), batch, None)[0]) == pytest.approx(0.2 * np.log(vocabulary), rel=1e-5)
    assert float(task.loss(Knows(False), batch, None)[0]) == pytest.approx(np.log(vocabulary), rel=1e-5)


def test_validation_asks_for_keys_of_its_own() -> None:
    asked = {}
    for split in ("test", "validation"):
        task = passkey(split=split)
        reader = Reader(task)
        assert task.evaluate(reader).metrics["through_memory/exact"] == 1
        asked[split] = {"".join(text_of(task, row[digit_places(task, row)][:DIGITS])) for row in reader.asked}
    trained = {key for step in range(30) for key in keys_of(passkey(), passkey().batch(step))}
    assert not asked["test"] & asked["validation"] and not trained & (asked["test"] | asked["validation"])


def test_long_prompts_are_fewer_and_every_row_says_how_many() -> None:
    task = passkey(evaluation_tokens=512)
    rows = task.evaluate(Reader(task)).tables["retrieval"]
    assert [(row["length"], row["prompts"]) for row in rows[::3]] == [(192, 2), (197, 2), (512, 1)]


def test_memory_is_switched_off_for_the_control_alone() -> None:
    """With every gate shut a key outside the last segment changes no logit, and afterwards all is as before."""
    task = passkey(control_length=200)
    model = task_decoder(task, "infini_linear")
    gates = [block.attention.gate for block in model.blocks]
    before = [gate.clone() for gate in gates]
    named = []

    def answer(prompts: Tensor, steps: int) -> Tensor:
        named.append((len(prompts[0]), all(torch.sigmoid(gate).sum() == 0 for gate in gates)))
        return torch.zeros(len(prompts), steps, dtype=torch.long)

    model.answer = answer
    found = task.evaluate(model)
    lengths = [length - ANSWERED for length in task.evaluation_lengths]
    assert dict.fromkeys(named) == dict.fromkeys([*((n, False) for n in lengths), *((n, True) for n in lengths[:2])])
    assert all(torch.equal(gate, value) for gate, value in zip(gates, before))
    rows = found.tables["retrieval"]
    assert [row["length"] for row in rows if row["memory"] == "off"] == [*3 * [192], *3 * [197]]
    assert {"memory_off/192/start", "memory_off/197/end", "memory_off/digits"} <= found.metrics.keys()


@pytest.mark.slow
@pytest.mark.parametrize("attention", choices("attention"))
def test_where_the_state_grows_no_long_prompt_is_read(attention: str) -> None:
    task = passkey(control_length=200)
    model = task_decoder(task, attention)
    model.answer = lambda prompts, steps: torch.zeros(len(prompts), steps, dtype=torch.long)
    longest = max(row["length"] for row in task.evaluate(model).tables["retrieval"])
    assert longest == (197 if attention in GROWING else 512)
