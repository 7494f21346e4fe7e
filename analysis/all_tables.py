"""The tables by the names of their files."""

from analysis.tables import table1, table4, table_ablations, table_pairwise, table_selection, table_statistics
from analysis.tables_runs import table_cost, table_runs, table_stability

TABLES = {
    "table1": table1,
    "table4": table4,
    "table_selection": table_selection,
    "table_statistics": table_statistics,
    "table_pairwise": table_pairwise,
    "table_ablations": table_ablations,
    "table_stability": table_stability,
    "table_cost": table_cost,
    "table_runs": table_runs,
}
