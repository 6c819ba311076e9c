"""Section `advantage` as version 2 of the paper has it."""

DEFAULTS = {
    "normalisation": "separate",
    "scope": "group",
    "gamma": 1.0,
    "std": "population",
    "lam": 1.0,
    "gain_weight": 1.0,
    "outcome_weight": 1.0,
    "omega": 1.0,
    "alpha": 0.3,
}
