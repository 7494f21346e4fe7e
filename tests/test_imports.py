"""Who imports whom, from the imports as written: the table of who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"harness", "methods", "evals", "analysis", "slurm"}
HEAVY = {"torch", "transformers", "vllm", "hydra", "omegaconf"}


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(package: str) -> dict[Path, set[str]]:
    return {path: imports(path) for path in (ROOT / package).rglob("*.py")}


def top(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def offenders(package: str, allowed: set[str], forbidden: set[str] = frozenset()) -> list[str]:
    found = []
    for path, names in modules(package).items():
        for name in names:
            ours = name.partition(".")[0] in OURS - {package}
            if (ours and not any(name == a or name.startswith(a + ".") for a in allowed)) or name.partition(".")[0] in forbidden:
                found.append(f"{path.relative_to(ROOT)} imports {name}")
    return found


def test_methods_import_nothing_of_ours():
    assert offenders("methods", set(), {"transformers", "vllm", "hydra"}) == []


def test_evals_import_nothing_of_ours_and_no_torch():
    assert offenders("evals", set(), {"torch", "vllm", "hydra"}) == []


def test_harness_imports_slurm_in_its_entry_alone():
    assert [o for o in offenders("harness", {"methods", "evals"}) if not o.startswith("harness/__main__.py")] == []


def test_analysis_reads_files_only():
    without_torch = {"harness.store", "harness.files", "harness.metric_table", "harness.telemetry.collapse", "evals.metrics"}
    found = [o for o in offenders("analysis", without_torch, HEAVY) if not o.endswith((" harness", " evals"))]
    assert found == []


def test_harness_init_is_empty():
    assert (ROOT / "harness" / "__init__.py").read_text() == ""


@pytest.mark.parametrize("library", ["vllm", "wandb"])
def test_one_file_imports(library):
    users = [path for package in OURS for path, names in modules(package).items() if library in top(names)]
    assert len(users) <= 1


def test_no_rule_is_named_outside_the_dict():
    """Nothing outside methods/ compares a method's name."""
    for package in ("harness", "slurm", "analysis", "evals"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Compare):
                    literals = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
                    assert not literals & {"cppo", "dppo", "grpo", "ppo", "cispo", "minpro", "trm", "m2po"}, (
                        f"{path}:{node.lineno}"
                    )
