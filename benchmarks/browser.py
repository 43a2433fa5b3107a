"""A real browser without a window: what a page holds once its scripts have run, and how it looks.

Any Chromium will do; on Debian `apt-get install chromium`, on other systems Chrome.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_S = 120
VIRTUAL_MS = 6_000
"""How long a page's own clock runs on after it has loaded; no real time passes."""


def find_browser() -> str | None:
    """The path of a Chromium, ``$BROWSER_BINARY`` first; ``None`` if there is none."""
    return next(
        filter(None, map(shutil.which, (os.environ.get("BROWSER_BINARY", ""), *NAMES))), None
    )


def dom(browser: str, url: str) -> str:
    """The page's elements after its scripts ran, as HTML."""
    return _run(browser, url, ["--dump-dom"])


def screenshot(
    browser: str, url: str, path: Path, size: tuple[int, int], *, dark: bool = False
) -> None:
    """The page as a PNG of so many pixels."""
    wide, high = size
    options = [
        f"--screenshot={path}",
        f"--window-size={wide},{high}",
        "--hide-scrollbars",
        "--run-all-compositor-stages-before-draw",  # else parts may not be painted yet
    ]
    if dark:
        options.append("--blink-settings=preferredColorScheme=0")
    _run(browser, url, options)


def _run(browser: str, url: str, options: Sequence[str]) -> str:
    # Its sandbox needs another user than root; it is shown pages of our own only.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="uptier-browser-") as profile:
        command = [
            browser, "--headless", *root, f"--user-data-dir={profile}", "--disable-gpu",
            "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--force-color-profile=srgb", f"--virtual-time-budget={VIRTUAL_MS}", *options, url,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"{browser} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout
