"""Wikipedia dumps: pages, wikitext, and what is wrong with them."""

import bz2
import io

import pytest
from corpus_stage import CONFIG, load
from small_index import refusal

from pipeline import storage
from retrieval import corpus
from retrieval.sources import wikipedia

DUMP = """\
<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
  <siteinfo><sitename>Wikipedia</sitename></siteinfo>
  <page><title>Argon</title><ns>0</ns><id>12</id><revision><id>900</id><text>{{Infobox|name=argon}}
'''Argon''' ({{IPA|x}}; from [[Greek language|Greek]]) is a
[[noble gas]]&lt;ref name="a"&gt;Book&lt;/ref&gt;, found in air {{as of|2020}}.
[[File:Argon.jpg|thumb|A [[lamp]] caption]]
{| class="wikitable"
! Row
| cell
|}
== History ==
* Found in 1894.&lt;!-- hidden --&gt;
==See also==
* [[Neon]]
[[Category:Gases]]</text></revision></page>
  <page><title>Ar</title><ns>0</ns><id>13</id><redirect title="Argon" /><revision><id>901</id>
    <text>#REDIRECT [[Argon]]</text></revision></page>
  <page><title>Talk:Argon</title><ns>1</ns><id>14</id><revision><id>902</id><text>hello</text></revision></page>
  <page><title>Long</title><ns>0</ns><id>15</id><revision><id>903</id><text>{words}</text></revision></page>
</mediawiki>
"""


def test_a_wikipedia_dump_becomes_passages_of_about_100_words(tmp_path):
    words = [f"w{i}" for i in range(260)]
    dump = DUMP.replace("{words}", " ".join(words)).encode()
    passages = load(tmp_path, "pages-articles.xml.bz2", bz2.compress(dump))
    assert passages[0] == ("12-0", "Argon", "Argon (from Greek) is a noble gas, found in air. Found in 1894.")
    assert [(name, title) for name, title, _ in passages[1:]] == [(f"15-{i}", "Long") for i in range(3)]
    assert " ".join(text for _, _, text in passages[1:]).split() == words
    assert [len(text.split()) for _, _, text in passages[1:]] == [86, 87, 87]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("氩是一种元素，" * 40, ["氩是一种元素，" * 20] * 2),
        ("น้ำ" * 150, ["น้ำ" * 50] * 3),
        ("In 1894 氩 (“argon”) was found.", ["In 1894 氩 (“argon”) was found."]),
        ("", []),
    ],
)
def test_a_character_of_a_script_without_spaces_is_a_word_of_a_passage(text, pieces):
    assert wikipedia.cut(text) == pieces


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("a city<br>in [[Switzerland]]<br />and", "a city in Switzerland and"),
        ("<p>One</p><p>Two</p><LI>Three</LI>", "One Two Three"),
        ("__NOTOC__H<sub>2</sub>O", "H2O"),
        ("3 × 10<sup>4</sup> km<sup>2</sup>, 10<sup>−6</sup>", "3 × 10⁴ km², 10⁻⁶"),
        ("10<sup>4.5</sup>, the 4<sup>th</sup>, 10<sub>2</sub>", "10^4.5, the 4th, 10₂"),
        ("the .NET Framework batted .312 , she said .", "the .NET Framework batted .312, she said."),
        (
            "One [[de:Eins]] [[zh-min-nan:It]][[ File :A.jpg|thumb|x]] [[image:b.png|a [[link]]]] two",
            "One two",
        ),
        ("[[Re:Zero]], [[wikt:foo|foo]] and [[:de:Eins|eins]]", "Re:Zero, foo and eins"),
        ('A <mapframe zoom="9">{"type":"Feature"}</mapframe><maplink>{}</maplink> b', "A b"),
        (
            "A\n== Tracks ==\n=== Notes ===\nx\n== Charts ==\nFour.\n== References ==\n=== Books ===\ny",
            "A Four.",
        ),
        ("A {{small|b [[c]] d", "A b c d"),
        ("A [[b {{c}} d ]] ]] e }} <ref>f", "A b d e f"),
        ("{{quote|<math>\\frac{a}{\\sqrt{b}}</math> x}} y", "y"),
    ],
)
def test_words_are_those_that_a_reader_sees(wikitext, text):
    assert wikipedia.plain(wikitext) == text


