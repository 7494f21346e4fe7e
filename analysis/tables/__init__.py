"""The tables by the names of their files."""

from analysis.tables.runs import table_cost, table_runs, table_stability
from analysis.tables.scores import (
    table1,
    table4,
    table_ablations,
    table_pairwise,
    table_pass_at_k,
    table_selection,
    table_statistics,
)

TABLES = {
    "table1": table1,
    "table4": table4,
    "table_selection": table_selection,
    "table_statistics": table_statistics,
    "table_pass_at_k": table_pass_at_k,
    "table_pairwise": table_pairwise,
    "table_ablations": table_ablations,
    "table_stability": table_stability,
    "table_cost": table_cost,
    "table_runs": table_runs,
}
