"""The pictures of docs/images, taken by a real browser of a real run: Flower, the page of the run
in both themes, and the live view.

A stack is started in a directory of its own, a simulated day is answered by its models, and
everything is stopped again.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI

from benchmarks.browser import find_browser, screenshot
from cli.output import say
from cli.top import KEYS
from cli.top_screen import screen
from config.settings import Settings, load_settings
from workers.flower_place import FlowerRecord
from workers.glance_views import Glance
from workers.looking import Looker

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MOST_BYTES = 200_000
COLOURS = 256
"""In a picture; more are not seen, and make that of a page twice as large."""
LOOK_S = 2.0
TERMINAL = 132
FLAT = (1400, 760)
PAGE = (1240, 1900)


def main(arguments: Sequence[str] | None = None) -> int:
    """Take them all; 2 if there is no browser."""
    options = _options(arguments)
    browser = find_browser()
    if browser is None:
        say("no Chromium on PATH: install the package chromium, or Chrome")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the stack is stopped then, too
    with tempfile.TemporaryDirectory(prefix="uptier-screenshots-") as folder:
        settings = load_settings(
            profile=options.profile, data_dir=Path(folder), flower=True, flower_port=0
        )
        with _stack(settings):
            _during(settings, options, browser)
            _after(settings, options.out, browser)
        _of_the_run(settings, options.out, browser)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument(
        "--most-s", type=float, default=1e9, help="after which the day is left as it is"
    )
    parser.add_argument("--out", type=Path, default=IMAGES)
    return parser.parse_args(arguments)


def _uptier(settings: Settings, *words: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "UPTIER_DATA_DIR": str(settings.data_dir),
        "UPTIER_PROFILE": settings.profile,
        "UPTIER_FLOWER_PORT": "0",
    }
    command = [sys.executable, "-m", "cli.main", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


@contextmanager
def _stack(settings: Settings) -> Iterator[None]:
    if _uptier(settings, "up", "--flower").wait() != 0:
        raise SystemExit("the stack does not start; see above")
    try:
        yield
    finally:
        _uptier(settings, "down").wait()


def _during(settings: Settings, options: argparse.Namespace, browser: str) -> None:
    """The live view while the day is lived, of the moment at which most went on."""
    with _uptier(settings, "simulate", "--agents", str(options.agents), "--days", "1") as day:
        try:
            busiest = _busiest(settings, day, time.monotonic() + options.most_s)
        finally:
            day.send_signal(signal.SIGINT)
    if busiest is None:
        raise SystemExit("the day was over before anything could be seen: give more --agents")
    console = Console(record=True, width=TERMINAL, file=io.StringIO(), force_terminal=True)
    console.print(screen(busiest, TERMINAL, KEYS))
    drawn = console.export_svg(title="uptier top", theme=MONOKAI)
    _take(browser, _plain(drawn), options.out / "top.png", (1640, 1000), crop=True)


def _busiest(settings: Settings, day: subprocess.Popen[bytes], until: float) -> Glance | None:
    """The look at which most lanes answered, until the day is over."""
    busiest: Glance | None = None
    most = -1.0
    with Looker(settings) as looker:
        while day.poll() is None and time.monotonic() < until:
            found = looker.look()
            busy = sum(lane.answers_per_s > 0 for lane in found.lanes)
            settled = busy * 1e6 + found.decisions.get("settled", 0)
            if settled > most and found.decisions.keys() - {"settled"}:
                busiest, most = found, settled
            time.sleep(LOOK_S)
    return busiest


def _plain(drawn: str) -> str:
    """A page with the drawing alone; the fonts that rich names are on the web, ours are here."""
    return f"<!doctype html><body style='margin:0;background:#fff'>{drawn}</body>"


def _after(settings: Settings, out: Path, browser: str) -> None:
    time.sleep(3)  # its last events are on their way
    found = FlowerRecord.read(settings)
    if found is None:
        raise SystemExit("Flower does not serve any more")
    for name in ("tasks", "workers"):
        _shrink_into(browser, f"{found.url}/{name}", out / f"flower-{name}.png", FLAT)


def _of_the_run(settings: Settings, out: Path, browser: str) -> None:
    page = settings.data_dir / "run.html"
    if _uptier(settings, "report", "--html", "--out", str(page)).wait() != 0:
        raise SystemExit("the run has no page; see above")
    _shrink_into(browser, page.as_uri(), out / "report.png", PAGE)
    _shrink_into(browser, page.as_uri(), out / "report-dark.png", PAGE, dark=True)


def _take(browser: str, page: str, path: Path, size: tuple[int, int], *, crop: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(page, encoding="utf-8")
        _shrink_into(browser, source.as_uri(), path, size, crop=crop)


def _shrink_into(
    browser: str, url: str, path: Path, size: tuple[int, int], *, dark: bool = False,
    crop: bool = False,
) -> None:  # fmt: skip
    screenshot(browser, url, path, size, dark=dark)
    with Image.open(path) as whole:
        picture = whole.convert("RGB")
    if crop:
        # The page is white beneath what is drawn.
        picture = picture.crop(picture.point(lambda value: 255 - value).getbbox())
    picture.quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
    bytes_ = path.stat().st_size
    say(f"{path}: {bytes_:,} bytes" + (", more than wished" if bytes_ > MOST_BYTES else ""))


if __name__ == "__main__":
    sys.exit(main())
