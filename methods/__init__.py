"""Registry of the rules: METHODS maps each registered name to its class.

To add a rule: write a module, import it and add a line to METHODS here, add a YAML file in conf/method/ and its formula to
tests/reference.py (README.md, "Add a rule"). Third parties register a rule without editing this repository, through an entry
point in the group `harness.methods`: the entry point's name is the rule's name, its value the rule's class.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from methods.aspo import ASPO
from methods.base import Decision, DivergenceRule, Rule, TokenBatch
from methods.ce_gppo import CEGPPO
from methods.cispo import CISPO
from methods.cppo import CPPO
from methods.ctpo import CTPO
from methods.dppo import DPPO
from methods.drpo import DRPO
from methods.geo_mask import GeoMask
from methods.gmpo import GMPO
from methods.grpo import GRPO
from methods.gspo import GSPO
from methods.icepop import IcePop
from methods.m2po import M2PO
from methods.minpro import MinPRO
from methods.mis_po import MISPO
from methods.opsm import OPSM
from methods.pdm import PDM
from methods.pg import PG
from methods.pg_is import PGIS
from methods.ppo import PPO
from methods.sapo import SAPO
from methods.tis import TIS
from methods.trm import TRM
from methods.trm_avg import TRMAvg
from methods.trm_max import TRMMax
from methods.vespo import VESPO

METHODS: dict[str, type[Rule]] = {
    "ppo": PPO,
    "grpo": GRPO,
    "dppo": DPPO,
    "cppo": CPPO,
    "trm_max": TRMMax,
    "trm_avg": TRMAvg,
    "trm": TRM,
    "cispo": CISPO,
    "minpro": MinPRO,
    "pg": PG,
    "pg_is": PGIS,
    "tis": TIS,
    "icepop": IcePop,
    "gspo": GSPO,
    "gmpo": GMPO,
    "sapo": SAPO,
    "m2po": M2PO,
    "drpo": DRPO,
    "ce_gppo": CEGPPO,
    "vespo": VESPO,
    "ctpo": CTPO,
    "opsm": OPSM,
    "pdm": PDM,
    "aspo": ASPO,
    "geo_mask": GeoMask,
    "mis_po": MISPO,
}

ENTRY_POINTS = "harness.methods"


@cache
def all_methods() -> dict[str, type[Rule]]:
    """All rules by registered name: METHODS and those of installed plug-ins."""
    plugins = {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
    taken = METHODS.keys() & plugins.keys()
    if taken:
        raise ValueError(f"plug-in rules named like built-in ones: {' '.join(sorted(taken))}; rename their entry points")
    return METHODS | plugins


def rule_name(rule: Rule | type[Rule]) -> str:
    """The registered name of a rule, which is given as a settings object or as a class."""
    rule_class = rule if isinstance(rule, type) else type(rule)
    for name, registered in all_methods().items():
        if registered is rule_class:
            return name
    raise ValueError(f"{rule_class.__name__} is not registered: add it to METHODS, or as entry point of {ENTRY_POINTS}")


__all__ = ["METHODS", "Decision", "DivergenceRule", "Rule", "TokenBatch", "all_methods", "rule_name"]
