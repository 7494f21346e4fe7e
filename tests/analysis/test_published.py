"""What docs/study/results shows is what the packs in docs/study give."""

from pathlib import Path

import pytest

from analysis.output import Output
from analysis.study.command import study, unpacked

pytestmark = pytest.mark.slow  # it reads every pack
PACKS = Path(__file__).parents[2] / "docs" / "study"
PUBLISHED = sorted((PACKS / "results").glob("*.md"))


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    study(unpacked(PACKS, out / "runs"), Output(out / "results", ("md",)))
    return out / "results"


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda path: path.stem)
def test_published_tables_come_from_the_packs(published, again):
    assert published.read_bytes() == (again / published.name).read_bytes()


def test_everything_of_the_study_is_published():
    tables = {"table_study", "table_study_pairs", "table_study_collapse", "table_tuned", "table_tuning", "table_fresh"}
    assert {"study_verdict", *tables} <= {path.stem for path in PUBLISHED}
