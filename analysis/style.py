"""Names, order and colours of methods, in one place: a method looks the same in every table and figure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

DASHES = ("-", "--", "-.", ":")
# preset: (name, colour, line style), in the order of rows and legends. The colours are Okabe and Ito's and Tol's, which differ
# for colour-blind readers; line styles differ as well.
COMPARED = {
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
FURTHER = {
    "tis": "TIS", "icepop": "IcePop", "gspo": "GSPO", "gmpo": "GMPO", "sapo": "SAPO", "m2po": "M2PO", "drpo": "DRPO",
    "pdm": "PDM", "ctpo": "CTPO", "ce_gppo": "CE-GPPO", "aspo": "ASPO", "vespo": "VESPO", "opsm": "OPSM",
    "geo_mask": "Geo-mask", "mis_po": "MIS-PO",
}  # fmt: skip
GRID = {
    f"cppo_wmin0{w}" + (f"_bmin0{b}" if b else ""): f"CPPO, w_min = 0.{w}" + (f", δ_b,min = 0.0{b}" if b else "")
    for w, b in product((6, 7, 8, 9), (None, 1, 3))
}
VARIANTS = GRID | {
    "cppo_no_position_weight": "CPPO, no position weight",
    "cppo_no_prefix_budget": "CPPO, no prefix budget",
    "cppo_shuffled": "CPPO, shuffled weights",
    "cppo_shuffled_budget": "CPPO, shuffled weights with budget",
    "cppo_reversed": "CPPO, reversed weights",
    "cppo_fixed": "CPPO, fixed δ_b = 0.015",
    "cppo_fixed_budget": "CPPO, fixed δ_b = 0.03",
    "cppo_kl": "CPPO, KL score",
    "cppo_binary": "CPPO, Binary-TV score",
    "cppo_padded": "CPPO, padded length",
    "cppo_soft": "CPPO, soft gate",
}
SPARE = ["#117733", "#AA4499", "#661100", "#44AA99", "#B8860B", "#6699CC", "#DC267F", "#3B3B3B"]
ORDER = {name: i for i, name in enumerate([*COMPARED, *FURTHER, *VARIANTS])}


TUNED = "_tuned"


def label(method: str) -> str:
    if method.endswith(TUNED):
        return f"{label(method.removesuffix(TUNED))}, tuned"
    if method in COMPARED:
        return COMPARED[method][0]
    return FURTHER.get(method) or VARIANTS.get(method) or method


def ordered(methods: Iterable[str]) -> list[str]:
    """The methods in the order of tables: compared rules, further rules, known variants, then others by name. A tuned preset
    follows its rule."""
    place = lambda name: ORDER.get(name.removesuffix(TUNED), len(ORDER))
    return sorted(methods, key=lambda name: (place(name), name))


def looks(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(colour, line style) of each method; methods outside COMPARED take the spare ones in order."""
    methods = ordered(methods)
    spare = iter([(colour, dash) for dash, colour in product(DASHES, SPARE)] * (1 + len(methods) // 32))
    return {name: COMPARED[name][1:] if name in COMPARED else next(spare) for name in methods}
