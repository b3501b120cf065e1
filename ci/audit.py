"""Audit the built site as its readers meet it: `python -m ci.audit`.

Files: every internal link and anchor resolves, and the Colab links name tracked files. Pages, in headless
Chromium at 1280 and 390 pixels, light and dark: no console error, no request leaves this machine, nothing is
wider than the window, every figure has alt text and caption, no raw markup shows, axe-core finds no serious
violation that the theme did not bring along. And the search finds what `ci/queries.yml` asks for.
"""

import itertools
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urljoin, urlparse

import lxml.html
import yaml

from ci.build import HTML
from ci.chapters import ROOT
from ci.repository import slug, tag
from ci.serve import server

WIDTHS = (1280, 390)
THEMES = ("light", "dark")
# Serious violations that sphinx-book-theme 1.3 brings to an empty page, by name, so that a new one is seen.
THEME_VIOLATIONS: dict[str, str] = {}
RAW = re.compile(
    r"\$\$|\\(?:frac|begin|tag|left|mathrm)\b|^:::|\{(?:ref|eq|cite|doc|term)\}|Traceback \(most recent"
)
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


# --- files -----------------------------------------------------------------------------------------------


def broken_links(site: Path = HTML) -> Iterator[str]:
    """Yield every internal link, image or anchor that leads nowhere."""
    files = [page for page in sorted(site.rglob("*.html")) if "_static" not in page.parts]
    pages = {page: lxml.html.parse(str(page)).getroot() for page in files}
    anchors = {page: {e.get("id") or e.get("name") for e in root.iter() if e.get("id") or e.get("name")}
               for page, root in pages.items()}  # fmt: skip
    for page, root in pages.items():
        for element, attribute in itertools.product(root.iter("a", "img", "link", "script"), ("href", "src")):
            address = element.get(attribute)
            if not address or urlparse(address).scheme or address.startswith("//"):
                continue
            path, anchor = urldefrag(urljoin(page.as_posix(), address))
            target = Path(unquote(urlparse(path).path))
            if not target.exists():
                yield f"{page.relative_to(site)}: {address} does not exist"
            elif anchor and target in anchors and unquote(anchor) not in anchors[target]:
                yield f"{page.relative_to(site)}: {address} has no such anchor"


def wrong_colab_links(site: Path = HTML) -> Iterator[str]:
    """Yield every chapter's page whose Colab link does not name its own, tracked notebook at the tag."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for page in sorted((site / "notebooks").glob("*.html")):
        links = re.findall(
            r'href="(https://colab\.research\.google\.com/[^"]+)"', page.read_text(encoding="utf-8")
        )
        file = f"notebooks/{page.stem}.ipynb"
        if not links or any(not link.endswith(f"/github/{slug()}/blob/{tag()}/{file}") for link in links):
            yield f"{page.name}: the Colab link must end with {slug()}/blob/{tag()}/{file}, got {links}"
        if file not in listed:
            yield f"{page.name}: {file} is not tracked by git"


# --- pages -----------------------------------------------------------------------------------------------


class PageAudit:
    """One page in one window: what its reader's browser reports."""

    def __init__(self, browser, base: str, path: str, width: int, theme: str):
        self.name = f"{path} ({width} px, {theme})"
        self.base, self.problems = base, []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self._report(f"script error: {error}"))
        self.page.on("request", self._request)
        self.page.on("response", self._response)
        self.page.goto(f"{base}/{path}", wait_until="load")
        self.page.wait_for_load_state("networkidle")
        self.page.evaluate("window.MathJax?.startup?.promise")

    def _report(self, problem: str) -> None:
        self.problems.append(f"{self.name}: {problem}")

    def _console(self, message) -> None:
        if message.type == "error":
            self._report(f"console: {message.text}")

    def _request(self, request) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self._report(f"a request leaves this machine: {request.url}")

    def _response(self, response) -> None:
        if response.status >= 400:
            self._report(f"{response.status} for {response.url}")

    def run(self, axe: str) -> list[str]:
        """Look at everything; return the problems."""
        width, window = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        if width > window:
            self._report(f"{width} px wide, wider than the window")
        for figure in self.page.evaluate(_FIGURES):
            self._report(figure)
        text = self.page.evaluate(_TEXT)
        for match in RAW.finditer(text):
            self._report(f"raw markup shows: {text[max(0, match.start() - 20) : match.end() + 20]!r}")
        if self.page.locator("mjx-merror").count():
            self._report(f"MathJax: {self.page.locator('mjx-merror').first.inner_text()!r}")
        self._accessibility(axe)
        self._liven_figures()
        self.context.close()
        return self.problems

    def _accessibility(self, axe: str) -> None:
        self.page.evaluate(axe)
        self.page.evaluate(_LIGHTEN)
        # Preloading would make axe fetch style sheets by wrong addresses.
        options = {"resultTypes": ["violations"], "preload": False}
        found = self.page.evaluate("options => axe.run(document, options).then(r => r.violations)", options)
        for violation in found:
            if violation["impact"] in ("serious", "critical") and violation["id"] not in THEME_VIOLATIONS:
                nodes = "; ".join(node["html"][:120] for node in violation["nodes"][:3])
                self._report(f"axe: {violation['id']}, {violation['help']}: {nodes}")

    def _liven_figures(self) -> None:
        """Touch each figure that can be turned: its script comes from this site, and it draws."""
        from playwright.sync_api import TimeoutError as NotDrawn

        figures = self.page.locator(".kexue-interactive")
        for number in range(figures.count()):
            figure = figures.nth(number)
            figure.locator("button").click()
            try:  # a solid is drawn without a graphics card here, on a machine that may be busy
                plot = figure.locator(".js-plotly-plot .main-svg, .js-plotly-plot canvas").first
                plot.wait_for(state="attached", timeout=60_000)
            except NotDrawn:
                self._report(f"interactive figure {number + 1} does not draw: {figure.inner_text()[:80]!r}")


