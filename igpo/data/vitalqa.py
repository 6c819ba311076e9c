"""Corpus rows -> VitalQA: questions by fixed rules from titles, descriptions and leads.

A corpus text is `description. lead`. A rule is a pattern over one of the two and a sentence to ask; what it
captures is the answer, word for word. A question is dropped when its answer does not stand within the first
`passage_chars` characters of `title: text`, stands in the question, or has a second value in the text; when
its title may mean two articles; and when another question reads the same. Comparisons ask for a year and not
for a name: the name would stand in the question, and every second guess would be right.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from igpo.data.articles import Articles, Draft
from igpo.data.vitalqa_rules import (
    CAPITAL,
    COUNTRY,
    INSIDE,
    KINDS,
    LIFE,
    MADE,
    MADE_BY,
    NATURE,
    REIGN,
    RULES,
    WORK,
)

MAX_PER_TYPE = 600  # no type may outweigh the rest
MAX_PER_HUB = 12  # bridges over one country, whose articles must all go to one split


def by_rules(articles: Articles) -> Iterator[Draft]:
    """One-hop questions from `RULES`."""
    for rule in RULES:
        pattern, unless = re.compile(rule.pattern), re.compile(rule.unless)
        for i, text in enumerate(getattr(articles, rule.source)):
            if not articles.clear[i] or unless.search(articles.description[i]):
                continue
            matches = [m for m in pattern.finditer(text) if articles.means(i, m.groupdict().get("it"))]
            answers = {m[rule.answer] for m in matches}
            if len(answers) == 1 and articles.years(rule.clash, i) <= answers:
                words = {key: value for key, value in matches[0].groupdict().items() if value}
                words |= {"verb": words.get("verb", "").lower(), "was": "were" if articles.many(i) else "was"}
                ask = rule.ask.format(x=articles.name(i), lower=articles.title[i].lower(), **words)
                yield Draft(rule.type, ask, answers.pop(), i, (i,))


def by_rulers(articles: Articles, facts: Mapping[tuple[str, int], str]) -> Iterator[Draft]:
    """Who held an office in given, undisputed years; the answer is the article's title."""
    for i, description in enumerate(articles.description):
        m = re.search(REIGN, description)
        if m and {("reign_start", i), ("reign_end", i)} <= facts.keys():
            ask = f"Who was {m['role']} from {m['start']} to {m['end']}?"
            yield Draft("ruler", ask, articles.title[i], i, (i,))


def called(articles: Articles, i: int, work: re.Match[str]) -> str:
    """A work with its kind, so that it is not taken for anything else: "the novel Emma"."""
    what = work["what"]
    proper = re.match(r"(?:French|Dutch|Greek|Latin|[A-Z]\w+(?:ian|ean|man|can|ese|ish))\b", what)
    return f"the {what if proper else what[0].lower() + what[1:]} {articles.title[i]}"


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
        yield Draft("creator", f"Who {kind.verb} {x}?", m["maker"], i, (i,))
        yield from maker_years(articles, facts, i, m["maker"], f"the {kind.maker} of {x}")


def by_makers(articles: Articles, facts: Mapping[tuple[str, int], str]) -> Iterator[Draft]:
    """Discoverers, inventors, founders and namesakes, and their years of birth and death (two hops)."""
    for i, head in enumerate(articles.head):
        m = re.search(MADE_BY, head[head.find(articles.lead[i][:20]) :])
        if not m or not articles.clear[i] or not articles.means(i, m["it"]):
            continue
        if re.search(WORK, articles.description[i]):
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
    questions = {
        "birth_year": f"In which year was {who} born?",
        "death_year": f"In which year did {who} die?",
    }
    for fact, ask in questions.items():
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
    capital = {country: cities[0] for country, cities in seats.items() if len(cities) == 1}
    for country, city in capital.items():
        ask = f"What is the capital of {articles.name(countries[country])}?"
        yield Draft("capital", ask, articles.title[city], city, (city,), (countries[country],))
    for i, country in places(articles, countries):
        if any(i in cities for cities in seats.values()):
            continue
        x, verb = articles.name(i), "are" if articles.many(i) else "is"
        yield Draft("place_country", f"In which country {verb} {x} located?", country, i, (i,))
        if country in capital:
            ask = f"What is the capital of the country in which {x} {verb} located?"
            city = capital[country]
            yield Draft("country_capital", ask, articles.title[city], city, (i, city), (countries[country],))


