"""Wikipedia XML dump (`pages-articles.xml`, plain or compressed) -> passages, streamed, in the dump's order.

An article becomes plain text: no redirects, templates, tables, references, headings, files, links to other
languages, or sections that list links. The text is cut into passages of about 100 words, as in the passages
of DPR; their ids are `page-number`. Wikitext is parsed by mwparserfromhell on all cores.
"""

import itertools
import os
import re
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO
from xml.etree import ElementTree

from pipeline.characters import UNIT, UNSEEN
from pipeline.stage import end_with
from retrieval.sources.markup import OPAQUE, prepared

WORDS = 100
PAGES_PER_TASK = 64
# Sections that point elsewhere, in the largest editions: they are dropped, with the sections below them.
POINTERS = frozenset(
    """
    bibliography|citations|cited works|explanatory notes|external links|footnotes|further reading|notes
    references|see also|sources|works cited
    anmerkungen|einzelnachweise|fußnoten|siehe auch|weblinks
    articles connexes|bibliographie|liens externes|références|voir aussi
    bibliografía|enlaces externos|notas|referencias|véase también
    altri progetti|bibliografia|collegamenti esterni|note|voci correlate
    ligações externas|referências|ver também
    externe link|externe links|referenties|zie ook|externa länkar|fotnoter|referenser|se även
    linki zewnętrzne|przypisy|uwagi|zobacz też
    примечания|см. также|ссылки|див. також|посилання|примітки
    脚注|関連項目|外部リンク|参考文献|注釈|出典
    参考资料|參考資料|參考文獻|参见|參見|注释|註釋|外部链接|外部連結|相关条目|相關條目|延伸阅读|延伸閱讀
    각주|같이 보기|외부 링크|참고 문헌
    المراجع|مراجع|هوامش|وصلات خارجية|روابط خارجية
    """.strip()
    .replace("\n    ", "|")
    .split("|")
)
AND = re.compile(r" ?[,&/、・] ?| (?:and|und|et|y|e|en|i|и|та|och) |及|和|与|與")
DROPPED_TAG = re.compile(
    "categorytree|ce|chart|chem|gallery|graph|hiero|imagemap|includeonly|indicator|inputbox|maplink|mapframe|math"
    "|phonos|ref|score|section|table|templatedata|templatestyles|timeline"
)
REDIRECT = re.compile(r"\s*#(?:redirect\b|[^\W\d]+\s*:?\s*\[\[)", re.IGNORECASE)  # in any language
# What opens and closes.
PAIRS = re.compile(
    rf"<(?P<opaque>{OPAQUE})\b[^<>]*(?<!/)>.*?</(?P=opaque)\s*>"
    r"|(?P<open>\{\{|\[\[|^[ \t:]*\{\|)|(?P<close>\}\}|\]\]|^[ \t]*\|\}(?!\}))"
    r"|<(?P<end>/?)(?P<tag>[a-z]+)\b[^<>]*?(?P<void>/?)>",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
OPENED = {"}}": "{{", "]]": "[[", "|}": "{|"}
# What goes with a mark that nothing closes: of `{{name|` the text stays, of a table what follows its rows.
UNCLOSED = re.compile(r"\{\{(?:[^{}\[\]|\n]*\|)?|[ \t:]*\{\|[^\n]*(?:\n[ \t]*[|!][^\n]*)*")
DROPPED_NAMESPACES = ("-2", "6", "14")  # media, files, categories
ENGLISH = frozenset(("media", "file", "image", "category"))  # what they are called in every edition
# Prefixes of links to an article in another language: the codes of Wikipedia's editions.
LANGUAGES = frozenset(
    """
    aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba
    ban bar bat-smg bbc bcl bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr
    ca cbk-zam cdo ce ceb ch cho chr chy ckb co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty
    dv dz ee el eml en eo es et eu ext fa fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd
    gl glk gn gom gor got gpe gsw gu guc gur guw gv ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba
    id ie ig igl ii ik ilo inh io is it iu ja jam jbo jv ka kaa kab kaj kbd kbp kcg kg kge ki kj kk kl km
    kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg
    lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw mo mos mr mrj ms mt mus mwl my myv mzn
    na nah nan nap nb nds nds-nl ne new ng nia nl nn no nov nqo nr nrm nso nup nv ny oc olo om or os pa
    pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rm rmy rn ro roa-rup roa-tara rsk ru
    rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn shy si simple sk skr sl sm smn sn so sq sr
    srn ss st stq su sv sw syl szl szy ta tay tcy tdd te tet tg th ti tig tk tl tly tn to tpi tr trv ts
    tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war wo wuu xal xh xmf yi yo yue za zea
    zgh zh zh-classical zh-min-nan zh-yue zu
    """.split()  # noqa: SIM905
)
# What a dropped template leaves between brackets and before a comma; `.NET` and `.312` keep their place.
HOLES = [
    (re.compile(r"\(\s*(?:[;,]\s*)*"), "("),
    (re.compile(r"\s*\(\s*\)"), ""),
    (re.compile(r"\s+([,.;])(?=[\s\"')\]]|$)"), r"\1"),
]
Page = tuple[str, str, frozenset[str], str]  # id, title, prefixes of links that are dropped, wikitext


@dataclass(frozen=True)
class Unreadable:
    """A page that the wikitext parser fails on."""

    title: str
    reason: str


Row = dict[str, str] | Unreadable


def pages(stream: BinaryIO) -> Iterator[Page]:
    """The articles of a dump, one in memory at a time; ValueError names the line that is not XML."""
    root, page = None, dict[str, str]()
    prefixes = ENGLISH
    try:
        for event, element in ElementTree.iterparse(stream, events=("start", "end")):
            root = element if root is None else root
            name = element.tag.rpartition("}")[2]
            if event == "start":
                if name == "page":
                    page = {}
                elif name == "redirect":
                    page["redirect"] = "yes"
            elif element.get("key", element.get("id")) in DROPPED_NAMESPACES and not page:  # or an alias
                prefixes |= {prefix_of(f"{element.text}:")}
            elif name in ("title", "ns", "id"):
                page.setdefault(name, element.text or "")  # the next id is its revision's
            elif name == "text":
                page[name] = element.text or ""  # a history has the oldest first
            elif name == "page":
                text = page.get("text", "")
                if page["ns"] == "0" and "redirect" not in page and not REDIRECT.match(text):
                    yield page["id"], page["title"], prefixes, text
                root.clear()
    except ElementTree.ParseError as error:
        raise ValueError(f"line {error.position[0]}: not XML: {error}") from None
    except KeyError as error:
        raise ValueError(f"a page without {error} after page {page.get('id')}") from None


def prefix_of(link: str) -> str:
    """The prefix before a link's first colon as names are compared: spaces for underscores, no case."""
    prefix, colon, _ = link.replace("_", " ").partition(":")
    return " ".join(prefix.split()).casefold() if colon else ""


def balanced(wikitext: str) -> str:
    """The wikitext without opening and closing marks that lack each other; the parser is slow on these.

    Braces, brackets and tags; linear in the length of the text.
    """
    stack: list[tuple[str, re.Match[str]]] = []
    depth: Counter[str] = Counter()
    lone: list[re.Match[str]] = []
    for match in PAIRS.finditer(wikitext):
        if match["opaque"] or match["void"]:
            continue
        mark = match[0].strip(" \t:")
        name = match["tag"].lower() if match["tag"] else OPENED.get(mark, mark)
        if match["open"] or match["end"] == "":
            stack.append((name, match))
            depth[name] += 1
        elif not depth[name]:
            lone.append(match)
        else:
            while stack[-1][0] != name:
                inner_name, inner_match = stack.pop()
                depth[inner_name] -= 1
                lone.append(inner_match)
            stack.pop()
            depth[name] -= 1
    lone += [match for _, match in stack]
    pieces, at = [], 0
    for match in sorted(lone, key=lambda one: one.start()):
        pieces.append(wikitext[at : match.start()])
        at = max(at, (UNCLOSED.match(wikitext, match.start()) or match).end())
    return "".join([*pieces, wikitext[at:]])


def points(heading: str) -> bool:
    """Whether all that a section's heading names is in `POINTERS`: "Notes and references"."""
    names = AND.split(" ".join(heading.casefold().split()).rstrip(":"))
    return all(name in POINTERS for name in names)


def plain(wikitext: str, prefixes: frozenset[str] = ENGLISH) -> str:
    """The running text of an article on one line; links with one of the `prefixes` leave nothing."""
    import mwparserfromhell
    from mwparserfromhell.nodes import Heading

    code = mwparserfromhell.parse(balanced(prepared(wikitext)))
    nodes: list[Any] = []
    level = 0  # of the section that is being dropped
    for node in code.nodes:
        if isinstance(node, Heading) and (not level or node.level <= level):
            level = node.level if points(node.title.strip_code()) else 0
        elif not isinstance(node, Heading) and not level:
            nodes.append(node)
    code.nodes = nodes
    for tag in code.filter_tags():
        if DROPPED_TAG.fullmatch(str(tag.tag).strip().casefold()):
            tag.contents = ""
    for link in code.filter_wikilinks():
        prefix = prefix_of(str(link.title))
        if prefix in prefixes or prefix in LANGUAGES:
            link.title = link.text = ""
        elif str(link.title).lstrip().startswith(":"):  # shown, unlike the same without the colon
            link.title = str(link.title).lstrip()[1:]
    text = " ".join(code.strip_code().translate(UNSEEN).split())
    for pattern, replacement in HOLES:
        text = pattern.sub(replacement, text)
    return text


def cut(text: str) -> list[str]:
    """Pieces of about `WORDS` words, all of nearly the same length.

    A character of a script without spaces between words is a word.
    """
    starts = [unit.start() for unit in UNIT.finditer(text)]
    count = max(1, round(len(starts) / WORDS)) if starts else 0
    bounds = [starts[len(starts) * i // count] for i in range(count)] + [len(text)]
    return [text[low:high].strip() for low, high in itertools.pairwise(bounds)]


def articles(batch: list[Page]) -> list[Row]:
    """The passages of some pages; an Unreadable in place of a page that can't be parsed."""
    result: list[Row] = []
    for number, title, prefixes, wikitext in batch:
        try:
            text = plain(wikitext, prefixes)
            text.encode()
        except Exception as error:  # one page in millions: the parser's own faults come in any class
            result.append(Unreadable(title, f"{type(error).__name__}: {error}"))
            continue
        pieces = enumerate(cut(text))
        result += [{"id": f"{number}-{i}", "title": title, "text": piece} for i, piece in pieces]
    return result


def rows(stream: BinaryIO) -> Iterator[tuple[int, Row]]:
    """Numbered passages and unreadable pages of a dump; at most a few hundred pages are in memory."""
    workers = len(os.sched_getaffinity(0))
    source, number = pages(stream), 0
    futures: deque[Future[list[Row]]] = deque()
    with ProcessPoolExecutor(workers, initializer=partial(end_with, os.getpid())) as pool:
        while True:
            batch = list(itertools.islice(source, PAGES_PER_TASK))
            if batch:
                futures.append(pool.submit(articles, batch))
            if not futures:
                return
            if not batch or len(futures) > 2 * workers:
                for row in futures.popleft().result():
                    number += 1
                    yield number, row
