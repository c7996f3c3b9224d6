"""A fresh interpreter with another hash seed, started once for all tests: what it loads, and the page it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

_SCRIPT = """
import json, sys
import crossfade.report
loaded = lambda: sorted({name.partition(".")[0] for name in sys.modules})
after_report = loaded()
from tests.report import report_cases
page = crossfade.report.comparison_page(*report_cases.make(3, 4, 3, epochs=8))
import crossfade.stats
for name in crossfade.stats.__all__:
    getattr(crossfade.stats, name)
print(json.dumps([after_report, loaded(), page]))
"""


@dataclass(frozen=True)
class Fresh:
    """Packages loaded by importing the report and by all names of the statistics, and the page of `make(3, 4, 3)`."""

    after_report: frozenset[str]
    after_statistics: frozenset[str]
    page: str


def start() -> Fresh:
    """Run the script in its own process."""
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, check=True)
    report, statistics, page = json.loads(done.stdout)
    return Fresh(frozenset(report), frozenset(statistics), page)