def test_the_dump_says_what_its_namespaces_are_called():
    page = "<page><title>A</title><ns>0</ns><id>1</id><revision><text>{}</text></revision></page>"
    names = (
        '<namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace><ns id="6">Bild</ns>'
    )
    links = "[[Datei:a.png|mini|x]] [[bild: b.png]] [[KATEGORIE:C]] [[Hilfe:D]] [[File:e.png]]"
    dump = f"<mediawiki><siteinfo><namespaces>{names}</namespaces></siteinfo>{page.format(links)}</mediawiki>"
    (row,) = [row for _, row in wikipedia.rows(io.BytesIO(dump.encode()))]
    assert row["text"] == "Hilfe:D"


@pytest.mark.parametrize("mark", ["{{small|", "[[", "<ref>", "\n{|\n", "}}", "]]"])
def test_marks_that_lack_each_other_do_not_reach_the_parser(mark):
    """It takes time in the square of their number."""
    wikitext = wikipedia.balanced(f"word {mark} [[link]] {{{{a|b}}}}\n" * 50)
    assert wikitext.count("[[link]] {{a|b}}") == 50
    for bracket in ("{{", "}}", "[[", "]]"):
        assert wikitext.count(bracket) == 50
    assert "<ref>" not in wikitext
    assert "{|" not in wikitext


def test_the_rows_of_a_table_that_nothing_closes_go_with_it():
    wikitext = "Before.\n{| class=wikitable\n! head\n|-\n| [[link]] || {{unclosed\n|}}\nAfter | all."
    assert wikipedia.plain(wikitext) == "Before. After | all."


def test_a_redirect_without_its_element_is_none_of_the_articles():
    page = "<page><title>A</title><ns>0</ns><id>1</id><revision><text>{}</text></revision></page>"
    dump = f"<mediawiki>{page.format('#redirect [[B]]')}{page.format('# redirected')}</mediawiki>"
    assert [text for *_, text in wikipedia.pages(io.BytesIO(dump.encode()))] == ["# redirected"]


def test_a_page_that_cannot_be_parsed_is_left_out_and_counted(tmp_path, caplog, capsys, monkeypatch):
    import mwparserfromhell

    parse = mwparserfromhell.parse

    def failing(wikitext):
        if "noble gas" in wikitext:
            raise mwparserfromhell.parser.ParserError("C tokenizer exited with non-empty token stack")
        return parse(wikitext)

    monkeypatch.setattr(mwparserfromhell, "parse", failing)  # the workers are forked
    half = (
        "<page><title>Half</title><ns>0</ns><id>16</id><revision><text>&amp;#xD800;</text></revision></page>"
    )
    dump = DUMP.replace("{words}", "one two").replace("</mediawiki>", half + "</mediawiki>")
    (tmp_path / "dump.xml").write_text(dump)
    corpus.main([*CONFIG, "--source", str(tmp_path / "dump.xml"), "--out", str(tmp_path / "o.parquet")])
    titles = storage.read(tmp_path / "o.parquet", storage.CORPUS)["title"].to_pylist()
    assert titles == ["Long"]
    assert "dump.xml: page 'Half' is left out: UnicodeEncodeError: " in caplog.text
    assert "dump.xml: page 'Argon' is left out: ParserError: " in caplog.text
    assert "1 passages, 0 missing and 0 repeated ids replaced, 2 unreadable pages left out" in (
        capsys.readouterr().out
    )


def test_a_broken_dump_names_its_line(tmp_path, capsys):
    (tmp_path / "dump.xml").write_text(DUMP.replace("</title><ns>1", "<ns>1"))
    message = refusal(
        capsys, corpus.main, *CONFIG, "--source", tmp_path / "dump.xml", "--out", tmp_path / "o"
    )
    assert "dump.xml: line 18: not XML: mismatched tag" in message
    assert not (tmp_path / "o").exists()
