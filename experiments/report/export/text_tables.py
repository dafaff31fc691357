"""Tables as text that goes into a paper or a spreadsheet: LaTeX (booktabs), Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

from experiments.report.export.records_csv import harmless

FORMATS = {"latex": "tex", "markdown": "md", "csv": "csv"}  # and the extension of a file
SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "“": "``", "”": "''", "–": "--", "‑": "-", "…": r"\ldots{}"},
    **{"−": "$-$", "×": r"$\times$", "·": r"$\cdot$", "±": r"$\pm$", "≥": r"$\ge$", "≤": r"$\le$", "→": r"$\to$"},
    **{"²": "$^2$", "⁶": "$^6$", "√": r"$\surd$", "∞": r"$\infty$", "°": r"$^\circ$"},
    **{"α": r"$\alpha$", "β": r"$\beta$", "σ": r"$\sigma$", "θ": r"$\theta$", "π": r"$\pi$", "ε": r"$\epsilon$"},
}


def written(
    columns: Sequence[str], rows: Sequence[Sequence[str]], form: str, bold: Sequence[tuple[int, int]] = ()
) -> str:
    """A table in one of FORMATS. bold: the cells, as row and column from 0, that stand out."""
    return {"latex": latex, "markdown": markdown, "csv": comma_separated}[form](columns, rows, bold)


def latex(columns: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[tuple[int, int]] = ()) -> str:
    """A tabular of the package booktabs: texts to the left, columns with a number in any cell to the right."""
    right = [
        any(row[index][:1].lstrip("-−").isdigit() or row[index][:2].strip("-−").isdigit() for row in rows)
        for index in range(len(columns))
    ]
    lines = [rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in right)}}}", r"\toprule"]
    lines += [" & ".join(map(escaped, columns)) + r" \\", r"\midrule"]
    for number, row in enumerate(rows):
        cells = [
            rf"\textbf{{{escaped(cell)}}}" if (number, index) in bold else escaped(cell)
            for index, cell in enumerate(row)
        ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    """A text as LaTeX prints it."""
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[tuple[int, int]] = ()) -> str:
    """A table in Markdown."""
    strong = [
        [f"**{cell}**" if (number, index) in bold else cell for index, cell in enumerate(row)]
        for number, row in enumerate(rows)
    ]
    lines = [columns, ["---"] * len(columns), *strong]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def comma_separated(columns: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[tuple[int, int]] = ()) -> str:
    """A table as CSV, in which nothing stands out."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[harmless(cell) for cell in line] for line in (columns, *rows)])
    return text.getvalue()
