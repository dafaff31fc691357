"""What holds for summaries: what chronicles hide from a reader of their beginning, baselines, intervals, bad rows."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasks.data.chronicles import FACTS, WORDS, Chronicles
from tasks.data.pairs import HubPairs, Pair
from tasks.data.source import SPLITS, DataError
from tasks.extracts import extracts
from tasks.rouge import LSUM, Words, rouge, sentences


def chronicles(documents: int = 400, chapters: int = 4, length: int = 200, shortest: int = 40) -> Chronicles:
    return Chronicles(documents, chapters, length, shortest)


def facts(pair: Pair) -> list[tuple[str, str]]:
    """What happened and to whom, as a summary names it: `came floods`."""
    return re.findall(r"(?:There|,) (\w+) (\w+)", pair.summary)


def test_chronicles_are_made_of_their_settings_alone() -> None:
    assert chronicles().all_pairs == chronicles().all_pairs
    assert chronicles().fingerprint == chronicles().fingerprint != chronicles(chapters=5, shortest=60).fingerprint
    assert chronicles(300).all_pairs == chronicles().all_pairs[:300]  # more of them leave those before as they were


def test_chronicles_are_as_long_as_asked_and_their_splits_are_disjoint() -> None:
    found = {split: chronicles().pairs(split) for split in SPLITS}
    assert sum(map(len, found.values())) == len({pair.document for pairs in found.values() for pair in pairs}) == 400
    words = {split: [len(pair.document.split()) for pair in pairs] for split, pairs in found.items()}
    assert min(words["test"] + words["validation"]) > 160 and max(words["test"]) <= 200
    assert min(words["train"]) < 60 and max(words["train"]) > 160


def test_the_beginning_of_a_chronicle_does_not_determine_its_summary() -> None:
    """Every event is named in its own chapter alone, and what came before is no help in guessing it."""
    pairs = chronicles(3000).all_pairs
    for pair in pairs[:200]:
        title, *chapters = pair.document.split("\n\n")
        assert [verb for verb, _ in facts(pair)] == list(FACTS)[:4] and len(chapters) == 4
        for place, (verb, subject) in enumerate(facts(pair)):
            naming = [f"there {verb} {subject} " in chapter for chapter in chapters]
            assert naming == [index == place for index in range(4)]
            assert sum(subject in re.findall(r"\w+", part) for part in (title, *chapters)) == 1
    first, last = ([facts(pair)[place][1] for pair in pairs] for place in (0, 3))
    after = {subject: Counter(b for a, b in zip(first, last) if a == subject) for subject in set(first)}
    guessed = sum(counts.most_common(1)[0][1] for counts in after.values()) / len(pairs)
    assert all(len(counts) == 12 for counts in after.values())  # whatever was first, all can follow
    assert guessed < 0.15  # chance is 1 in 12, and the largest of 12 counts is a little above the mean


def test_no_word_of_a_fact_is_in_another_chapters_or_in_the_prose() -> None:
    words = [word for subjects in FACTS.values() for word in subjects]
    prose = " ".join(word for kind in WORDS.values() for word in kind).split()
    assert len(set(words)) == len(words) and not set(words) & set(prose) and not set(FACTS) & set(prose)


def test_a_chronicle_too_short_for_its_chapters_is_refused() -> None:
    with pytest.raises(DataError, match=r"8 chapters take 67 words: data.shortest=40"):
        chronicles(chapters=8)
    with pytest.raises(DataError, match="1 to 10 chapters, not 13"):
        chronicles(chapters=13, shortest=200)


def test_extracts_are_sentences_of_the_document_and_the_oracle_finds_the_best() -> None:
    document = "It rained. The king died in May. Nobody came. The queen ruled for a year. It rained again."
    reference = "The king died. The queen ruled."
    found = extracts([document], [reference], seed=0)
    assert found["lead"] == ["It rained.\nThe king died in May."]  # as many sentences as the reference has
    assert found["oracle"] == ["The king died in May.\nThe queen ruled for a year."]
    assert len(found["random"][0].split("\n")) == 2
    assert all(set(text.split("\n")) <= set(sentences(document)) for (text,) in found.values())
    assert extracts(["Nothing of it."], ["Entirely different words"], 0)["oracle"] == [""]


def test_rouge_lsum_is_rouge_scores_own_with_a_line_for_every_sentence() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    summary, reference = "Two came. One left early.", "One left. Then two came."
    lines = ["\n".join(sentences(text)) for text in (reference, summary)]
    expected = RougeScorer(["rougeLsum"], use_stemmer=True).score(*lines)["rougeLsum"].fmeasure
    found = rouge([summary], [reference])
    assert found[LSUM] == pytest.approx(100 * expected) and found[LSUM] > found["rougeL"]


def test_intervals_hold_the_mean_and_narrow_with_more_documents() -> None:
    summaries, references = ["a b c d", "a b x y", "q r"], ["a b c d", "a b c d", "a b c d"]
    few, many = rouge(summaries, references), rouge(summaries * 20, references * 20)
    widths = []
    for found in (few, many):
        for name in ("rouge1", "rouge2", "rougeL", LSUM, "overall"):
            assert found[f"{name}/low"] <= found[name] <= found[f"{name}/high"]
        widths.append(found["rouge1/high"] - found["rouge1/low"])
    assert many["rouge1"] == pytest.approx(few["rouge1"])
    assert 0 < widths[1] < widths[0] / 2
    assert rouge(summaries, references) == few


OTHER_SCRIPTS = {  # texts, and how many words they have
    "Η γάτα κάθισε στο χαλί.": 5,
    "Кошка села на 2 ковра.": 5,
    "القطة جلست على الحصيرة؟": 4,
    "बिल्ली चटाई पर बैठी।": 4,
    "한국어 문장": 2,
    "猫が座った。": 5,
    "แมวนั่ง": 5,
    "The word λόγος is Greek": 5,
}
LATIN = "É un café naïve, ﬁne; 5 µm² ½ İstanbul’s running cats… straße, Łódź, cafe\u0301 №3 ª º ʼ"


@pytest.mark.parametrize("text", OTHER_SCRIPTS)
def test_rouge_knows_the_words_of_every_script_and_says_so(text: str) -> None:
    assert len(Words().tokenize(text)) == OTHER_SCRIPTS[text]
    found = rouge([text, "a cat"], [text, "a cat"])
    for name in ("rouge1", "rouge2", "rougeL", LSUM):
        assert found[name] == pytest.approx(100)
    assert found["rouge_by_unicode_words"] == 0.5
    assert rouge([text], ["nothing in common"])["rouge1"] == 0


def test_words_in_latin_script_are_rouge_scores_own() -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    generator = np.random.default_rng(0)
    alphabet = [chr(code) for code in [*range(0x20, 0x250), *range(0x1E00, 0x1F00), *range(0x2000, 0x2070)]]
    texts = [LATIN, *("".join(generator.choice(alphabet, 80)) for _ in range(300))]
    own = DefaultTokenizer(use_stemmer=True)
    assert all(Words().tokenize(text) == own.tokenize(text) for text in texts)
    assert "rouge_by_unicode_words" not in rouge([LATIN], [LATIN])


def hub(folder: Path, rows: list[dict[str, str | None]], **settings: str) -> HubPairs:
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        lines = map(json.dumps, [*rows, {"report": f"Another for {split}.", "summary": "One."}])
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    columns = {"document_column": "report", "summary_column": "summary"} | settings
    return HubPairs("some/reports", cache=str(folder / "cache"), path=str(folder), **columns)  # type: ignore[arg-type]


ROWS: list[dict[str, str | None]] = [
    {"report": "A report.", "summary": "Short."},
    {"report": " ", "summary": "Of nothing."},
    {"report": "Another.", "summary": None},
]


def test_rows_with_an_empty_text_are_named_and_left_out_or_stop_the_run(tmp_path: Path) -> None:
    message = r"left out 2: .*train.jsonl, line 2 has an empty report; .*train.jsonl, line 3 has an empty summary"
    with pytest.warns(UserWarning, match=message):
        pairs = [Pair("train/0", "A report.", "Short."), Pair("train/3", "Another for train.", "One.")]
        assert hub(tmp_path, ROWS).pairs("train") == pairs
    with pytest.raises(DataError, match=r"train split of .*line 2 has an empty report; .*data\.on_bad=skip"):
        hub(tmp_path, ROWS, on_bad="stop").pairs("train")


def test_a_summary_column_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks the column highlights; it has report, summary"):
        hub(tmp_path / "missing", ROWS, summary_column="highlights")
    rows: list[dict[str, str | None]] = [row | {"summary": ""} for row in ROWS]
    read = hub(tmp_path / "empty", rows)
    (tmp_path / "empty" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"has 3 rows, all of them bad: .*test\.jsonl, line 1 has an empty summary"):
        read.pairs("test")
