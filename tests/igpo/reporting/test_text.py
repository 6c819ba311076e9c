"""Tables as Markdown, LaTeX and CSV."""

import re

import results_tree

from igpo.reporting.cells import percent
from igpo.reporting.text import Part, csv_text, latex_parts, markdown_parts


def test_markdown_has_both_tables_and_says_what_vitalqa_is(made, tmp_path):
    text = results_tree.tables_of(made, tmp_path / "out")["main.md"].decode()
    assert "| 60.0 (3) | 60.0 (1) |" in re.sub(" +", " ", text)  # covered, uncovered
    ours, published = text.split("## Published by the paper")
    assert "| igpo | igpo | 1 2 | 2 2 | vitalqa:4 | abababababab | igpo_s1 policy igpo_s2 policy |" in re.sub(
        " +", " ", ours
    )
    assert "60.0 ± 14.1 | [50.0, 70.0]" in re.sub(" +", " ", ours)
    assert "this project's own question set" in ours
    assert "closed book" in ours and "closed book" not in published
    assert "StepSearch-base | – |" in re.sub(" +", " ", published)  # the paper's dashes stay dashes
    assert "arXiv:2510.14967v2" in published


def test_names_with_signs_of_markdown_and_latex_stay_text():
    part = Part("T", ["method", "Q&A|x"], [[r"a\b #1 $x$ {y} ~ ^", "1"]])
    assert r"| Q&A\|x |" in markdown_parts([part])
    latex = latex_parts([part])
    assert "method & Q\\&A|x \\\\\n\\hline" in latex
    assert r"a\textbackslash{}b \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} & 1 \\" in latex


def test_whole_numbers_stay_whole_beside_empty_cells():
    rows = [{"n": 12345678, "x": 0.1234567}, {"x": None}, {"n": None, "x": 2.0, "y": "a,b"}]
    assert csv_text(rows, ("n", "x", "y")) == 'n,x,y\n12345678,0.123457,\n,,\n,2,"a,b"\n'


def test_latex_is_balanced_and_escaped(made, tmp_path):
    text = results_tree.tables_of(made, tmp_path / "out")["main.tex"].decode()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert not re.search(r"(?<!\\)[%_]", text.replace(r"\begin{", "").replace(r"\end{", ""))


def test_what_was_not_measured_is_a_dash():
    assert percent(None) == "–"