_FIGURES = """() => [...document.querySelectorAll('.bd-article img')].flatMap(image => {
  const name = (image.currentSrc || '').slice(-60), problems = [];
  if (!(image.getAttribute('alt') || '').trim()) problems.push(`no alt text: ${name}`);
  const caption = image.closest('figure')?.querySelector('figcaption')?.innerText || '';
  if (image.closest('.cell') && !caption.trim())
    problems.push(`no caption: ${name}`);
  return problems;
})"""

# axe judges the contrast of every token of code and every letter of a formula, minutes a chapter. Of the
# tokens one of each kind tells as much; the inside of a formula is MathJax's own, in the colour of the text.
_LIGHTEN = """() => {
  const seen = new Set();
  for (const code of document.querySelectorAll('.highlight pre')) {
    const kinds = [...code.querySelectorAll('span')].map(token => token.className);
    if (kinds.every(kind => seen.has(kind))) code.textContent = code.textContent;
    kinds.forEach(kind => seen.add(kind));
  }
  document.querySelectorAll('mjx-container').forEach(formula => formula.replaceChildren());
}"""

# What a reader sees: no code, and MathJax's own output is not text.
_TEXT = """() => {
  const copy = document.querySelector('.bd-article').cloneNode(true);
  copy.querySelectorAll('pre, code, script, style, mjx-container').forEach(e => e.remove());
  return copy.textContent;
}"""


def audit_page(chromium: str, base: str, path: str) -> list[str]:
    """Return the problems of one page in every window and theme; runs in a process of its own."""
    from playwright.sync_api import sync_playwright

    axe = distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        return [
            problem
            for width, theme in itertools.product(WIDTHS, THEMES)
            for problem in PageAudit(browser, base, path, width, theme).run(Path(axe).read_text("utf-8"))
        ]


def audit_search(chromium: str, base: str) -> list[str]:
    """Return every query of `ci/queries.yml` whose first result is not the page it should be."""
    from playwright.sync_api import TimeoutError as NoResult
    from playwright.sync_api import sync_playwright

    queries = yaml.safe_load((ROOT / "ci" / "queries.yml").read_text(encoding="utf-8"))
    result, problems = "#search-results ul.search li a", []
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS).new_page()
        for query, expected in queries.items():
            page.goto(f"{base}/search.html?q={quote(query)}")
            try:
                page.wait_for_selector(result, timeout=20_000)
            except NoResult:
                problems.append(f"search: {query!r} finds nothing, {expected} should be first")
                continue
            # Results are drawn one by one, best first.
            first = page.locator(result).first.get_attribute("href")
            if expected not in first:
                problems.append(f"search: {query!r} finds {first} first, not {expected}")
    return problems


def find_chromium() -> str | None:
    """Return the path of a Chromium or Chrome, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def audit_in_browser(chromium: str) -> list[str]:
    """Audit every page and the search, one browser a core; print each verdict as it comes."""
    pages = sorted((HTML / "notebooks").glob("*.html")) + sorted((HTML / "book").glob("*.html"))
    running = server(0)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{running.server_address[1]}"
    problems = []
    # Spawned, for a fork would copy the server's thread.
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(audit_search, chromium, base): "search"}
        for page in pages:
            path = page.relative_to(HTML).as_posix()
            jobs[pool.submit(audit_page, chromium, base, path)] = path
        for job in as_completed(jobs):
            print(f"{jobs[job]:<50}", "\n  ".join(job.result()) or "nothing found", flush=True)
            problems += job.result()
    running.shutdown()
    return problems


def main() -> int:
    """Audit everything; 0 only if nothing is found. Without Chromium say so, and under CI fail."""
    problems = [*broken_links(), *wrong_colab_links()]
    print("\n".join(problems) or "files: nothing found", flush=True)
    chromium = find_chromium()
    if chromium:
        problems += audit_in_browser(chromium)
    else:
        print("audit: no Chromium here, so pages were not opened in a browser (`apt install chromium`)")
        problems += ["under CI nothing may be left out"] * (os.environ.get("CI") == "true")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
