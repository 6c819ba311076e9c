"""Corpus rows -> VitalQA: questions by fixed rules from titles, descriptions and leads.

A corpus text is `description. lead`. A rule is a pattern over one of the two and a sentence to ask; what it
captures is the answer, word for word. A question is dropped when its answer does not stand within the first
`passage_chars` characters of `title\\ntext`, stands in the question, or has a second value in the text; when
its title may mean two articles; and when another question reads the same. Comparisons ask for a year and not
for a name: the name would stand in the question, and every second guess would be right.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MAX_PER_TYPE = 450  # no type may outweigh the rest
MAX_PER_HUB = 12  # bridges over one country, whose articles must all go to one split

YEAR = r"[1-9]\d{2,3}"
DATE = r"(?:\d{1,2} )?(?:[A-Z][a-z]+ )?(?:\d{1,2},? )?"
SPAN = rf"(?P<start>{YEAR})–(?P<end>{YEAR})"
YEARS = rf"(?P<start>{YEAR}) to (?P<end>{YEAR})"
LINK = "of|in|on|at|for|from|by|between|against|with|led|fought|among|centred|based|across|leader|during"
LIFE = rf"^(?P<what>[^(;]+) \((?P<born>{YEAR})–(?P<died>{YEAR})\)$"
ALIVE = rf"^(?P<what>[^(;]+) \(born (?P<born>{YEAR})\)$"
RULER = (
    "President|King|Queen|Emperor|Empress|[a-z]+ emperor|[a-z]+ empress|Sultan|Prime Minister|Chancellor|Tsar|"
    "Shah|Leader|Dictator|Grand Prince|Khan|[a-z]+ caliph|Ruler|Emir|Archbishop|Head of the Catholic Church"
)
REIGN = rf"^(?:[^,;]*, )?(?P<role>(?:[A-Z][\w.]+ )*?(?i:{RULER})[^,;\d]*?) from {YEARS}$"
STATE = "dynasty|empire|kingdom|state|republic|caliphate|sultanate|principality|khanate|polity|shogunate"
WAR = "wars?|conflicts?|rebellion|revolution|revolt|uprising|pandemic|genocide|depression|famine"
CLASH = "battle|earthquake|coup|massacre|conference|conquest|disaster|uprising|revolution|attacks?|shooting|crash|"
CLASH += "overthrow|invasion|protests|investigation|discussion|expedition"
FAMILY = r"\b(?:in|of|to|from) the (?:[a-z-]+ ){0,3}?family (?P<family>[A-Z][a-z]+(?:idae|aceae))\b"
NATION = r"^(?P<nation>[A-Z][a-z]+(?:an|ese|ish|ch|ek|i|ss|ic|sh|er)) (?!and )[a-z][a-z ,-]+ \([^)]*\)$"
ELEMENT = r"^Chemical element with atomic number (?P<number>\d+) \((?P<symbol>[A-Z][a-z]?)\)$"
NAME = r"(?:[A-Z]\.|[A-Z][\w'’-]+)(?: (?:[A-Z]\.|[A-Z][\w'’-]+|de|da|van|von|of))*"
FIELD = r"(?:Physics|Chemistry|Literature|Physiology or Medicine)"
NOBEL = rf"(?P<prize>Nobel (?:Peace Prize|Prize in {FIELD}))"
FOUNDED = "founded|established|formed|launched|introduced|incorporated|completed|opened|built"
BORN = rf"\bborn\b[^.;()]{{0,30}}?\b({YEAR})\b"
DIED = rf"\b(?:died|death|killed|executed|assassinated|murdered)\b[^.;()]{{0,30}}?\b({YEAR})\b"
FROM = rf"\b(?:from|since|became|throne in|crowned)\b[^.;()]{{0,25}}?\b({YEAR})\b"
UNTIL = rf"\b(?:until|to|till|abdicated in|deposed in) (?:(?:his|her) )?(?:death )?(?:in )?{DATE}({YEAR})\b"
BEGAN = rf"\b(?:began|started|broke out|founded|established|from|between)\b[^.;()]{{0,25}}?\b({YEAR})\b"
ENDED = rf"\b(?:ended|dissolved|collapsed|fell|until|abolished|to|and(?= \d))\b[^.;()]{{0,20}}?\b({YEAR})\b"
MADE = rf"\b(?:published|released|premiered|completed|performed|painted)\b[^.;()]{{0,40}}?\b({YEAR})\b"


class Rule(NamedTuple):
    """One question type: where its pattern looks, which group answers, what would contradict it."""

    type: str
    source: str  # description | lead | text
    pattern: str
    answer: str
    ask: str
    clash: str = ""  # every year that this finds in the lead must equal the answer


class Draft(NamedTuple):
    """A question before its split; articles are given as row numbers of the corpus."""

    type: str
    ask: str
    answer: str
    at: int  # the article that states the answer
    support: tuple[int, ...]  # in the order of the hops
    touches: tuple[int, ...] = ()  # further articles that belong in the same split


def _span_rules(kind: str, thing: str, first: str, last: str) -> list[Rule]:
    """Rules for the first and last year of things whose description names a `kind` and a span of years."""
    word = rf"(?!(?:{LINK}) )[\w–'’-]+,? "  # the kind must be what the description is about, not what it mentions
    what = rf"(?:Series of )?(?:{word})*(?i:{kind})(?: (?:{LINK})\b[^(;\d]*)?"
    return [
        Rule(f"{thing}_{group}", "description", pattern, group, ask, clash)
        for group, ask, clash in [("start", first, BEGAN), ("end", last, ENDED)]
        for pattern in (rf"^{SPAN} {what}$", rf"^{what}(?:,? \(|, ){SPAN}\)?$", rf"^{what} from {YEARS}$")
    ]


RULES = [
    *[
        Rule("birth_year", "description", p, "born", "In which year was {x} born?", BORN)
        for p in (LIFE, ALIVE)
    ],
    Rule("death_year", "description", LIFE, "died", "In which year did {x} die?", DIED),
    Rule("reign_start", "description", REIGN, "start", "In which year did {x} become {role}?", FROM),
    Rule("reign_end", "description", REIGN, "end", "Until which year was {x} {role}?", UNTIL),
    *_span_rules(WAR, "war", "In which year did {x} begin?", "In which year did {x} end?"),
    *_span_rules(STATE, "state", "In which year was {x} founded?", "In which year did {x} cease to exist?"),
    Rule(
        "event_year",
        "description",
        rf"^(?P<year>{YEAR}) (?!BC)[^(;\d]*\b(?:{CLASH})\b[^(;\d]*$",
        "year",
        "In which year did {x} take place?",
        rf"\b(?:took place|occurred|fought|held|began)\b[^.;()]{{0,30}}?\b({YEAR})\b",
    ),
    Rule(
        "event_year",
        "description",
        rf"^(?P<year>{YEAR}) (?!BC)[^(;\d]*\b(?:treaty|treaties|agreement|accord)\b[^(;\d]*$",
        "year",
        "In which year was {x} signed?",
        rf"\bsigned\b[^.;()]{{0,30}}?\b({YEAR})\b",
    ),
    *[
        Rule("nobel_year", "lead", pattern, "year", "In which year did {x} receive the {prize}?")
        for pattern in (
            rf"(?:awarded|received|won|winner of|recipient of|for) the (?P<year>\d{{4}}) {NOBEL}",
            rf"(?:awarded|received|won|receiving|winning) (?:the|a) {NOBEL} in (?P<year>\d{{4}})\b(?! and)",
        )
    ],
    *[
        Rule("founding_year", "lead", pattern, "year", "In which year {was} {x} {verb}?")
        for pattern in (
            rf"\. (?P<it>[^.,]{{2,40}}) was (?:originally |officially |first )?(?P<verb>{FOUNDED}) "
            rf"(?:[a-z]+ )?(?:in (?:[A-Z]\w+ )?(?:in )?|on ){DATE}(?P<year>\d{{4}})\b",
            rf"(?:^|\. )(?i:(?P<verb>founded|established|formed)) (?:in|on) {DATE}(?P<year>\d{{4}})\b",
            rf"^(?P<it>[^.,]{{3,60}}?) (?:is|are|was|were) an? [^.,;]*\b(?P<verb>{FOUNDED}) "
            rf"(?:in [A-Z]\w+ )?(?:in|on) {DATE}(?P<year>\d{{4}})\b",
        )
    ],
    Rule(
        "founding_year",
        "description",
        r"\b(?P<verb>founded|established|launched|introduced|formed) in (?P<year>\d{4})$",
        "year",
        "In which year {was} {x} {verb}?",
    ),
    Rule(
        "discovery_year",
        "lead",
        rf"(?:^|\. )(?P<it>[^.,]{{2,40}}) was (?:first )?discovered (?:by [^,;]{{3,50}} )?(?:in|on) "
        rf"{DATE}(?P<year>\d{{4}})\b",
        "year",
        "In which year was {x} discovered?",
    ),
    Rule("taxon_family", "text", FAMILY, "family", "Which biological family does {x} belong to?"),
    Rule("nationality", "description", NATION, "nation", "What was the nationality of {x}?"),
    Rule("atomic_number", "description", ELEMENT, "number", "What is the atomic number of {lower}?"),
]


class Kind(NamedTuple):
    """How to speak of a work: the verb of its maker, what the maker is called, how its year is asked."""

    made: str
    maker: str
    year: str


BOOK = Kind("wrote", "author", "In which year was {x} published?")
FILM = Kind("directed", "director", "In which year was {x} released?")
MUSIC = Kind("composed", "composer", "Which year does {x} date from?")
ART = Kind("painted", "painter", "Which year does {x} date from?")
SONG = Kind("recorded", "performer", "In which year was {x} released?")
KINDS = {
    **dict.fromkeys(
        ("novel", "novella", "book", "essay", "treatise", "poem", "play", "tragedy", "comedy"), BOOK
    ),
    **dict.fromkeys(("opera", "ballet", "symphony", "oratorio", "composition", "musical", "mass"), MUSIC),
    **dict.fromkeys(("pamphlet", "encyclopedia", "dialogue", "work", "trilogy"), BOOK),
    **dict.fromkeys(("painting", "fresco", "triptych"), ART),
    **dict.fromkeys(("character", "comic strip", "manga series"), Kind("created", "creator", "")),
    **dict.fromkeys(("album", "single"), SONG),
    "film": FILM,
}
WORK = (
    rf"^(?:(?P<year>{YEAR}) )?(?P<what>[^,;()\d]*?\b(?P<kind>(?i:{'|'.join(KINDS)})))"
    rf"(?: (?:on|of|in) [\w ]+?)?(?: directed| written| created| compiled)? by (?P<maker>{NAME})$"
)
CAPITAL = (
    r"^(?:Federal )?[Cc]apital(?: city| municipality)?(?:(?: and|,) [a-z ,-]+?)? (?:of|in) "
    r"(?:the )?(?P<in>[A-Z][\w' ]+)$"
)
COUNTRY = r"^(?:[A-Z][a-z-]+ )?(?i:island )?(?i:country)\b(?!.*\d)(?! within)"
NATURE = "river|lake|mountains?|range|volcano|peak|island|desert|region|peninsula|plateau|valley|waterfall|massif"
PLACE = (
    f"city|town|metropolis|municipality|capital|university|temple|mosque|palace|cathedral|basilica|church|castle|"
    f"fort|fortress|citadel|monument|mausoleum|museum|bridge|park|province|state|prefecture|department|community|"
    f"territory|site|ruins|tower|skyscraper|building|square|tomb|port|village|dam|reservoir|canal|complex|"
    f"observatory|monolith|reef|headland|statue|necropolis|{NATURE}"
)
INSIDE = (
    rf"^(?!Former|Border|Political|(?i:.*(?:\bwar|\d{{3}}|empire|kingdom|dynasty|culture)))(?=.*\b(?i:{PLACE})\b)"
    r"[^()]*?(?:\bin|\bof|,) (?:the )?(?P<in>[A-Z][\w' ]+)$"
)
MADE_BY = (
    r"(?:^|\. )(?P<it>[^.,;]{2,50}?) (?:is|was|were|are)\b[^.;]*?\b(?:(?P<verb>discovered|invented|introduced|"
    r"founded|formulated|designed|developed|proposed|created|discovered)(?: in \d{4})? by|named (?:after|in honou?r of))"
    rf" (?:the )?(?:[A-Z]?[a-z-]+ (?:and )?){{0,5}}(?P<maker>{NAME})(?! and| &|, [A-Z]| of)"
)


NEEDS_THE = (
    r"^(?:Battle|Fall|Sinking|Siege|Kingdom|Treaty|Atomic bombings|Dissolution|Republic|Duchy|Attack|Sack) |"
    r"(?i: (?:wars?|revolution|dynasty|empire|party|rebellion|massacre|genocide|coup))$"
)


class Articles:
    """The corpus cut into title, description and lead, and how to speak of an article."""

    def __init__(self, rows: Iterable[Mapping[str, str]], passage_chars: int):
        self.rows = list(rows)
        self.title = [row["title"] for row in self.rows]
        self.head = [f"{row['title']}\n{row['text']}"[:passage_chars] for row in self.rows]
        cuts = [re.split(r"(?<![ (.][A-Za-z])(?<!St)\. ", row["text"], maxsplit=1) for row in self.rows]
        self.description = [cut[0] for cut in cuts]
        self.lead = [cut[-1] for cut in cuts]
        self.number = {title: i for i, title in enumerate(self.title)}
        bare = Counter(re.sub(r" \(.*\)$", "", title).casefold() for title in self.title)
        # A title that opens a longer one (Napoleon, Napoleon III) may mean either.
        starts = {t[: m.start()] for t in self.title for m in re.finditer(" ", t)}
        self.clear = ["(" not in t and bare[t.casefold()] == 1 and t not in starts for t in self.title]

    def name(self, i: int) -> str:
        """The title as it reads inside a sentence: with "the" and in lower case where the lead has it so."""
        title, lead = self.title[i], self.lead[i]
        lower = title[0].lower() + title[1:]
        if title.startswith("The "):
            return lower
        common = re.search(rf"\b{re.escape(lower)}(?:e?s)?\b", lead) and not title[1:] != title[1:].lower()
        said = lower if common else title
        with_the = rf"(?<!officially )\bthe {re.escape(title)}\b(?![’'-]| [A-Z])"
        counted = rf"\b(?:an?|the) {re.escape(lower)}\b|\b{re.escape(title)}e?s\b"
        if common and re.search(counted, lead, re.I) or re.search(with_the, lead[: len(title) + 40], re.I):
            return f"the {said}"
        return f"the {said}" if re.search(NEEDS_THE, title) else said

    def means(self, i: int, subject: str | None) -> bool:
        """Whether the subject of a sentence in the lead of article `i` is the article's own."""
        plain = re.sub(r"^(?:The|An?) ", "", subject or "It").casefold()
        title = self.title[i].casefold()
        nouns = self.description[i].casefold().split()  # "The company was founded …" under "American company"
        return plain in {"it", "they", title, title.removeprefix("the ")} or plain in nouns

    def years(self, pattern: str, i: int) -> set[str]:
        """The years that `pattern` finds in the lead."""
        return set(re.findall(pattern, self.lead[i])) if pattern else set()


