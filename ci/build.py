"""Build the site: stage, strict `jupyter-book build`, then serve everything from the site itself.

`make book` executes what must be executed first. A build whose inputs have not changed is not repeated.
"""

import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ci import stage
from ci.chapters import BUILD, ROOT

HTML = BUILD / "html"
STAMP = BUILD / "html.stamp"
ICONS = "icons.css"
# What MathJax loads for the commands in this book; the rest of its 30 MB stays out of the site.
MATHJAX_PARTS = (
    "tex-chtml.js",
    "output/chtml/fonts/woff-v2",
    "input/tex/extensions",
    "a11y/assistive-mml.js",
)


def build() -> None:
    """Build the site unless nothing that it is made from has changed.

    Raises:
        SystemExit: if a warning or an error occurred; the site is then not to be published.
    """
    stage.stage()
    fingerprint = _fingerprint()
    if STAMP.exists() and STAMP.read_text() == fingerprint:
        return
    STAMP.unlink(missing_ok=True)
    jupyter_book = Path(sys.executable).parent / "jupyter-book"
    command = [str(jupyter_book), "build", str(stage.SITE), "--path-output", str(ROOT)]
    result = subprocess.run([*command, "-W", "-n", "--keep-going", "-q"], cwd=ROOT, check=False)
    if result.returncode:
        sys.exit("the site was not built: mend the warnings above (every warning counts)")
    for file in (stage.SITE / "book" / "_static").iterdir():  # Sphinx copies them only when a page changes
        _copy(file, HTML / "_static" / file.name)
    localise(HTML)
    STAMP.write_text(fingerprint)


def _fingerprint() -> str:
    """Hash everything the site is made from: staged tree, builder and lock."""
    digest = hashlib.sha256()
    for path in [*sorted(stage.SITE.rglob("*")), Path(__file__), ROOT / "requirements.txt"]:
        if path.is_file():
            digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


# --- nothing comes from elsewhere ------------------------------------------------------------------------


def localise(site: Path) -> None:
    """Copy MathJax and plotly's script into the site and replace the icon font by the icons in use."""
    static = site / "_static"
    mathjax = _package_folder("sphinx-mathjax-offline", "sphinx-mathjax-offline/static/mathjax")
    for part in MATHJAX_PARTS:
        _copy(mathjax / part, static / "mathjax" / part)
    _copy(_package_folder("plotly", "plotly/package_data") / "plotly.min.js", static / "plotly.min.js")
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(site.rglob("*.html"))}
    definitions = _package_folder(
        "pydata-sphinx-theme", "pydata_sphinx_theme/theme/pydata_sphinx_theme/static/scripts"
    )
    icons = icons_in_use(pages.values(), (definitions / "fontawesome.js").read_text(encoding="utf-8"))
    (static / ICONS).write_text(icons_stylesheet(icons), encoding="utf-8")
    for page, text in pages.items():
        lighter = trim_page(text)
        if lighter != text:
            page.write_text(lighter, encoding="utf-8")
    theme = static / "styles" / "pydata-sphinx-theme.css"
    theme.write_text(re.sub(r"@font-face\{[^}]*fontawesome[^}]*\}", "", theme.read_text("utf-8")), "utf-8")
    for heavy in ("scripts/fontawesome.js", "scripts/fontawesome.js.map", "vendor/fontawesome"):
        _remove(static / heavy)


def icons_in_use(pages, definitions: str) -> dict[str, tuple[int, int, str]]:
    """Return width, height and outline of every icon that a page names.

    Raises:
        ValueError: if the theme's script does not define one of them.
    """
    styles = {"solid", "regular", "brands", "fw", "lg", "sm", "xs", "spin", "stack"}
    named = {name for page in pages for name in re.findall(r"\bfa-([a-z0-9-]+)", page)} - styles
    icons = {}
    for name in sorted(named):
        # The script holds brands, regular and solid icons, in this order: the last is the solid one.
        pattern = rf'[{{,"]{name}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]'
        found = re.findall(pattern, definitions) or _by_alias(name, definitions)
        if found:
            width, height, outline = found[-1]
            icons[name] = (int(width), int(height), outline)
    missing = named - icons.keys() - {"layers", "layers-text"}
    if missing:
        raise ValueError(f"icons without a definition: {', '.join(sorted(missing))}")
    return icons


def _by_alias(name: str, definitions: str) -> list[tuple[str, str, str]]:
    pattern = rf':\[(\d+),(\d+),\[[^\]]*"{name}"[^\]]*\],"[0-9a-f]+","([^"]+)"\]'
    return re.findall(pattern, definitions)


def icons_stylesheet(icons: dict[str, tuple[int, int, str]]) -> str:
    """Return a style sheet that draws each icon as a mask, in the colour of the text around it."""
    common = (
        ".fa-solid,.fas,.fa-brands,.fab,.fa-regular,.far{display:inline-block;height:1em;width:1.1em;"
        "vertical-align:-.125em;background:currentColor;-webkit-mask:var(--icon) center/contain no-repeat;"
        "mask:var(--icon) center/contain no-repeat}.fa-lg{font-size:1.25em}\n"
    )
    rules = []
    for name, (width, height, outline) in icons.items():
        path = f"%3Cpath d='{outline}'/%3E"
        svg = f"%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'%3E{path}%3C/svg%3E"
        rules.append(f'.fa-{name}{{--icon:url("data:image/svg+xml,{svg}")}}')
    return common + "\n".join(rules) + "\n"


def trim_page(page: str) -> str:
    """Return the page without the theme's icon script and fonts and without Thebe, and with our icons.

    Jupyter Book includes Thebe, which runs cells on a server elsewhere, twice and on every page. The theme
    loads the search index, which grows with the book, on every page, for a search as one types that is off.
    """
    if "pagename = 'search'" not in page:
        index = r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>'
        page = re.sub(index, "", page)
    page = re.sub(r"\s*<script>const THEBE_JS_URL[^<]*</script>", "", page)
    page = re.sub(r"\s*<(?:script|link)[^>]*sphinx-thebe[^>]*>(?:</script>)?", "", page)
    thebe = r'\s*<script type="text/x-thebe-config">.*?</script>\s*<script>kernelName[^<]*</script>'
    page = re.sub(thebe, "", page, flags=re.DOTALL)
    page = re.sub(r"\s*<script[^>]*fontawesome\.js[^>]*></script>", "", page)
    page = re.sub(r"\s*<link[^>]*(?:fontawesome|fa-(?:solid|brands|regular)-\d+)[^>]*/?>", "", page)
    if f'_static/{ICONS}"' in page:  # an earlier build has trimmed it
        return page
    root = re.search(r'data-content_root="([^"]*)"', page)
    link = f'<link rel="stylesheet" href="{root[1] if root else ""}_static/{ICONS}">\n'
    return page.replace("</head>", link + "</head>", 1)


def _package_folder(distribution: str, inside: str) -> Path:
    return Path(importlib.metadata.distribution(distribution).locate_file(inside))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    start = time.monotonic()
    try:
        build()
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(f"site built in {time.monotonic() - start:.1f} s: {HTML / 'index.html'}")
    print("serve it with `make serve`, or open the file")