def places(articles: Articles, countries: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    """Articles about places, each with the one country that its description puts it in."""
    longest_first = sorted(map(re.escape, countries), key=len, reverse=True)
    pattern = re.compile(rf"\b(?:{'|'.join(longest_first)})\b")
    for i, description in enumerate(articles.description):
        m = re.search(INSIDE, description)
        if m and articles.clear[i] and m["in"] in countries:
            # A river or a mountain range may cross the border to a country that the lead names.
            abroad = set(pattern.findall(articles.head[i])) - {m["in"]}
            if not (abroad and re.search(rf"\b(?i:{NATURE})\b", description)):
                yield i, m["in"]


FIRST = {
    "birth_year": ("born_first", "In which year was the elder of {a} and {b} born?"),
    "death_year": ("died_first", "When the first of {a} and {b} died, which year was it?"),
    "work_year": ("released_first", "In which year did the earlier of {a} and {b} appear?"),
}


def by_pairs(
    articles: Articles, facts: Mapping[tuple[str, int], str], makers: Collection[int]
) -> Iterator[Draft]:
    """The earlier of two years. An article is in one pair at most, so that pairs do not chain the splits."""
    works = {i: re.search(WORK, articles.description[i]) for fact, i in facts if fact == "work_year"}
    output = Counter(m["maker"] for m in works.values() if m)
    peers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, m in works.items():
        if m:
            peers["work_year", m["maker"] if output[m["maker"]] > 1 else m["kind"]].append(i)
    for fact, i in facts:
        life = re.search(LIFE, articles.description[i])
        mine = "birth_year" if share(articles.title[i]) < 0.5 else "death_year"
        if life and fact == mine and i not in makers:
            peers[fact, life["what"].split()[-1]].append(i)
    for (fact, _), members in sorted(peers.items()):
        members.sort(key=lambda i: share(articles.title[i]))
        for a, b in zip(members[::2], members[1::2], strict=False):
            early = min(a, b, key=lambda i: int(facts[fact, i]))
            if facts[fact, a] != facts[fact, b]:
                type_, ask = FIRST[fact]
                names = [called(articles, i, m) if (m := works.get(i)) else articles.name(i) for i in (a, b)]
                yield Draft(type_, ask.format(a=names[0], b=names[1]), facts[fact, early], early, (a, b))


def share(key: str) -> float:
    """A fixed pseudo-random number in [0, 1) for a text."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) / 16**12


def sound(articles: Articles, drafts: Iterable[Draft]) -> list[Draft]:
    """Drafts whose answer is unique, in the passage, not in the question, and not before the last hop."""
    drafts = list(dict.fromkeys(drafts))
    ask_counts = Counter(d.ask.casefold() for d in drafts)
    values = Counter((d.type, d.support) for d in drafts)
    return [
        d
        for d in drafts
        if ask_counts[d.ask.casefold()] == 1
        and values[d.type, d.support] == 1
        and d.answer.casefold() not in d.ask.casefold()
        and re.search(
            rf"(?<!\w){re.escape(d.answer)}(?!\w)", articles.head[d.at][len(articles.title[d.at]) + 2 :]
        )
        and not any(d.answer in articles.rows[i]["text"] for i in d.support if i != d.at)
    ]


def thin(drafts: Iterable[Draft], counts: Counter[Any]) -> Iterator[Draft]:
    """At most MAX_PER_TYPE drafts of a type and MAX_PER_HUB bridges of a type to one article."""
    for d in sorted(drafts, key=lambda d: share(d.ask)):
        hub = (d.type, d.at) if len(d.support) == 2 else None
        if counts[d.type] < MAX_PER_TYPE and (hub is None or counts[hub] < MAX_PER_HUB):
            counts.update([d.type, hub] if hub else [d.type])
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
    """Question rows (`igpo.experiment.schema.QUESTIONS`) from corpus rows (`id`, `title`, `text`).

    Articles that share a question go to one split, drawn by a hash of the group and `seed`. Types outside
    `headline_types` form the benchmark "vitalqa_guessable".
    """
    articles = Articles(corpus, passage_chars)
    simple = sound(articles, [*by_rules(articles), *by_places(articles)])
    facts = {(d.type, d.at): d.answer for d in simple}
    later = (by_rulers, by_works, by_makers)
    fact_drafts = sound(articles, [draft for rule in later for draft in rule(articles, facts)])
    facts |= {(d.type, d.at): d.answer for d in fact_drafts if len(d.support) == 1}
    makers = {d.at for d in fact_drafts if len(d.support) == 2}
    drafts = list(
        thin([*simple, *fact_drafts, *sound(articles, by_pairs(articles, facts, makers))], Counter())
    )
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