def by_rules(articles: Articles) -> Iterator[Draft]:
    """One-hop questions from `RULES`."""
    for rule in RULES:
        texts = {"description": articles.description, "lead": articles.lead, "text": articles.head}[rule.source]
        for i, text in enumerate(texts):
            found = [m for m in re.finditer(rule.pattern, text) if articles.means(i, m.groupdict().get("it"))]
            if not articles.clear[i] or len({m[rule.answer] for m in found}) != 1:
                continue
            answer = found[0][rule.answer]
            if articles.years(rule.clash, i) <= {answer}:
                words = {key: value for key, value in found[0].groupdict().items() if value}
                words |= {"x": articles.name(i), "lower": articles.title[i].lower()}
                many = re.search(rf"{re.escape(articles.title[i])} (?:are|were)\b", articles.lead[i])
                words |= {"verb": words.get("verb", "").lower(), "was": "were" if many else "was"}
                ask = rule.ask.format(**words)
                yield Draft(rule.type, ask, answer, i, (i,))


def by_rulers(articles: Articles) -> Iterator[Draft]:
    """Who held an office in given years; the answer is the article's title."""
    for i, description in enumerate(articles.description):
        m = re.search(REIGN, description)
        if m and articles.clear[i]:
            ask = f"Who was {m['role']} from {m['start']} to {m['end']}?"
            yield Draft("ruler", ask, articles.title[i], i, (i,))


