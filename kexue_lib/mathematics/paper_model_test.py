import struct
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from kexue_lib.mathematics.developable import ellipse, enclosed_volume, from_support, glue
from kexue_lib.mathematics.paper_model import draw_template, write_stl


def unequal_pair():
    first, second = ellipse(2, 1), from_support([1, 0.25, 0.01])
    return glue(first, second.scaled(first.quarter_length / second.quarter_length))


def read_stl(path):
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data, 80)
    assert len(data) == 84 + 50 * count
    return np.array([struct.unpack_from("<12f", data, 84 + 50 * i) for i in range(count)]).reshape(
        count, 4, 3
    )


def test_stl_holds_the_body(tmp_path):
    bag = unequal_pair()
    path = tmp_path / "bag.stl"
    write_stl(path, *bag.mesh(30))
    facets = read_stl(path)
    normals, corners = facets[:, 0], facets[:, 1:]
    assert len(facets) == 8 * 30 - 4
    volume = enclosed_volume(corners.reshape(-1, 3), np.arange(3 * len(facets)).reshape(-1, 3))
    assert volume == pytest.approx(enclosed_volume(*bag.mesh(30)), rel=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert (np.sum(normals * (corners[:, 0] - [bag.extent / 2, 0, 0]), axis=1) > 0).all()  # outwards
    assert not path.read_bytes().startswith(b"solid")  # which would announce a text file


def test_stl_of_a_triangle_without_area_has_no_nan(tmp_path):
    write_stl(tmp_path / "flat.stl", np.zeros((3, 3)), [[0, 1, 2]])
    np.testing.assert_array_equal(read_stl(tmp_path / "flat.stl"), 0)


@pytest.mark.parametrize(
    ("vertices", "triangles", "name"),
    [(np.zeros((3, 2)), [[0, 1, 2]], "vertices"), (np.zeros((3, 3)), [0, 1, 2], "triangles")],
)
def test_stl_refuses_wrong_shapes(tmp_path, vertices, triangles, name):
    with pytest.raises(ValueError, match=f"{name} must be of shape"):
        write_stl(tmp_path / "bad.stl", vertices, triangles)


def test_template_has_the_size_asked_for():
    bag = unequal_pair()
    template = bag.template(length=150.0, ticks=4)
    first, second = template.cuts
    assert np.ptp(first[:, 0]) == pytest.approx(150, rel=1e-9)
    assert np.ptp(first[:, 1]) == pytest.approx(75, rel=1e-9)
    lengths = [np.linalg.norm(np.diff(cut, axis=0), axis=1).sum() for cut in template.cuts]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-4)
    assert lengths[0] == pytest.approx(4 * bag.first.quarter_length * 150 / 4, rel=1e-4)
    # All lies on the page, and the sheets do not touch.
    everything = np.concatenate([*template.cuts, *template.rulings, *template.ticks])
    assert (everything > 0).all()
    assert (everything < template.size).all()
    assert first[:, 1].min() > second[:, 1].max()


def test_equal_numbers_lie_where_the_edges_meet():
    bag = unequal_pair()
    ticks = 5
    template = bag.template(length=200.0, ticks=ticks)
    numbers = [int(label.text) for label in template.labels[:-1]]
    assert sorted(numbers) == sorted(2 * list(range(1, 4 * ticks + 1)))
    scale = 200.0 / 4
    starts = np.array([tick[0] for tick in template.ticks]).reshape(2, 4 * ticks, 2)
    first, second = ((marks - marks.mean(axis=0)) / scale for marks in starts)
    # On the seam y is the short coordinate of the first sheet and z that of the second; the long
    # coordinate of either has the sign of the other sheet's short one.
    s = np.arange(ticks + 1) / ticks * bag.first.quarter_length
    np.testing.assert_allclose(first[: ticks + 1, 1], bag.seam_at(s)[:, 1], atol=1e-9)
    np.testing.assert_allclose(second[: ticks + 1, 1], bag.seam_at(s)[:, 2], atol=1e-9)
    sign = np.sign(np.round(np.stack([first, second]), 6))
    np.testing.assert_array_equal(sign[0, :, 0], sign[1, :, 1])
    np.testing.assert_array_equal(sign[1, :, 0], sign[0, :, 1])


def test_marks_of_the_template():
    template = unequal_pair().template(ticks=6)
    assert len(template.rulings) == 2 * 12
    for start, end in template.rulings:
        assert start[0] == pytest.approx(end[0], abs=1e-12)  # parallel to the short axis
        assert min(np.linalg.norm(start - label.position) for label in template.labels) > 3
    # Ticks point inwards and are 3 mm long: the first one at the vertex, to the left.
    np.testing.assert_allclose(template.ticks[0][1] - template.ticks[0][0], [-3, 0], atol=1e-4)
    for tick in template.ticks:
        assert np.linalg.norm(tick[1] - tick[0]) == pytest.approx(3, rel=1e-9)


@pytest.mark.parametrize(("length", "bar"), [(180.0, 100), (99.0, 10)])
def test_scale_bar_is_as_long_as_it_says(length, bar):
    template = unequal_pair().template(length=length)
    assert template.labels[-1].text == f"{bar} mm"
    assert np.ptp(template.scale_bar[:, 0]) == pytest.approx(bar)
    assert (template.scale_bar > 0).all()
    assert (template.scale_bar < np.min(template.cuts[1], axis=0).clip(min=length)).all()


def test_svg_is_true_to_scale():
    template = unequal_pair().template(ticks=3)
    root = ElementTree.fromstring(template.to_svg())
    width, height = template.size
    assert root.get("width") == f"{width:.3f}mm"
    assert root.get("viewBox") == f"0 0 {width:.3f} {height:.3f}"
    name = "{http://www.w3.org/2000/svg}"
    paths = root.findall(f"{name}path")
    kinds = [path.get("class") for path in paths]
    assert [kinds.count(kind) for kind in ("cuts", "rulings", "ticks", "scale")] == [2, 12, 24, 1]
    assert len(root.findall(f"{name}text")) == 24 + 1
    x, y = map(float, paths[0].get("d")[1:].split("L")[0].split())
    np.testing.assert_allclose([x, height - y], template.cuts[0][0], atol=1e-3)  # y downwards in SVG


def test_files_are_written_and_reproducible(tmp_path):
    template = unequal_pair().template(ticks=3)
    template.write_svg(tmp_path / "bag.svg")
    assert (tmp_path / "bag.svg").read_text(encoding="utf-8") == template.to_svg()
    for name in ("a.pdf", "b.pdf"):
        template.write_pdf(tmp_path / name)
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf == (tmp_path / "b.pdf").read_bytes()
    assert b"CreationDate" not in pdf
    width, height = (side * 72 / 25.4 for side in template.size)
    box = pdf.split(b"/MediaBox [")[1].split(b"]")[0].split()
    np.testing.assert_allclose([float(value) for value in box], [0, 0, width, height], atol=0.01)


@pytest.mark.parametrize(("argument", "value"), [("length", 0), ("length", float("nan")), ("ticks", 0)])
def test_template_refuses_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be"):
        draw_template(ellipse(2, 1), ellipse(2, 1), **{argument: value})
