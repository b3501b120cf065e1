import json

import numpy as np
import pytest

from kexue_lib import notebook


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch):
    monkeypatch.setattr(notebook, "_recorded", set())


class TestRecord:
    def test_numbers_travel_as_json(self, shown):
        bundle = shown(notebook.record, steps=5165, rate=1 / 3, one=np.array([2.0]))[0]
        assert json.loads(json.dumps(bundle[notebook.METRICS_MIME])) == {
            "steps": 5165,
            "rate": 1 / 3,
            "one": 2.0,
        }
        assert bundle["text/plain"] == "steps = 5165\nrate = 0.3333333333\none = 2"

    @pytest.mark.parametrize("bad", [float("nan"), np.inf, "0.5", None, True, [1, 2], 1j, 10**400])
    def test_anything_but_one_finite_number_is_refused(self, shown, bad):
        with pytest.raises(ValueError, match=r"loss must be (one|a) finite number"):
            shown(notebook.record, loss=bad)

    def test_a_name_is_recorded_once(self, shown):
        shown(notebook.record, loss=1.0)
        with pytest.raises(ValueError, match="recorded twice: loss"):
            shown(notebook.record, loss=2.0)

    def test_a_tensor_that_carries_a_gradient(self, shown):
        torch = pytest.importorskip("torch")
        tensor = torch.ones(1, requires_grad=True)
        assert shown(notebook.record, value=tensor)[0][notebook.METRICS_MIME] == {"value": 1.0}


def test_seed_everything_repeats_the_streams():
    import random

    draws = []
    for _ in range(2):
        notebook.seed_everything(3)
        draws.append((random.random(), np.random.rand()))
    assert draws[0] == draws[1]


def test_seed_everything_seeds_keras_once_it_is_there():
    keras = pytest.importorskip("keras")
    draws = []
    for _ in range(2):
        notebook.seed_everything(3)
        draws.append(keras.ops.convert_to_numpy(keras.random.uniform((3,))))
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize("bad", [-1, 2**32, 0.5, "0", True])
def test_seed_out_of_range(bad):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        notebook.seed_everything(bad)


def test_erratum_shows_and_carries_its_three_parts(shown):
    bundle = shown(notebook.erratum, "a claim", "a counter-example", "a repair")[0]
    assert bundle[notebook.ERRATUM_MIME] == {
        "statement": "a claim",
        "problem": "a counter-example",
        "repair": "a repair",
    }
    assert bundle["text/markdown"].startswith("> **Erratum.** a claim\n>\n> **Why it fails.** a counter")


def test_compare_shows_a_table_with_data_profile_and_device(shown):
    rows = [("steps", "–", 5165), ("variance", "0.110661", 0.11066147786855)]
    bundle = shown(notebook.compare, iter(rows), data="nothing", profile="cpu")[0]
    assert "| variance | 0.110661 | 0.110661 |" in bundle["text/markdown"]
    assert "| steps | – | 5165 |" in bundle["text/markdown"]
    assert bundle[notebook.COMPARISON_MIME] == {
        "rows": [("steps", "–", "5165"), ("variance", "0.110661", "0.110661")],
        "data": "nothing",
        "profile": "cpu",
        "device": notebook.device(),
    }
    last = bundle["text/markdown"].splitlines()[-1]
    assert last == f"Data: nothing · profile: `cpu` · device: {notebook.device()}"


@pytest.mark.parametrize("rows", [[], [("steps", 3)], ["abc"]])
def test_compare_wants_three_entries_a_row(rows):
    with pytest.raises(ValueError, match="at least one"):
        notebook.compare(rows, data="none", profile="cpu")


@pytest.mark.parametrize("bad", [float("nan"), np.array([1.0, 2.0]), None, 1j, True])
def test_compare_refuses_what_is_no_number(bad):
    with pytest.raises(ValueError, match="ours must be one finite number"):
        notebook.compare([("steps", "–", bad)], data="none", profile="cpu")


def test_a_bar_does_not_end_a_cell_of_the_table(shown):
    bundle = shown(notebook.compare, [("$|H|$", "–", 1)], data="none", profile="cpu")[0]
    assert "| $\\|H\\|$ | – | 1 |" in bundle["text/markdown"]


def test_a_line_break_does_not_end_a_row_of_the_table(shown):
    bundle = shown(notebook.compare, [("a\nb", "–", 1)], data="none", profile="cpu")[0]
    assert "| a b | – | 1 |" in bundle["text/markdown"]


@pytest.mark.parametrize("parts", [("", "b", "c"), ("a", " ", "c"), ("a", "b", "")])
def test_an_erratum_has_three_parts(parts):
    with pytest.raises(ValueError, match="must be a sentence"):
        notebook.erratum(*parts)


def test_say_shows_markdown(shown):
    assert shown(notebook.say, "**3**")[0]["text/markdown"] == "**3**"


def test_device_has_a_name_once_keras_is_there():
    pytest.importorskip("keras")
    assert notebook.device()


def test_an_erratum_of_two_paragraphs_stays_in_its_quote(shown):
    text = shown(notebook.erratum, "a\n\nb", "c", "d")[0]["text/markdown"]
    assert all(line.startswith(">") for line in text.split("\n"))


def test_versions_name_python_numpy_and_the_device(shown):
    text = shown(notebook.versions)[0]["text/plain"]
    assert text.startswith("Python 3.")
    assert f"numpy {np.__version__}" in text
    assert text.endswith(notebook.device())
    assert notebook.device()


def test_offer_puts_the_file_into_the_page(shown):
    markup = shown(notebook.offer, "bag.stl", b"solid", "the bag")[0]["text/html"]
    assert 'download="bag.stl"' in markup
    assert "base64,c29saWQ=" in markup
    assert "&lt;b&gt;" in shown(notebook.offer, "bag.stl", b"solid", "<b>")[0]["text/html"]
    for content in (b"", b"x" * 400_001):
        with pytest.raises(ValueError, match="1 to 400,000 bytes"):
            notebook.offer("bag.stl", content, "the bag")


def test_dry_run_follows_the_environment(monkeypatch):
    monkeypatch.setenv("KEXUE_DRY_RUN", "1")
    assert notebook.dry_run()
    monkeypatch.setenv("KEXUE_DRY_RUN", "0")
    assert not notebook.dry_run()


def test_outside_a_notebook_everything_prints(capsys):
    notebook.say("a sentence")
    assert capsys.readouterr().out == "a sentence\n"