def called(articles: Articles, i: int, work: re.Match[str]) -> str:
    """A work with its kind, so that it is not taken for anything else: "the novel Emma"."""
    what = work["what"]
    proper = re.match(r"(?:\w+ )?[A-Z]\w+(?:an|ese|ish|ch|ek|in)\b", what)
    return f"the {what[0].lower() + what[1:] if not proper or proper.end() > len(what.split()[0]) else what} {articles.title[i]}"


def by_works(articles: Articles, facts: Mapping[tuple[str, int], str]) -> Iterator[Draft]:
    """Years and makers of works, and the years of birth and death of the makers (two hops)."""
    for i, description in enumerate(articles.description):
        m = re.search(WORK, description)
        if not m or not articles.clear[i]:
            continue
        kind = KINDS[m["kind"].lower()]
        x = called(articles, i, m)
        if m["year"] and kind.year and articles.years(MADE, i) <= {m["year"]}:
            yield Draft("work_year", kind.year.format(x=x), m["year"], i, (i,))
        yield Draft("creator", f"Who {kind.made} {x}?", m["maker"], i, (i,))
        yield from maker_years(articles, facts, i, m["maker"], f"the {kind.maker} of {x}")


def by_makers(articles: Articles, facts: Mapping[tuple[str, int], str]) -> Iterator[Draft]:
    """Discoverers, inventors, founders and namesakes, and their years of birth and death (two hops)."""
    for i, head in enumerate(articles.head):
        m = re.search(MADE_BY, head[head.find(articles.lead[i][:20]) :])
        if not m or not articles.clear[i] or not articles.means(i, m["it"]):
            continue
        x = articles.name(i)
        if m["verb"] and " " in m["maker"]:
            yield Draft("discoverer", f"Who {m['verb']} {x}?", m["maker"], i, (i,))
        who = f"the person who {m['verb']} {x}" if m["verb"] else f"the person after whom {x} is named"
        yield from maker_years(articles, facts, i, m["maker"], who)


