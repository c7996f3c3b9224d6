"""What a release says of itself: its version in one place, its commands in the README, its types in a user's script."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import crossfade

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_citation_and_changelog_have_the_version():
    assert f"version: {crossfade.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == crossfade.__version__


def test_each_command_of_the_readme_makes_its_own_environment():
    commands = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert len(commands) == 2
    for command, last in zip(commands, ("crossfade compare", "pytest -n 2"), strict=True):
        assert re.match(r"python3\.11 -m venv \.venv && \.venv/bin/pip install -q -c constraints\.txt -e ", command)
        assert command.rstrip().endswith(f".venv/bin/{last}")


def test_the_readme_fits_on_two_screens_and_its_links_lead_somewhere():
    assert README.count("\n") <= 90
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_a_user_s_script_runs_that_mypy_checks():
    runpy.run_path(str(ROOT / "tests" / "typed" / "user.py"))
