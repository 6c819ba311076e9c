"""Wikitext of other languages and of careless hands: what a reader sees of it, and no markup."""

import io
import time

import pytest

from retrieval.sources import wikipedia


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("l'''Iliade''' et l'''Iliade''", "lIliade et l'Iliade"),  # as MediaWiki shows it
        ("l'''Iliade'' est", "l'Iliade est"),
        ("''Titanic'''s captain", "Titanic's captain"),
        ("'''Foo is ''bar'' x\n'''a", "Foo is bar x a"),
        ("'''a <nowiki>''x''</nowiki> b''''", "a ''x'' b'"),
        ("<pre>''a''</pre> <nowiki>b", "''a'' b"),
    ],
)
def test_apostrophes_are_bold_and_italics(wikitext, text):
    assert wikipedia.plain(wikitext) == text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("-{zh-hans:计算机;zh-hant:電腦}-是-{台}-", "计算机是台"),
        ("-{zh-cn:[[计算机|电脑]];zh-tw:[[電腦]]}-", "电脑"),
        ("a-{T|zh:x}- -{H|zh-cn:a;zh-tw:b}-b", "a b"),
        ("log-{date}-x", "log-{date}-x"),
        ("1-{2-[bis(4–x)]ethyl}-4", "1-{2-[bis(4–x)]ethyl}-4"),
        ("-{{nowrap|a}}-", "--"),
    ],
)
def test_of_a_languages_variants_the_first_is_read(wikitext, text):
    assert wikipedia.plain(wikitext) == text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ('10<sup class="x">6</sup>, 10<sup>&minus;5</sup>, 10<sup>–5</sup>', "10⁶, 10⁻⁵, 10⁻⁵"),
        ("10<sup><small>6</small></sup>, 10<sup>[[x|6]]</sup>", "10⁶, 10⁶"),
        ("[[metre|m]]<sup>2</sup> ''r''<sup>2</sup> 10<sup>6<ref>x</ref></sup>", "m² r² 10⁶"),
        ("10{{sup|6}}, H{{Sub|2}}O, {{minus}}5, 1990{{ndash}}1995", "10⁶, H2O, −5, 1990–1995"),
        ("<sup>235</sup>U, 4<sup>th</sup>, x<sup>n</sup>", "235U, 4th, xn"),
    ],
)
def test_numbers_keep_their_place_and_sign(wikitext, text):
    assert wikipedia.plain(wikitext) == text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        (":{| class=x\n| a\n|}\n* {|\n| b\n|}\nc", "c"),
        ("the [[[United States|American]]] [[a]]]", "the [American] a]"),
        ("__KEIN_INHALTSVERZEICHNIS__ __目次強制__ __init__ __NOTOC__", "__init__"),
        ("a&shy;b &lrm;c\u200b \u200f[[File:\u200ea.jpg|thumb|x]]", "ab c"),
        ("<includeonly>x</includeonly>y", "y"),
    ],
)
def test_what_is_not_shown_leaves_nothing(wikitext, text):
    assert wikipedia.plain(wikitext) == text


@pytest.mark.parametrize(
    "heading",
    ["Notes and references", "External links, sources & notes", "'''References''':", "Einzelnachweise",
     "Weblinks", "Notes et références", "脚注", "外部链接", "См. также"],
)  # fmt: skip
def test_sections_that_point_elsewhere_go_in_other_languages_too(heading):
    assert wikipedia.plain(f"A\n=== {heading} ===\n* x\n== Notes from Underground ==\nb") == "A b"


def pages(*contents: str) -> list[wikipedia.Page]:
    dump = "".join(f"<page><title>A</title><id>1</id>{content}</page>" for content in contents)
    return list(wikipedia.pages(io.BytesIO(f"<mediawiki>{dump}</mediawiki>".encode())))


def test_of_a_history_the_last_revision_is_read():
    revisions = "".join(f"<revision><id>{text}</id><text>t{text}</text></revision>" for text in "12")
    assert [page[-1] for page in pages(f"<ns>0</ns>{revisions}")] == ["t2"]


def test_a_page_without_its_namespace_is_an_error():
    with pytest.raises(ValueError, match="a page without 'ns' after page 1"):
        pages("<revision><text>x</text></revision>")


@pytest.mark.parametrize("redirect", ["#WEITERLEITUNG [[B]]", "#REDIRECTION[[B]]", "#転送 [[B]]"])
def test_a_redirect_of_another_language_is_no_article(redirect):
    texts = ("#1 is the first", "# [[B]]", redirect)
    articles = pages(*(f"<ns>0</ns><revision><text>{text}</text></revision>" for text in texts))
    assert [page[-1] for page in articles] == list(texts[:2])


@pytest.mark.parametrize("mark", ["<nowiki>", "<pre>", "-{", "10<sup>", "[[[", "'''", "__A"])
def test_marks_that_nothing_closes_take_no_time_in_the_square_of_their_number(mark):
    start = time.process_time()
    wikipedia.prepared(mark * 20_000)
    assert time.process_time() - start < 2