def maker_years(
    articles: Articles, facts: Mapping[tuple[str, int], str], work: int, maker: str, who: str
) -> Iterator[Draft]:
    """Two-hop questions for the years of birth and death of `maker`, called `who`."""
    person = articles.number.get(maker)
    for fact, ask in [("birth_year", f"In which year was {who} born?"), ("death_year", f"In which year did {who} die?")]:
        if person is not None and (fact, person) in facts:
            yield Draft(f"creator_{fact}", ask, facts[fact, person], person, (work, person))


def by_places(articles: Articles) -> Iterator[Draft]:
    """Countries of places, capitals of countries, and the capital of the country of a place (two hops)."""
    countries = {t: i for i, t in enumerate(articles.title) if re.search(COUNTRY, articles.description[i])}
    seats = defaultdict(list)
    for i, description in enumerate(articles.description):
        m = re.search(CAPITAL, description)
        if m and m["in"] in countries:
            seats[m["in"]].append(i)
    for country, cities in seats.items():
        if len(cities) == 1:
            ask = f"What is the capital of {articles.name(countries[country])}?"
            yield Draft("capital", ask, articles.title[cities[0]], cities[0], (cities[0],), (countries[country],))
    taken = {city for cities in seats.values() for city in cities}
    for i, description in enumerate(articles.description):
        m = re.search(INSIDE, description)
        if not m or not articles.clear[i] or i in taken or m["in"] not in countries:
            continue
        x, country = articles.name(i), m["in"]
        foreign = any(c != country and re.search(rf"\b{c}\b", articles.head[i]) for c in countries)
        if foreign and re.search(rf"\b(?i:{NATURE})\b", description):
            continue  # a river or a mountain range may cross the border
        yield Draft("place_country", f"In which country is {x} located?", country, i, (i,))
        if len(seats[country]) == 1 and seats[country][0] != i:
            ask = f"What is the capital of the country in which {x} is located?"
            city = seats[country][0]
            yield Draft("country_capital", ask, articles.title[city], city, (i, city), (countries[country],))


