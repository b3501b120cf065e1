"""Lint, normal form, staging and the pieces of the build, without building a site."""

import re

import nbformat
import pytest
import yaml
from nbformat.v4 import new_markdown_cell, new_notebook, new_output

import kexue_lib
from ci import build, fmt, lint, new_chapter, repository, stage
from ci.audit import broken_links
from ci.chapters import ROOT, Chapter, all_chapters, select_chapters
from kexue_lib.checks import MIME as CHECK_MIME


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one chapter, fresh from `make new-chapter`."""
    for folder in ("notebooks", "ci/expected", "book"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "book" / "index.md").write_text("# Title\n", encoding="utf-8")
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/a/b\n", encoding="utf-8")
    contents = "root: book/index\nchapters:\n      - file: notebooks/1_seed\n"
    (tmp_path / "_toc.yml").write_text(contents, encoding="utf-8")
    path = new_chapter.create("1234", "some_words", tmp_path)
    (tmp_path / "_toc.yml").write_text(contents.replace("1_seed", path.stem), encoding="utf-8")
    monkeypatch.setattr(
        Chapter, "expected", property(lambda c: tmp_path / "ci/expected" / f"{c.article}.yml")
    )
    return tmp_path


def findings(chapter: Chapter) -> set[str]:
    return {rule for rule, _ in lint.lint_chapter(chapter)}


class TestLint:
    def test_a_new_chapter_passes(self, project):
        assert [*lint.lint_chapter(all_chapters(project)[0]), *lint.lint_contents(project)] == []

    @pytest.mark.parametrize(
        ("rule", "old", "new"),
        [
            ("KX01", '"cells"', ' "cells"'),
            ("KX02", "# --no-deps", "# --deps"),
            ("KX03", "seed = 0", "seed = [0]"),
            ("KX03", "seed = 0", "seed = 1"),
            ("KX04", "The question it raises.", "See {eq}`first`."),
            ("KX05", r"\\tag{1}", r"\\tag{2}"),
            ("KX05", r"x^2+2x+1. \\tag{1}", r"\\begin{align}x\\end{align}"),
            ("KX06", '"alt": "The figure in words."', '"alt": ""'),
            ("KX08", "import sympy", "from sympy import *"),
            ("KX09", "import sympy", "import keras"),
            ("KX10", "中文导读", "导读"),
            ("KX11", "<details><summary>Solution", "<p>Solution"),
        ],
    )
    def test_each_rule_finds_its_fault(self, project, rule, old, new):
        chapter = all_chapters(project)[0]
        text = chapter.path.read_text(encoding="utf-8")
        assert old in text
        chapter.path.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert rule in findings(chapter)

    def test_missing_expectations(self, project):
        chapter = all_chapters(project)[0]
        chapter.expected.unlink()
        assert findings(chapter) == {"KX12"}

    def test_contents_and_files_must_agree(self, project):
        (project / "notebooks" / "9_orphan.ipynb").write_text("{}", encoding="utf-8")
        (project / "book" / "index.md").unlink()
        messages = [message for rule, message in lint.lint_contents(project) if rule == "KX07"]
        assert messages == [
            "_toc.yml lists book/index, which does not exist",
            "9_orphan.ipynb is not in _toc.yml",
        ]

    def test_outputs_are_stripped_and_noticed(self, project):
        chapter = all_chapters(project)[0]
        notebook = chapter.read()
        notebook.cells[-1].outputs = [new_output("stream", text="left over")]
        nbformat.write(notebook, chapter.path)
        assert "KX01" in findings(chapter)
        fmt.format_chapter(chapter)
        assert findings(chapter) == set()


class TestNormalForm:
    def test_ids_are_kept_and_new_cells_get_the_next_number(self):
        cells = [
            new_markdown_cell("b", id="7-005"),
            new_markdown_cell("new"),
            new_markdown_cell("c", id="7-002"),
        ]
        notebook = nbformat.reads(fmt.normal_form(new_notebook(cells=cells), "7"), as_version=4)
        assert [cell.id for cell in notebook.cells] == ["7-005", "7-006", "7-002"]

    def test_it_is_a_fixed_point(self):
        text = new_chapter.skeleton("7")
        assert fmt.normal_form(nbformat.reads(text, as_version=4), "7") == text


class TestNewChapter:
    @pytest.mark.parametrize(("article", "slug"), [("12a", "words"), ("12", "Words"), ("1234", "again")])
    def test_bad_names_and_existing_chapters_are_refused(self, project, article, slug):
        with pytest.raises(ValueError, match=r"must be digits|there is a chapter"):
            new_chapter.create(article, slug, project)

    def test_selection_by_id_or_name(self, project):
        chapter = all_chapters(project)[0]
        assert select_chapters(["1234"], project) == select_chapters([chapter.name], project) == [chapter]
        with pytest.raises(ValueError, match="no chapter is called 99; there are: 1234_some_words"):
            select_chapters(["99"], project)


def test_renaming_the_repository_reaches_every_file(project):
    changed = repository.rename("owner/name", project)
    assert repository.slug(project) == "owner/name"
    assert project / "_config.yml" in changed
    with pytest.raises(ValueError, match="must be owner/name"):
        repository.rename("owner", project)


class TestStage:
    def attached(self, chapter: Chapter, tmp_path) -> nbformat.NotebookNode:
        executed = chapter.read()
        executed.metadata["kexue_run"] = {
            "seconds": 3.0, "date": "2026-11-20", "device": "a <device>", "python": "3.11", "backend": None,
            "peak_megabytes": 100,
        }  # fmt: skip
        check = {CHECK_MIME: {"statement": "a = b"}, "text/html": "https://cdn.plot.ly/plotly-7.1.0.min.js"}
        executed.cells[-1].outputs = [new_output("display_data", check)]
        nbformat.write(executed, tmp_path / "executed.ipynb")
        return stage.attach_outputs(chapter, tmp_path / "executed.ipynb")

    def test_prose_is_todays_and_outputs_are_the_runs(self, project, tmp_path):
        chapter = all_chapters(project)[0]
        notebook = self.attached(chapter, tmp_path)
        staged = nbformat.reads(stage._notebook_text(chapter, notebook).decode(), as_version=4)
        assert staged.cells[1].source.count("<strong>1 checks</strong>") == 1
        assert "a &lt;device&gt;" in staged.cells[1].source
        preamble = [cell for cell in staged.cells if "hide-input" in cell.metadata.get("tags", [])]
        assert len(preamble) == 1
        assert "importlib" in preamble[0].source
        assert "profile" in preamble[0].source
        data = staged.cells[-1].outputs[0]["data"]
        assert data == {"text/html": "../_static/plotly.min.js"}

    def test_code_that_has_changed_since_is_refused(self, project, tmp_path):
        chapter = all_chapters(project)[0]
        self.attached(chapter, tmp_path)
        notebook = chapter.read()
        notebook.cells[-1].source = "1 + 1"
        nbformat.write(notebook, chapter.path)
        with pytest.raises(FileNotFoundError, match="has changed since it was executed"):
            stage.attach_outputs(chapter, tmp_path / "executed.ipynb")
        with pytest.raises(FileNotFoundError, match="has not been executed"):
            stage.attach_outputs(chapter, tmp_path / "nowhere.ipynb")


class TestBuild:
    def test_any_staged_file_makes_the_build_stale(self, tmp_path, monkeypatch):
        monkeypatch.setattr(stage, "SITE", tmp_path / "_build" / "site")
        page = stage.SITE / "book" / "index.md"
        page.parent.mkdir(parents=True)
        page.write_text("one", encoding="utf-8")
        before = build._fingerprint()
        page.write_text("two", encoding="utf-8")
        assert build._fingerprint() != before

    definitions = 'x={"house":[576,512,["home"],"f015","M1 2"],bars:[448,512,[],"f0c9","M3 4"]}'

    def test_only_the_icons_in_use_are_shipped(self):
        page = '<i class="fa-solid fa-bars fa-lg"></i><i class="fas fa-home"></i>'
        icons = build.icons_in_use([page], self.definitions)
        assert icons == {"bars": (448, 512, "M3 4"), "home": (576, 512, "M1 2")}
        assert ".fa-bars{--icon:url(" in build.icons_stylesheet(icons)

    def test_an_unknown_icon_is_an_error(self):
        with pytest.raises(ValueError, match="icons without a definition: rocket"):
            build.icons_in_use(['<i class="fa-solid fa-rocket">'], self.definitions)

    def test_pages_lose_fonts_and_thebe_once(self):
        page = (
            '<html data-content_root="../"><head><script src="x/fontawesome.js?d=1"></script>'
            '<script>const THEBE_JS_URL = "https://elsewhere"</script>'
            '<link rel="stylesheet" href="sphinx-thebe.css"></head></html>'
        )
        lighter = build.trim_page(page)
        assert not re.search("fontawesome|thebe", lighter, re.IGNORECASE)
        assert '<link rel="stylesheet" href="../_static/icons.css">' in lighter
        assert build.trim_page(lighter) == lighter

    @pytest.mark.parametrize(("name", "scripts"), [("search", 2), ("notebooks/7430_synthesizer", 0)])
    def test_only_the_search_page_loads_the_index(self, name, scripts):
        scripts_of_theme = ("../_static/searchtools.js", "../searchindex.js")
        page = f"<head><script>DOCUMENTATION_OPTIONS.pagename = '{name}';</script>"
        page += "".join(f'<script src="{script}"></script>' for script in scripts_of_theme) + "</head>"
        assert build.trim_page(page).count("<script src=") == scripts


def test_audit_finds_broken_links_and_anchors(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#there">b</a><a href="c.html">c</a>', "utf-8"
    )
    (tmp_path / "b.html").write_text('<a href="a.html#here">a</a><img src="none.png">', "utf-8")
    assert sorted(broken_links(tmp_path)) == [
        "a.html: b.html#there has no such anchor",
        "a.html: c.html does not exist",
        "b.html: none.png does not exist",
    ]


def test_every_query_names_a_page():
    from ci.chapters import ROOT

    queries = yaml.safe_load((ROOT / "ci" / "queries.yml").read_text(encoding="utf-8"))
    assert len(queries) >= 20


def test_citation_names_the_version_of_the_library():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == kexue_lib.__version__
