"""Files to touch: a 3-D body as STL, and two flat sheets as a cut-and-glue pattern in SVG and PDF.

Source of the model: https://kexue.fm/archives/6818.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kexue_lib.validation import require, require_integer, require_real

__all__ = ["Label", "Template", "draw_template", "face_normals", "write_stl"]

MARGIN = 12.0  # millimetres around and between the sheets
TICK = 3.0  # millimetres
OUTLINE_POINTS = 400

SVG_STYLE = (
    "path{fill:none;stroke:#000}.cuts{stroke-width:.4}.rulings{stroke-width:.15;stroke-dasharray:2 2}"
    ".ticks,.scale{stroke-width:.3}text{font:3px sans-serif;text-anchor:middle;dominant-baseline:central}"
)


class Sheet(Protocol):
    """What the drawing needs of an outline; `kexue_lib.mathematics.developable.Outline` has it."""

    @property
    def quarter_length(self) -> float:
        """A quarter of the perimeter."""

    def perimeter_point(self, distance: np.ndarray) -> np.ndarray:
        """Points at distances along the curve, counter-clockwise from the vertex."""


@dataclass(frozen=True)
class Label:
    """A number on the pattern, centred at `position`, shape (2,), in millimetres."""

    text: str
    position: np.ndarray


@dataclass(frozen=True)
class Template:
    """A printable pattern; every polyline has shape (n, 2), in millimetres, y upwards from the lower edge.

    The sheets are mirror images of themselves, so the print may end inside or outside, if both agree.

    Args:
        size: width and height of the page in millimetres.
        cuts: the two closed outlines to cut along, `first` above.
        rulings: lines that stay straight when the sheet is bent; do not crease them.
        ticks: short marks at the edge; each pair with the same number meets.
        labels: the numbers, two of each, and the length of the scale bar.
        scale_bar: a line whose length its label says, to see whether a printer kept the scale.
    """

    size: tuple[float, float]
    cuts: list[np.ndarray]
    rulings: list[np.ndarray]
    ticks: list[np.ndarray]
    labels: list[Label]
    scale_bar: np.ndarray

    def to_svg(self) -> str:
        """The pattern as the text of an SVG file, true to scale."""
        width, height = self.size
        groups = {
            "cuts": self.cuts,
            "rulings": self.rulings,
            "ticks": self.ticks,
            "scale": [self.scale_bar],
        }
        paths = [
            f'<path class="{name}" d="{self._svg_path(line)}"/>'
            for name, lines in groups.items()
            for line in lines
        ]
        texts = [
            f'<text x="{label.position[0]:.3f}" y="{height - label.position[1]:.3f}">{label.text}</text>'
            for label in self.labels
        ]
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.3f}mm" height="{height:.3f}mm" '
            f'viewBox="0 0 {width:.3f} {height:.3f}">'
        )
        return "\n".join([head, f"<style>{SVG_STYLE}</style>", *paths, *texts, "</svg>\n"])

    def _svg_path(self, line: np.ndarray) -> str:
        return "M" + "L".join(f"{x:.3f} {self.size[1] - y:.3f}" for x, y in line)

    def write_svg(self, path: str | Path) -> None:
        """Write the pattern to an SVG file."""
        Path(path).write_text(self.to_svg(), encoding="utf-8")

    def write_pdf(self, path: str | Path) -> None:
        """Write the pattern to a PDF file, true to scale; the same pattern gives the same bytes."""
        from matplotlib.backends.backend_pdf import FigureCanvasPdf  # only a PDF needs matplotlib
        from matplotlib.figure import Figure

        inch = 25.4
        figure = Figure(figsize=(self.size[0] / inch, self.size[1] / inch), layout="none")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.size[0]), ylim=(0, self.size[1]))
        axes.axis("off")
        for lines, style in [
            (self.cuts, {"linewidth": 1.1}),
            (self.rulings, {"linewidth": 0.4, "linestyle": "dashed"}),
            ([*self.ticks, self.scale_bar], {"linewidth": 0.8}),
        ]:
            for line in lines:
                axes.plot(*line.T, color="black", **style)
        for label in self.labels:
            axes.text(*label.position, label.text, fontsize=8, ha="center", va="center")
        FigureCanvasPdf(figure).print_pdf(path, metadata={"CreationDate": None})


def draw_template(first: Sheet, second: Sheet, length: float = 180.0, ticks: int = 6) -> Template:
    """Draw both sheets one above the other; edge points that meet carry the same number.

    Args:
        first: the upper sheet; it must have the perimeter of `second`.
        second: the lower sheet.
        length: longer of the two bent axes in millimetres.
        ticks: numbered marks on a quarter of an edge.

    Raises:
        ValueError: if `length` is not positive or `ticks` is not a whole number of at least 1.
    """
    length = require_real("length", length, above=0)
    ticks = require_integer("ticks", ticks, minimum=1)
    longest = max(2 * sheet.perimeter_point(0.0)[0] for sheet in (first, second))
    scale = length / longest
    heights = [2 * scale * sheet.perimeter_point(sheet.quarter_length)[1] for sheet in (first, second)]
    size = length + 2 * MARGIN, float(sum(heights)) + 3 * MARGIN
    second_centre = np.array([size[0] / 2, MARGIN + heights[1] / 2])
    first_centre = np.array([size[0] / 2, size[1] - MARGIN - heights[0] / 2])
    # The seam walks `first` counter-clockwise from its vertex and `second` clockwise from its co-vertex.
    steps = np.arange(4 * ticks) / ticks
    first_marks = _draw_marks(first, steps * first.quarter_length, scale, first_centre)
    second_marks = _draw_marks(second, (1 - steps) * second.quarter_length, scale, second_centre)
    bar, bar_label = _draw_scale_bar(length)
    return Template(
        size,
        [_draw_edge(first, scale, first_centre), _draw_edge(second, scale, second_centre)],
        _draw_rulings(first, ticks, scale, first_centre) + _draw_rulings(second, ticks, scale, second_centre),
        first_marks[0] + second_marks[0],
        [*first_marks[1], *second_marks[1], bar_label],
        bar,
    )


def _draw_scale_bar(length: float) -> tuple[np.ndarray, Label]:
    """Return a line with ends, shape (6, 2), the largest power of ten that fits into `length`."""
    bar = 10.0 ** math.floor(math.log10(length))
    x = MARGIN + bar * np.array([0, 0, 0, 1, 1, 1])
    y = MARGIN / 2 + TICK / 2 * np.array([-1, 1, 0, 0, 1, -1])
    label = Label(f"{bar:g} mm", np.array([MARGIN + bar / 2, MARGIN / 2 - TICK / 2]))
    return np.stack([x, y], axis=-1), label


def _draw_edge(sheet: Sheet, scale: float, centre: np.ndarray) -> np.ndarray:
    distance = np.linspace(0, 4 * sheet.quarter_length, OUTLINE_POINTS + 1)
    return centre + scale * sheet.perimeter_point(distance)


def _draw_rulings(sheet: Sheet, ticks: int, scale: float, centre: np.ndarray) -> list[np.ndarray]:
    # Half-way between the ticks, so that no ruling strikes a number through.
    distance = (np.arange(2 * ticks) + 0.5) / ticks * sheet.quarter_length
    return [centre + np.stack([point, point * [1, -1]]) for point in scale * sheet.perimeter_point(distance)]


def _draw_marks(
    sheet: Sheet, distances: np.ndarray, scale: float, centre: np.ndarray
) -> tuple[list[np.ndarray], list[Label]]:
    """Ticks and numbers 1, 2, ... of one sheet, at the given distances along its edge."""
    points = scale * sheet.perimeter_point(distances)
    step = 1e-4 * sheet.quarter_length
    tangents = sheet.perimeter_point(distances + step) - sheet.perimeter_point(distances - step)
    inwards = np.stack([-tangents[:, 1], tangents[:, 0]], axis=-1)
    inwards /= np.linalg.norm(inwards, axis=-1, keepdims=True)
    ticks = [centre + np.stack([p, p + TICK * n]) for p, n in zip(points, inwards, strict=True)]
    at = centre + points + 2 * TICK * inwards
    return ticks, [Label(str(number), position) for number, position in enumerate(at, start=1)]


def face_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the outward unit normals of a triangle mesh, shape (T, 3); zeros where a triangle has no area.

    Args:
        vertices: shape (V, 3).
        triangles: vertex numbers, shape (T, 3), counter-clockwise seen from outside.

    >>> face_normals(np.eye(3)[:, [0, 1, 2]] * [1, 1, 0], np.array([[2, 0, 1]]))
    array([[0., 0., 1.]])
    """
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)


def write_stl(path: str | Path, vertices: np.ndarray, triangles: np.ndarray) -> None:
    """Write a triangle mesh to a binary STL file.

    Args:
        path: the file to write.
        vertices: shape (V, 3), in the printer's unit (most programs read millimetres).
        triangles: vertex numbers, shape (T, 3), counter-clockwise seen from outside.

    Raises:
        ValueError: if a shape is wrong.
    """
    vertices, triangles = np.asarray(vertices, float), np.asarray(triangles)
    require(vertices.ndim == 2 and vertices.shape[1] == 3, "vertices", vertices.shape, "of shape (V, 3)")
    require(triangles.ndim == 2 and triangles.shape[1] == 3, "triangles", triangles.shape, "of shape (T, 3)")
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("flags", "<u2")])
    records = np.zeros(len(triangles), record)
    records["normal"], records["corners"] = face_normals(vertices, triangles), vertices[triangles]
    header = b"kexue_lib.mathematics.paper_model".ljust(80, b" ")
    Path(path).write_bytes(header + np.uint32(len(triangles)).astype("<u4").tobytes() + records.tobytes())
