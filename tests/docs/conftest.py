"""The site, built once, and a headless browser that looks at pages."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The whole API takes a minute; `make docs` builds it.
API = "rl.rewards,models.layers"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site, with a part of the API; warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
        "-d", str(folder / "doctrees"), "-D", f"ergo_api_only={API}", "docs", str(folder / "html"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "html"


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; tests that need it are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        own = Path(started.chromium.executable_path)
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        if not own.is_file() and found is None:
            pytest.skip("Chromium is not installed")
        opened = started.chromium.launch(
            executable_path=None if own.is_file() else found, args=["--no-sandbox"]
        )
        yield opened
        opened.close()
