"""Names, order and colours, in one place: a method looks the same in every table and figure."""

from __future__ import annotations

from collections.abc import Iterable

# Order of rows and legends; Okabe-Ito and Tol colours, chosen to differ for the colour-blind, lines told apart by dashes too.
METHODS = {
    "grpo": ("GRPO", "#009E73", "-"),
    "ppo": ("PPO", "#332288", "--"),
    "minpro": ("MinPRO", "#CC79A7", "-."),
    "cispo": ("CISPO", "#D55E00", "--"),
    "dppo": ("DPPO", "#E69F00", "-"),
    "trm_max": ("TRM-Max", "#56B4E9", ":"),
    "trm_avg": ("TRM-Avg", "#882255", ":"),
    "trm": ("TRM", "#999933", "-."),
    "pg": ("PG", "#777777", "-."),
    "pg_is": ("PG-IS", "#000000", ":"),
    "cppo": ("CPPO", "#0072B2", "-"),
}
VARIANTS = {
    "cppo_no_position_weight": "CPPO, no position weight",
    "cppo_no_prefix_budget": "CPPO, no prefix budget",
    "cppo_shuffled": "CPPO, shuffled weights",
    "cppo_shuffled_budget": "CPPO, shuffled weights with budget",
    "cppo_reversed": "CPPO, reversed weights",
    "cppo_wmin06": "CPPO, w_min = 0.6",
    "cppo_fixed": "CPPO, fixed δ_b = 0.015",
    "cppo_fixed_budget": "CPPO, fixed δ_b = 0.03",
    "cppo_kl": "CPPO, KL score",
    "cppo_binary": "CPPO, Binary-TV score",
    "cppo_padded": "CPPO, padded length",
    "cppo_soft": "CPPO, soft gate",
}
SPARE = ["#117733", "#AA4499", "#661100", "#44AA99", "#B8860B", "#6699CC", "#DC267F", "#3B3B3B"]
MODELS = {"chain": "chain (embedded)"}


def label(method: str) -> str:
    if method in METHODS:
        return METHODS[method][0]
    return VARIANTS.get(method, method)


def ordered(methods: Iterable[str]) -> list[str]:
    """Known methods in the table's order, known variants after them, others by name."""
    known = list(METHODS) + list(VARIANTS)
    return sorted(methods, key=lambda name: (known.index(name) if name in known else len(known), name))


def looks(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(colour, line style) of each method; those without one of their own take the spare colours in order."""
    spare = [name for name in ordered(methods) if name not in METHODS]
    extra = {name: (SPARE[i % len(SPARE)], ("-", "--", "-.", ":")[i // len(SPARE) % 4]) for i, name in enumerate(spare)}
    return {name: METHODS[name][1:] if name in METHODS else extra[name] for name in methods}
