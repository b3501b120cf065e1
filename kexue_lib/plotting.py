"""The look of the book's figures, and figures to turn and drag that work without a kernel.

Figures are drawn dark on white at the width of a phone's column; in dark mode the site inverts them.
"""

import base64
import html
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by readers with any kind of colour vision. Names, because prose says
# "the blue curve".
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#B65C93", "#C98A00", "#3B9AD0", "#767676",
)  # fmt: skip

# 5.4 inches of a 390-pixel phone leave eleven points of type at about ten pixels: still readable.
WIDTH = 5.4

# Of Linux and Colab, macOS and Windows; matplotlib knows a collection by its first, often Japanese, name.
CHINESE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Serif CJK SC", "Noto Serif CJK JP", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans GB", "Heiti TC", "Microsoft YaHei", "SimHei",
)  # fmt: skip

STYLE = {
    "figure.figsize": (WIDTH, 3.4),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.prop_cycle": f"cycler('color', {[BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY]})",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#d8d8d8",
    "grid.linewidth": 0.6,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "image.cmap": "cividis",
    "svg.hashsalt": "kexue",  # the same figure gives the same file
}


def use_book_style() -> None:
    """Set matplotlib's style for the book; in a notebook, draw vector figures."""
    import matplotlib.pyplot as plt
    from IPython import get_ipython

    plt.rcParams.update(STYLE)
    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def families() -> list[str]:
    """Return matplotlib's font and then those installed that have Chinese characters, to take these from.

    For `family=` of a text that may be Chinese. Where no such font is installed matplotlib draws boxes.
    """
    from matplotlib import font_manager, rcParams

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [*rcParams["font.family"], *(name for name in CHINESE_FONTS if name in installed)]


def interactive(
    figure: "plotly.graph_objects.Figure", poster: "Figure", *, caption: str, alt: str, height: int = 460
) -> None:
    """Show a plotly figure that loads its script only when the reader touches it.

    Until then, in print and without scripts, the reader sees `poster`. No kernel is needed: sliders must be
    plotly's own (frames and steps).

    Args:
        figure: the figure to turn and drag.
        poster: a matplotlib figure of the same thing; it is closed.
        caption: what the figure shows, one or two sentences; `$…$` stays as it is typed.
        alt: the same for a reader who does not see it.
        height: height in pixels once it is alive.
    """
    import matplotlib.pyplot as plt
    from IPython.display import HTML, display
    from plotly.offline import get_plotlyjs_version

    buffer = io.BytesIO()
    # Less than half of a PNG's bytes, and every pixel of it.
    poster.savefig(buffer, format="webp", dpi=150, pil_kwargs={"lossless": True, "method": 6})
    plt.close(poster)
    figure.update_layout(
        paper_bgcolor="white",
        font={"size": 13},
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        height=height,
        template="plotly_white",
    )
    markup = _INTERACTIVE.format(
        script=f"https://cdn.plot.ly/plotly-{get_plotlyjs_version()}.min.js",
        poster=base64.b64encode(buffer.getvalue()).decode(),
        caption=html.escape(caption),
        alt=html.escape(alt),
        height=height,
        figure=figure.to_json().replace("</", "<\\/"),  # "</script>" would end the element
    )
    display(HTML(markup))


def slider(names: list[str], *, active: str, prefix: str) -> dict:
    """Return plotly's layout of a slider that shows the frame of each name at once, without a kernel.

    Args:
        names: names of the figure's frames, in the order of the slider.
        active: the name of the frame that the figure starts with.
        prefix: what stands before the name, for instance "n = ".

    Raises:
        ValueError: if `active` is not one of the names.

    >>> slider(["2", "3"], active="3", prefix="n = ")["active"]
    1
    """
    at_once = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    steps = [{"label": name, "method": "animate", "args": [[name], at_once]} for name in names]
    current = {"prefix": prefix}
    return {"active": names.index(active), "currentvalue": current, "steps": steps, "pad": {"t": 50}}


_INTERACTIVE = """\
<figure class="kexue-interactive" data-plotly="{script}" style="margin:0">
<div class="kexue-stage" style="background:white">
<img alt="{alt}" src="data:image/webp;base64,{poster}" style="max-width:100%;display:block;margin:auto">
<button type="button" style="display:block;margin:6px auto 0;padding:4px 14px;cursor:pointer"
 onclick="(function(button){{
  var box=button.closest('figure'),stage=box.querySelector('.kexue-stage');
  var source=JSON.parse(box.querySelector('script').textContent);
  function draw(){{
    var target=document.createElement('div');target.style.minHeight='{height}px';
    stage.replaceChildren(target);
    Plotly.newPlot(target,source.data,source.layout,{{responsive:true,displaylogo:false}})
      .then(function(){{if(source.frames)Plotly.addFrames(target,source.frames);}});
  }}
  if(window.Plotly)return draw();
  button.textContent='loading …';
  var script=document.createElement('script');script.src=box.dataset.plotly;
  script.onload=draw;script.onerror=function(){{button.textContent='plotly could not be loaded';}};
  document.head.appendChild(script);
 }})(this)">make it interactive</button>
</div>
<figcaption>{caption}</figcaption>
<script type="application/json">{figure}</script>
</figure>
"""
