"""What the website adds to the portable Markdown of the chapters.

Theorem blocks from block quotes, the Chinese guide marked as Chinese, links from the blog's articles to our
chapters, displayed equations that keep their tags, and a search that finds Chinese compound words.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.search import languages
from sphinx.search.en import SearchEnglish
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

ARTICLE = re.compile(r"https://(?:www\.)?(?:kexue\.fm|spaces\.ac\.cn)/archives/(\d+)/?$")
KINDS = {
    "Theorem": "theorem", "Lemma": "theorem", "Corollary": "theorem", "Proposition": "theorem",
    "Definition": "definition", "Proof": "proof", "Remark": "remark", "Erratum": "erratum",
    "中文导读": "guide",
}  # fmt: skip


class StyledQuotes(SphinxTransform):
    """Give block quotes that open with a bold keyword ("**Theorem.**", "**中文导读.**") its class."""

    default_priority = 500

    def apply(self) -> None:
        for quote in list(self.document.findall(nodes.block_quote)):
            opening = next(quote.findall(nodes.strong), None)
            keyword = re.match(r"[\w]+", opening.astext()) if opening is not None else None
            kind = KINDS.get(keyword[0]) if keyword else None
            if kind is None or opening.parent is not quote[0] or quote[0].index(opening) != 0:
                continue
            quote["classes"] += ["kexue-block", f"kexue-{kind}"]
            if kind == "guide":
                position = quote.parent.index(quote)
                quote.parent.insert(position + 1, nodes.raw("", "</div>", format="html"))
                quote.parent.insert(position, nodes.raw("", '<div lang="zh">', format="html"))


class KeepTags(SphinxTransform):
    r"""Hand displayed equations to MathJax as they are: Sphinx would wrap those with `\\` in `split`.

    MathJax refuses `\tag` there.
    """

    default_priority = 510

    def apply(self) -> None:
        for equation in self.document.findall(nodes.math_block):
            if not equation.get("nowrap"):
                equation["nowrap"] = True
                text = "\\[" + equation.astext() + "\\]"
                equation.children = [nodes.Text(text)]


class ArticlesToChapters(SphinxPostTransform):
    """Turn a link to an article of the blog into one to our chapter on it, the original kept beside it."""

    default_priority = 5
    formats = ("html",)

    def run(self, **_: object) -> None:
        chapters = {
            match[1]: name
            for name in self.env.found_docs
            if (match := re.match(r"notebooks/(\d+)_", name)) and name != self.env.docname
        }
        for link in list(self.document.findall(nodes.reference)):
            match = ARTICLE.match(link.get("refuri", ""))
            if match is None or match[1] not in chapters:
                continue
            original = nodes.reference("", "original", refuri=link["refuri"], classes=["kexue-original"])
            link["refuri"] = self.app.builder.get_relative_uri(self.env.docname, chapters[match[1]])
            link["internal"] = True
            position = link.parent.index(link)
            link.parent.insert(position + 1, [nodes.Text(" ("), original, nodes.Text(")")])


class BigramSearch(SearchEnglish):
    """English words, stemmed; Chinese text as overlapping pairs of characters, on both sides.

    A query is cut in the browser by the same rule, so that 变分自编码器 finds every page that contains it,
    without a dictionary on either side.
    """

    lang = "kexue"
    language_name = "English and Chinese"
    js_splitter_code = r"""
var splitQuery = (query) => {
  const chunks = query.match(/[\u3400-\u9fff]+|[^\u3400-\u9fff]+/gu) || [];
  return chunks.flatMap((chunk) => {
    if (!/[\u3400-\u9fff]/u.test(chunk))
      return chunk.split(/[^\p{Letter}\p{Number}_\p{Emoji_Presentation}]+/gu).filter((term) => term);
    if (chunk.length === 1) return [chunk];
    return Array.from({length: chunk.length - 1}, (_, i) => chunk.slice(i, i + 2));
  });
};
"""

    def split(self, text: str) -> list[str]:
        words = []
        for chunk in re.findall(r"[\u3400-\u9fff]+|[^\u3400-\u9fff]+", text):
            if not re.match(r"[\u3400-\u9fff]", chunk):
                words += super().split(chunk)
            elif len(chunk) == 1:
                words.append(chunk)
            else:
                words += [chunk[i : i + 2] for i in range(len(chunk) - 1)]
        return words

    def word_filter(self, word: str) -> bool:
        return bool(re.match(r"[\u3400-\u9fff]", word)) or super().word_filter(word)


def without_figure_numbers(_: Sphinx, config: Config) -> None:
    """Leave figures without numbers, which would run through all chapters and to which nothing refers.

    To give them out, Sphinx would load every page whenever one has changed. Jupyter Book insists on them, so
    the last word must come after its own.
    """
    config.numfig = False


def setup(app: Sphinx) -> dict:
    languages["kexue"] = BigramSearch
    app.add_transform(StyledQuotes)
    app.add_transform(KeepTags)
    app.add_post_transform(ArticlesToChapters)
    app.connect("config-inited", without_figure_numbers, priority=900)
    app.add_css_file("kexue.css")
    app.add_js_file("kexue.js", loading_method="defer")
    app.config.html_search_scorer = str(Path(__file__).parent / "scorer.js")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
