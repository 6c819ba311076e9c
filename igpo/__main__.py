"""`igpo STAGE …`: one subcommand per stage module."""

import sys

from pipeline.dispatch import dispatch

STAGES = {
    "model": "a local Hugging Face model folder from a package, a folder or the local cache",
    "questions": "train, dev and test questions",
    "warmup": "supervised warm-up on traces built from train questions",
    "rollout": "let a policy answer questions with searches",
    "join": "a table from the shards that several jobs made",
    "score": "information gain of every turn, outcome, log-probabilities",
    "critic": "values of every turn, and the next critic (PPO)",
    "advantage": "turn-level advantages from scores",
    "train": "one policy update",
    "judge": "a judge model's verdicts on the answers of a rollout file",
    "evaluate": "metrics of a rollout file",
    "best": "the best policy so far on dev questions",
    "health": "signs of a policy's health from one iteration",
    "tables": "result tables from metrics",
    "comparison": "one of the paper's comparisons, filled with our arms",
    "per_question": "questions on which an arm is better, equal, worse than another",
    "single_turn": "with one search at most: how far igpo's advantage is the outcome's",
    "collapse": "groups that teach nothing, by method",
    "time_by_phase": "where the time of training goes",
    "figures": "training curves, token efficiency, collapse, the gold answer's entropy",
    "report": "one self-contained HTML page",
    "track": "log finished runs to MLflow",
    "follow": "log runs to MLflow while they go on",
    "card": "a trained policy's README",
    "export": "a finished run in one archive; the questions in forms that others read",
    "show": "print one trajectory",
    "plan": "what a run would cost",
    "status": "what is finished",
    "sources": "the files that the parameters name, for DVC",
}
FOLDERS = {
    "best": "igpo.training",
    "join": "igpo.experiment",
    "sources": "igpo.experiment",
    "follow": "igpo.tracking",
    "card": "igpo.publishing",
    "export": "igpo.publishing",
} | dict.fromkeys(
    ("comparison", "per_question", "single_turn", "collapse", "time_by_phase"), "igpo.comparisons"
)


def main() -> None:
    """Run the stage named on the command line."""
    dispatch("igpo", STAGES, sys.argv[1:], FOLDERS)


if __name__ == "__main__":
    main()
