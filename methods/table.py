"""The table of rules in docs/methods.md, generated from the code: `python -m methods.table > docs/methods.md`."""

from __future__ import annotations

import re
import sys
from dataclasses import fields

from methods import Rule, all_methods

HEAD = """# Rules

This page lists all rules, for whoever chooses a method or adds one. A rule takes detached per-token tensors and returns two:
how much each token weighs, and whether it is kept. The loss of every rule is −Σ A · weight · keep · log π
(`harness/learning/loss.py`). ρ = π/μ is the ratio of the learner's to the rollout policy's probability, A the advantage, D a
divergence of the next-token distributions (`harness/learning/divergence.py`). A token is on the *outward* side if A(ρ − 1) > 0.

Settings and the sources of their numbers are in `conf/method/<name>.yaml`, formulas in the rule's module. `scope` says how much
of the minibatch one decision looks at. This page is generated: `python -m methods.table > docs/methods.md`.

| name | rule | paper | settings | scope |
|---|---|---|---|---|
"""

TAIL = """
## Adding a rule

In this repository, a rule needs: a module in `methods/` (a dataclass derived from `Rule`, its settings as fields `= MISSING`), a
line in `METHODS`, `conf/method/<name>.yaml` with its schema and the numbers (README.md shows one), its formula once more in
`tests/reference.py`, and tests/vectors.json (`python tests/reference.py`) and this page generated again.

In a package of your own, without touching this repository, it needs an entry point of the group `harness.methods`:

```toml
[project.entry-points."harness.methods"]
my_rule = "my_package:MyRule"
```

The numbers of such a rule's settings are the defaults of its dataclass. It then takes part in sweeps (`method=my_rule`), tables,
`python -m harness.check`, shadow rows and replay. `tests/plugin/` is such a package.
"""


def page() -> str:
    return HEAD + "".join(row(name, rule) for name, rule in all_methods().items()) + TAIL


def row(name: str, rule: type[Rule]) -> str:
    module = sys.modules[rule.__module__]
    names = [field.name for field in fields(rule)]
    settings = " ".join(f"`{field}`" for field in names)
    scope = rule.scope if isinstance(rule.scope, str) else "response"
    summary = (rule.__doc__ or "").strip().split("\n")[0].replace("|", "\\|")
    return f"| `{name}` | {summary} | {', '.join(papers(module.__doc__ or ''))} | {settings} | {scope} |\n"


def papers(text: str) -> list[str]:
    """Links to the arXiv ids that a docstring's first paragraph names."""
    ids = re.findall(r"\b\d{4}\.\d{5}\b", text.split("\n\n")[0])
    return [f"[{number}](https://arxiv.org/abs/{number})" for number in ids]


if __name__ == "__main__":
    sys.stdout.write(page())