FIRST = {
    "birth_year": ("born_first", "In which year was the elder of {a} and {b} born?"),
    "death_year": ("died_first", "When the first of {a} and {b} died, which year was it?"),
    "work_year": ("released_first", "In which year did the earlier of {a} and {b} appear?"),
}


def by_pairs(articles: Articles, facts: Mapping[tuple[str, int], str], makers: Collection[int]) -> Iterator[Draft]:
    """The earlier of two years. An article is in one pair at most, so that pairs do not chain the splits."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    works = {i: m for fact, i in facts if fact == "work_year" and (m := re.search(WORK, articles.description[i]))}
    output = Counter(m["maker"] for m in works.values())
    for i, m in works.items():
        alike["work_year", m["maker"] if output[m["maker"]] > 1 else m["kind"]].append(i)
    for fact, i in facts:
        life = re.search(LIFE, articles.description[i])
        if life and i not in makers and fact == ("birth_year" if share(articles.title[i]) < 0.5 else "death_year"):
            alike[fact, life["what"].split()[-1]].append(i)
    for (fact, _), members in sorted(alike.items()):
        members.sort(key=lambda i: share(articles.title[i]))
        for a, b in zip(members[::2], members[1::2], strict=False):
            early = min(a, b, key=lambda i: int(facts[fact, i]))
            if facts[fact, a] != facts[fact, b]:
                type_, ask = FIRST[fact]
                names = [called(articles, i, works[i]) if i in works else articles.name(i) for i in (a, b)]
                ask = ask.format(a=names[0], b=names[1])
                yield Draft(type_, ask, facts[fact, early], early, (a, b))


def share(key: str) -> float:
    """A fixed pseudo-random number in [0, 1) for a text."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) / 16**12


