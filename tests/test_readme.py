"""The README and docs/results.md show the claims as they are; only what was measured may differ."""

import re
from io import StringIO
from xml.etree import ElementTree

from rich.console import Console

from experiments.ledger.claims import claims
from experiments.ledger.verdicts import judge
from experiments.report.export.readme_table import (
    END,
    PICTURE,
    README,
    RESULTS,
    START,
    claim_table,
    comparison_table,
    replace_ledger,
)
from experiments.report.terminal import terminal_table
from experiments.report.verdict_marks import MARKS, VERDICT_OF
from tests.conftest import ROOT

Rows = list[list[str]]


def rows_of(text: str) -> Rows:
    """The cells of a Markdown table without its two head lines."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def between_markers(text: str) -> str:
    return text.split(START)[1].split(END)[0]


SHOWN, FULL = (between_markers(file.read_text(encoding="utf-8")) for file in (README, RESULTS))


def by_claim(rows: Rows) -> dict[str, Rows]:
    """The rows of the full table by claim, the claim's own first."""
    found: dict[str, Rows] = {}
    for row in rows:
        if row[0]:
            found[row[0]] = []
        found[list(found)[-1]].append(row)
    return found


def test_the_readme_fits_and_opens_with_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    first = re.search(r"```bash\n(.*?)```", text, flags=re.S)
    assert first and [line.split(" #")[0].strip() for line in first[1].splitlines()] == ["make reproduce", "make test"]


def test_the_full_table_is_of_the_claims_as_they_are() -> None:
    written = rows_of(comparison_table([judge(claim, {}) for claim in claims()]))
    assert [row[:3] for row in rows_of(FULL)] == [row[:3] for row in written]
    assert {row[-1].strip("*") for row in rows_of(FULL)} <= {*VERDICT_OF}


def test_the_readme_has_a_row_for_each_claim_with_the_first_comparison_of_its_verdict() -> None:
    full = by_claim(rows_of(FULL))
    shown = rows_of(SHOWN)
    assert [row[0] for row in shown] == list(full)
    for identifier, statement, verdict, *effect in shown:
        claim, *comparisons = full[identifier]
        assert [f"**{statement}**", f"**{verdict}**"] == [claim[1], claim[-1]]
        assert effect == next(row[1:4] for row in comparisons if VERDICT_OF[row[-1]] == verdict)


def test_both_tables_say_how_many_claims_have_which_verdict_and_which_python_was_read() -> None:
    captions = [text.splitlines()[-1] for text in (SHOWN, FULL)]
    assert captions[0] == captions[1]
    verdicts = [row[2] for row in rows_of(SHOWN)]
    counts = [f"{verdicts.count(name)} {name}" for name in MARKS if name in verdicts]
    assert captions[0].startswith(f"{len(verdicts)} claims: {', '.join(counts)}.")
    assert re.search(r"Python 3\.\d+.*, whose standard library is the text corpus `stdlib`", captions[0])


def test_what_is_written_anew_is_what_stands_between_the_markers() -> None:
    claims_of_nothing = claim_table([judge(claim, {}) for claim in claims()])
    text = replace_ledger(README.read_text(encoding="utf-8"), claims_of_nothing)
    assert between_markers(text) == claims_of_nothing
    assert replace_ledger(text, SHOWN) == README.read_text(encoding="utf-8")


def test_the_picture_shows_the_verdicts_of_the_table() -> None:
    printed = {row[0].strip("*"): row[2] for row in rows_of(SHOWN)}
    root = ElementTree.parse(PICTURE).getroot()
    named = "{http://www.w3.org/2000/svg}"
    drawn = {group.get("id"): group for group in root.iter(f"{named}g")}
    verdicts = {id: group.find(f".//{named}tspan[@class='verdict']") for id, group in drawn.items()}
    assert {id: found.text for id, found in verdicts.items() if found is not None} == printed
    for claim in claims():
        assert claim.statement in " ".join("".join(drawn[claim.id].itertext()).split())
    assert f"({PICTURE.relative_to(ROOT)})" in README.read_text(encoding="utf-8")


def test_the_list_of_experiments_is_complete_and_names_their_claims() -> None:
    rows = rows_of(RESULTS.read_text(encoding="utf-8").split("## Experiments")[1])
    listed = {row[0].strip("`"): row[2].split(", ") for row in rows}
    files = {file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")}
    used = {name: [c.id for c in claims() if name in {each.experiment for each in c.comparisons}] for name in files}
    assert listed == used


def test_a_claim_of_which_nothing_ran_is_one_line_in_the_terminal() -> None:
    console = Console(width=400, record=True, file=StringIO())
    console.print(terminal_table([judge(claim, {}) for claim in claims()], "smoke"))
    text = console.export_text()
    assert text.count(" not run  ") == len(claims()) and claims()[0].comparisons[0].label not in text
