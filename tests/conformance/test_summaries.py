"""What holds for summaries: what chronicles hide from a reader of their beginning, baselines, intervals, bad rows."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tasks.data.chronicles import WORDS, Chronicles
from tasks.data.pairs import HubPairs, Pair
from tasks.data.source import SPLITS, DataError
from tasks.extracts import extracts
from tasks.rouge import LSUM, rouge, sentences


def chronicles(documents: int = 400, years: int = 4, length: int = 200, shortest: int = 40) -> Chronicles:
    return Chronicles(documents, years, length, shortest)


def test_chronicles_are_made_of_their_settings_alone() -> None:
    assert chronicles().all_pairs == chronicles().all_pairs
    assert chronicles().fingerprint == chronicles().fingerprint != chronicles(years=5, shortest=60).fingerprint
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
        facts = [fact.strip().split() for fact in pair.summary.split(".")[:-1]]
        assert [year for year, _ in facts] == WORDS["year"][:4] and len(chapters) == 4
        for place, (year, event) in enumerate(facts):
            naming = [chapter.count(f"In Year {year} {event}") for chapter in chapters]
            assert naming == [int(index == place) for index in range(4)]
            others = {event for index, (_, event) in enumerate(facts) if index != place} - {event}
            assert not others & set(chapters[place].split()) and event not in title
    first, last = ([pair.summary.split()[place].strip(".") for pair in pairs] for place in (1, 7))
    most_frequent = Counter(last).most_common(1)[0][1] / len(pairs)
    after = {event: Counter(b for a, b in zip(first, last) if a == event) for event in WORDS["event"]}
    guessed = sum(counts.most_common(1)[0][1] for counts in after.values()) / len(pairs)
    # The best guess from a first event is right as often as chance lets the largest of 36 counts be.
    assert most_frequent < 0.05 and guessed < 0.1
    assert all(len(counts) > 18 for counts in after.values())  # a first event is followed by most of all others


def test_a_chronicle_too_short_for_its_years_is_refused() -> None:
    with pytest.raises(DataError, match="of 8 years takes 67 words: shortest=40"):
        chronicles(years=8)
    with pytest.raises(DataError, match="1 to 12 years, not 13"):
        chronicles(years=13, shortest=200)


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


def hub(folder: Path, rows: list[dict[str, str | None]], **settings: str) -> HubPairs:
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"document_column": "report", "summary_column": "summary"} | settings
    return HubPairs("some/reports", cache=str(folder / "cache"), path=str(folder), **columns)  # type: ignore[arg-type]


ROWS: list[dict[str, str | None]] = [
    {"report": "A report.", "summary": "Short."},
    {"report": " ", "summary": "Of nothing."},
    {"report": "Another.", "summary": None},
]


def test_rows_with_an_empty_text_are_named_and_left_out_or_stop_the_run(tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"left out 2 of 3 rows: row 1 has an empty report; row 2 has an empty summary"
    ):
        assert hub(tmp_path, ROWS).pairs("train") == [Pair("train/0", "A report.", "Short.")]
    with pytest.raises(DataError, match=r"train split of .*: row 1 has an empty report, as have 2 of 3 rows"):
        hub(tmp_path, ROWS, on_bad="stop").pairs("train")


def test_a_summary_column_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks the column highlights; it has report, summary"):
        hub(tmp_path / "missing", ROWS, summary_column="highlights")
    rows = [row | {"summary": ""} for row in ROWS]
    with pytest.raises(DataError, match="row 0 has an empty summary, as have 3 of 3 rows"):
        hub(tmp_path / "empty", rows).pairs("test")