def sound(articles: Articles, drafts: Iterable[Draft]) -> list[Draft]:
    """Drafts whose answer is unique, in the passage, not in the question, and not before the last hop."""
    drafts = list(dict.fromkeys(drafts))
    asked = Counter(d.ask.casefold() for d in drafts)
    values = Counter((d.type, d.support) for d in drafts)
    return [
        d
        for d in drafts
        if asked[d.ask.casefold()] == 1
        and values[d.type, d.support] == 1
        and d.answer.casefold() not in d.ask.casefold()
        and re.search(rf"(?<!\w){re.escape(d.answer)}(?!\w)", articles.head[d.at].partition("\n")[2])
        and not any(d.answer in articles.rows[i]["text"] for i in d.support if i != d.at)
    ]


def thin(drafts: Iterable[Draft], seen: Counter[Any]) -> Iterator[Draft]:
    """At most MAX_PER_TYPE drafts of a type and MAX_PER_HUB bridges of a type to one article."""
    for d in sorted(drafts, key=lambda d: share(d.ask)):
        hub = (d.type, d.at) if len(d.support) == 2 else None
        if seen[d.type] < MAX_PER_TYPE and (hub is None or seen[hub] < MAX_PER_HUB):
            seen.update([d.type, hub] if hub else [d.type])
            yield d


def groups(drafts: Iterable[Draft]) -> dict[int, int]:
    """Article -> smallest article of those that questions connect it with."""
    root: dict[int, int] = {}

    def find(i: int) -> int:
        while root.setdefault(i, i) != i:
            i = root[i]
        return i

    for d in drafts:
        for other in (*d.support, *d.touches):
            low, high = sorted((find(d.at), find(other)))
            root[high] = low
    return {i: find(i) for i in root}


def build(
    corpus: Iterable[Mapping[str, str]],
    *,
    seed: int,
    dev_share: float,
    test_share: float,
    passage_chars: int,
    headline_types: Collection[str],
) -> list[dict[str, Any]]:
    """Question rows (`igpo.schema.QUESTIONS`) from corpus rows (`id`, `title`, `text`).

    Articles that share a question go to one split, drawn by a hash of the group and `seed`. Types outside
    `headline_types` form the benchmark "vitalqa_guessable".
    """
    articles = Articles(corpus, passage_chars)
    simple = sound(articles, [*by_rules(articles), *by_rulers(articles), *by_places(articles)])
    facts = {(d.type, d.at): d.answer for d in simple}
    made = sound(articles, [*by_works(articles, facts), *by_makers(articles, facts)])
    facts |= {(d.type, d.at): d.answer for d in made if len(d.support) == 1}
    makers = {d.at for d in made if len(d.support) == 2}
    drafts = list(thin([*simple, *made, *sound(articles, by_pairs(articles, facts, makers))], Counter()))
    group = groups(drafts)
    rows = []
    for d in drafts:
        ids = [articles.rows[i]["id"] for i in d.support]
        draw = share(f"{seed}:{articles.rows[group[d.at]]['id']}")
        rows.append(
            {
                "question_id": "-".join(["vitalqa", d.type, *ids]),
                "benchmark": "vitalqa" if d.type in headline_types else "vitalqa_guessable",
                "question": d.ask,
                "answers": [d.answer],
                "supporting_ids": ids,
                "hops": len(ids),
                "split": "test" if draw < test_share else "dev" if draw < test_share + dev_share else "train",
                "type": d.type,
            }
        )
    return sorted(rows, key=lambda row: row["question_id"])
