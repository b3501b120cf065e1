import json
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from kexue_lib import plotting

matplotlib.use("agg")


def relative_luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_every_colour_stands_out_from_white_and_when_inverted_from_black():
    """At least 2.5 : 1 as the contrast of a two-point line, in light and (inverted) in dark mode."""
    for colour in (plotting.BLUE, plotting.VERMILLION, plotting.GREEN, plotting.PURPLE, plotting.ORANGE,
                   plotting.SKY, plotting.GREY):  # fmt: skip
        assert 1.05 / (relative_luminance(colour) + 0.05) > 2.5, colour


def test_style_is_set_and_figures_are_reproducible(tmp_path):
    plotting.use_book_style()
    assert plt.rcParams["figure.figsize"] == [plotting.WIDTH, 3.4]
    files = []
    for name in ("a.svg", "b.svg"):
        figure, axes = plt.subplots()
        axes.plot([0, 1], [0, 1])
        figure.savefig(tmp_path / name, metadata={"Date": None})
        plt.close(figure)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_interactive_figure_is_whole_without_a_kernel_or_a_script(shown):
    import plotly.graph_objects as go

    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1], name="</script>"))
    figure.frames = [go.Frame(name="later", data=[go.Scatter(x=[0, 1], y=[1, 0])])]
    poster, _ = plt.subplots()
    markup = shown(plotting.interactive, figure, poster, caption='a "caption"', alt="a & b")[0]["text/html"]
    assert re.search(r'<img alt="a &amp; b" src="data:image/webp;base64,', markup)
    assert "<figcaption>a &quot;caption&quot;</figcaption>" in markup
    # A script element ends at the first "</script>": data must not contain one.
    source = re.search(r'<script type="application/json">(.*?)</script>', markup, re.DOTALL)[1]
    data = json.loads(source)
    assert data["data"][0]["name"] == "</script>"
    assert data["frames"][0]["name"] == "later"
    assert not plt.fignum_exists(poster.number)
    assert len(re.findall(r"https?://", re.sub(r"data:image[^\"]*|<script type.*", "", markup))) == 1
