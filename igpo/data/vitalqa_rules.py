"""The language of VitalQA: patterns over descriptions and leads, and the sentence that each one asks."""

from typing import NamedTuple

YEAR = r"[1-9]\d{2,3}"
DATE = r"(?:\d{1,2} )?(?:[A-Z][a-z]+ )?(?:\d{1,2},? )?"
SPAN = rf"(?P<start>{YEAR})–(?P<end>{YEAR})"
YEARS = rf"(?P<start>{YEAR}) to (?P<end>{YEAR})"
LINK = "of|in|on|at|for|from|by|between|against|with|led|fought|among|centred|based|across|during"
RULER = (
    "President|King|Queen|Emperor|Empress|[a-z]+ emperor|[a-z]+ empress|Sultan|Prime Minister|Chancellor|"
    "Tsar|Shah|Leader|Dictator|Grand Prince|Khan|[a-z]+ caliph|Ruler|Emir|Archbishop|"
    "Head of the Catholic Church"
)
THING = (
    "wars?|empires?|dynasty|kingdom|states?|sultanate|caliphate|republic|principality|monarchy|country|colony|"
    "territor(?:y|ies)|confederation|association|period|crisis|turmoil|barrier|parts|half|expansion|series|bloc|"
    "conflicts?|rebellion|revolt|dispute|struggle|campaigns|alliance|thought|accelerator|company|conglomerate|"
    "organi[sz]ation|policy|station|band|team|group|duo|depression|continuation|program|movement|polity|union"
)
# Years behind a ruler's office are those of the reign, and things have years too.
HUMAN = rf"^(?!{RULER})(?!.*\b(?i:{THING}) (?:of|in|on|at|by|among|between|for|against|around|from|\())"
LIFE = rf"{HUMAN}(?P<what>[^(;]+) \((?P<born>{YEAR})–(?P<died>{YEAR})\)$"
ALIVE = rf"{HUMAN}(?P<what>[^(;]+) \(born (?P<born>{YEAR})\)$"
REIGN = rf"^(?:[^,;]*, )?(?P<role>(?:[A-Z][\w.]+ )*?(?i:{RULER})[^,;\d]*?) from {YEARS}$"
STATE = "dynasty|empire|kingdom|state|republic|caliphate|sultanate|principality|khanate|polity|shogunate"
WAR = "wars?|conflicts?|rebellion|revolution|revolt|uprising|pandemic|genocide|depression|famine"
CLASH = (
    "battle|earthquake|coup|massacre|conference|conquest|disaster|uprising|revolution|attacks?|shooting|"
    "crash|overthrow|invasion|protests|investigation|discussion|expedition"
)
FAMILY = r"\b(?:in|of|to|from) the (?:[a-z-]+ ){0,3}?family (?P<family>[A-Z][a-z]+(?:idae|aceae))\b"
NATION = (
    rf"{HUMAN}(?!Islamic|Christian|Catholic|Hindu|Roman )(?P<nation>[A-Z][a-z]+"
    r"(?:an|ese|ish|ch|ek|i|ss|ic|sh|er)) (?!and )[a-z][a-z ,-]+ \([^)]*\d\)$"
)
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
    source: str  # description | lead | head (what the model reads)
    pattern: str
    answer: str
    ask: str
    clash: str = ""  # every year that this finds in the lead must equal the answer
    unless: str = "^$"  # a description that the rule does not fit


def _span_rules(kind: str, thing: str, first: str, last: str) -> list[Rule]:
    """Rules for the first and last year of things whose description names a `kind` and a span of years."""
    # The kind must be what the description is about, not what it mentions behind a preposition.
    word = rf"(?!(?:{LINK}) )[\w–'’-]+,? "
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
    Rule(
        "taxon_family",
        "head",
        FAMILY,
        "family",
        "Which biological family does {x} belong to?",
        unless="[Vv]irus|disease",
    ),
    Rule("nationality", "description", NATION, "nation", "What was the nationality of {x}?"),
    Rule("atomic_number", "description", ELEMENT, "number", "What is the atomic number of {lower}?"),
]


class Kind(NamedTuple):
    """How to speak of a work: the verb of its maker, what the maker is called, how its year is asked."""

    verb: str
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
    rf"^(?:(?P<year>{YEAR}) )?(?P<what>(?!.*\bbased)[^,;()\d]*?\b(?P<kind>(?i:{'|'.join(KINDS)})))"
    rf"(?: (?:on|of|in) [\w ]+?)?(?: directed| written| created| compiled)? by (?P<maker>{NAME})$"
)
CAPITAL = (
    r"^(?:Federal )?[Cc]apital(?: city| municipality)?(?:(?: and|,) [a-z ,-]+?)? (?:of|in) "
    r"(?:the )?(?P<in>[A-Z][\w' ]+)$"
)
COUNTRY = r"^(?:[A-Z][a-z-]+ )?(?i:island )?(?i:country)\b(?!.*\d)(?! within)"
NATURE = (
    "reservoir|falls|strait|river|lake|mountains?|range|volcano|peak|island|desert|region|peninsula|plateau|"
    "valley|waterfall|massif"
)
PLACE = (
    f"city|town|metropolis|municipality|capital|university|temple|mosque|palace|cathedral|basilica|church|castle|"
    f"fort|fortress|citadel|monument|mausoleum|museum|bridge|park|province|state|prefecture|department|community|"
    f"territory|site|ruins|tower|skyscraper|building|square|tomb|port|village|dam|canal|complex|"
    f"observatory|monolith|reef|headland|statue|necropolis|{NATURE}"
)
INSIDE = (
    rf"^(?!Former|Border|Political|(?i:.*(?:\bwar|\d{{3}}|empire|kingdom|dynasty|culture)))(?=.*\b(?i:{PLACE})\b)"
    r"[^()]*?(?:\bin|\bof|,) (?:the )?(?P<in>[A-Z][\w' ]+)$"
)
MADE_BY = (
    r"(?:^|\. )(?P<it>[^.,;]{2,50}?) (?:is|was|were|are)\b[^.;]*?\b"
    r"(?:(?P<verb>discovered|invented|introduced|founded|formulated|designed|developed|proposed|created)"
    r"(?: in \d{4})? by|named (?:after|in honou?r of)) "
    r"(?:the )?(?:(?:[a-z-]+|[A-Z][a-z-]+(?:[ae]n|ese|ish|nch|tch|ek|ss)) )*"
    rf"(?P<maker>{NAME})(?=\.(?! [A-Z]\.)|;| (?:in|at|who|from|to|on|during|around)\b|, (?:who|an?|the|in)\b)"
)
NEEDS_THE = (
    r"^(?:Battle|Fall|Sinking|Siege|Kingdom|Treaty|Atomic bombings|Dissolution|Republic|Duchy|Attack|"
    r"Assassination) |(?i: (?:wars?|revolution|dynasty|empire|party|rebellion|massacre|genocide|museum))$"
)
