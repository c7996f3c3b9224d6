"""What the tests of the report share."""

import pytest

from tests.report import report_fresh


@pytest.fixture(scope="session")
def fresh() -> report_fresh.Fresh:
    """A fresh interpreter: what it loads, and the page it writes."""
    return report_fresh.start()
