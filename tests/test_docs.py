"""The documentation is true: its examples run, and what is generated is up to date."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from retrodict.cli import reference
from retrodict.reports import catalogue

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in (ROOT / "README.md", *DOCS.rglob("*.md")) if "```python" in page.read_text())


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line number and text of each block of Python in a page."""
    text = page.read_text()
    return [
        (text.count("\n", 0, m.start(1)), m[1]) for m in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page, tmp_path, monkeypatch):
    if "vizdoom/" in page.read_text() and importlib.util.find_spec("vizdoom") is None:
        pytest.skip('vizdoom is not installed: pip install "retrodict[games]"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {"__name__": "example"}
    for line, source in blocks(page):
        # Empty lines before the block make the line numbers of an error those of the page.
        exec(compile("\n" * line + source, str(page), "exec"), names)


@pytest.mark.parametrize("path", catalogue.documents(ROOT), ids=lambda path: path.name)
def test_the_catalogue_is_up_to_date(path):
    assert path.read_text() == catalogue.documents(ROOT)[path], "run `python -m retrodict.reports.catalogue`"


def test_the_command_line_reference_is_up_to_date():
    assert (DOCS / "cli.md").read_text() == reference.page(), "run `python -m retrodict.cli.reference`"


def test_every_system_has_a_page():
    for entry in catalogue.entries(ROOT / "results"):
        assert (DOCS / "systems" / f"{entry.slug}.md").exists(), f"docs/systems/{entry.slug}.md is missing"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="mkdocs-material is not installed: the docs extra")
def test_the_site_builds_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, env={"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "cli" / "index.html").exists()
