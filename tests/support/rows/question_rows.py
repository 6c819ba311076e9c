"""A row of every published form of questions, all of which ask who wrote Hamlet."""

SEARCH_R1 = (
    "Answer the given question. You must reason inside <think> first. "
    "For example, <answer> Beijing </answer>. "
    "Question: who wrote hamlet?\n"
)

IGPO = {
    "data_source": "Bamboogle",
    "prompt": [{"content": "Who wrote Hamlet?", "role": "user"}],
    "ability": "search & question answering",
    "reward_model": {"ground_truth": "Shakespeare<|answer_split|>the Bard", "style": "unknown"},
    "extra_info": {"index": "bamboogle_7", "split": "dev"},
}
SEARCH_R1_ROW = {
    "data_source": "nq",
    "prompt": [{"content": SEARCH_R1, "role": "user"}],
    "ability": "fact-reasoning",
    "reward_model": {"style": "rule", "ground_truth": {"target": ["Shakespeare", "the Bard"]}},
    "extra_info": {"split": "train", "index": 7},
}
VERL = {
    **SEARCH_R1_ROW,
    "data_source": "searchR1_nq",
    "prompt": [
        {"content": "You search.", "role": "system"},
        {"content": "who wrote hamlet?", "role": "user"},
    ],
}
FLASHRAG = {
    "id": "test_7",
    "question": "Who wrote Hamlet?",
    "golden_answers": ["Shakespeare", "the Bard"],
    "metadata": {"a": 1},
}
REVIEW = {
    "id": "q7",
    "question": "Who wrote Hamlet?",
    "answer": "Shakespeare",
    "positive_doc_ids": [12, "d3"],
    "dataset": "hotpotqa",
    "split": "train",
}
HOTPOT = {
    "_id": "5a7",
    "question": "Who wrote Hamlet?",
    "answer": "Shakespeare",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Hamlet", 0], ["Hamlet", 1], ["Bard", 0]],
    "context": [["Hamlet", ["A play."]]],
}
HUB = {
    **HOTPOT,
    "supporting_facts": {"title": ["Hamlet", "Bard"], "sent_id": [0, 1]},
    "context": {"title": ["Hamlet"], "sentences": [["A play."]]},
}
TWO_WIKI = {**HOTPOT, "type": "comparison", "evidences": [["a", "b", "c"]], "answer_id": "Q692"}
MUSIQUE = {
    "id": "3hop1__1_2_3",
    "question": "Who wrote Hamlet?",
    "answer": "Shakespeare",
    "answer_aliases": ["the Bard"],
    "answerable": True,
    "paragraphs": [{"idx": 0, "title": "Hamlet", "paragraph_text": "A play.", "is_supporting": True}],
}
POPQA = {
    "id": 7,
    "subj": "Hamlet",
    "prop": "author",
    "obj": "Shakespeare",
    "s_aliases": '["Prince"]',
    "possible_answers": '["Shakespeare", "the Bard"]',
    "question": "Who wrote Hamlet?",
    "paragraphs": [{"title": "Hamlet", "text": "A play.", "is_supporting": True}],
}
NQ_OPEN = {"question": "who wrote hamlet", "answer": ["Shakespeare", "the Bard"]}
BOTH, ONE = ["Shakespeare", "the Bard"], ["Shakespeare"]
