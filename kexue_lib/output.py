"""One way to show something: text everywhere; in a notebook also its markup, and the facts for a machine."""


def show(text: str, *, markup: str | None = None, facts: dict | None = None) -> None:
    """Print `text`, or in a notebook display it in its richest form.

    Args:
        text: for terminals, and for whoever reads the notebook file.
        markup: the same as HTML.
        facts: further forms by MIME type: Markdown, or JSON that the regression suite reads.

    >>> show("the variance is 0.1107", markup="the variance is <b>0.1107</b>")
    the variance is 0.1107
    """
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(text)
        return
    bundle = {"text/plain": text, **({"text/html": markup} if markup else {}), **(facts or {})}
    display(bundle, raw=True)
