"""The table of rules in docs/methods.md, generated from the code: `python -m methods.table > docs/methods.md`."""

from __future__ import annotations

import re
import sys
from dataclasses import fields

from methods import Rule, all_methods

HEAD = """# Rules

A rule takes detached per-token tensors and answers with two: how much each token weighs, and whether it is kept. The loss is
−Σ A · weight · keep · log π for all of them (`harness/learning/loss.py`). ρ = π/μ, the learner's over the rollout policy's
probability; A the advantage; D a divergence of the next-token distributions (`harness/learning/divergence.py`).

Settings and the sources of their numbers: `conf/method/<name>.yaml`. Formulas: the module. `scope` says how much of the
minibatch one decision looks at. This page is written by `python -m methods.table > docs/methods.md`.

| name | rule | paper | settings | scope |
|---|---|---|---|---|
"""

TAIL = """
## Adding a rule

In this repository: a module in `methods/` (a dataclass derived from `Rule`, its settings as fields without defaults), its line
in `METHODS`, `conf/method/<name>.yaml` with the numbers, its formula once more in `tests/reference.py`, and this page anew.

In a package of your own, without touching this repository: an entry point of the group `harness.methods`,

```toml
[project.entry-points."harness.methods"]
my_rule = "my_package:MyRule"
```

The numbers of its settings are the defaults of its dataclass. The rule then takes part in sweeps (`method=my_rule`), tables,
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
