import json
from collections import Counter

import numpy as np
import pytest

from kexue_lib.data import DataError, nested_brackets, novel, tang_couplets, verse
from kexue_lib.data.dataset import MIME_TYPE
from kexue_lib.data.generated_texts import _PAIRS, _words
from kexue_lib.text.trees import leaves, spans

LOADERS = {"couplets": tang_couplets, "novel": lambda profile="cpu": novel(profile=profile), "verse": verse}
loaders = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)


@pytest.fixture
def data_folder(monkeypatch, tmp_path):
    folder = tmp_path / "data"
    for name in ("couplets_tang", "novels", "mengxue"):
        (folder / name).mkdir(parents=True)
    monkeypatch.setenv("KEXUE_DATA", str(folder))
    return folder


def write_couplets(folder):
    halves = {
        "train_in": "天 高\n山 远 近\n",
        "train_out": "地 厚\n水 长 短\n",
        "test_in": "日 月\n",
        "test_out": "星 云\n",
    }
    for name, text in halves.items():
        (folder / f"couplets_tang/{name}.txt").write_text(text, encoding="utf-8")


class TestEveryLoader:
    @loaders
    def test_stand_in_says_so(self, load, shown):
        (bundle,) = shown(load().show)
        assert bundle["text/plain"].startswith("Stand-in data: ")
        assert "generated" in bundle["text/plain"]
        assert bundle[MIME_TYPE]["is_stand_in"]
        assert all(size[0] >= 200 for size in bundle[MIME_TYPE]["sizes"].values())

    @loaders
    def test_stand_in_is_always_the_same(self, load):
        assert load() == load()

    @loaders
    def test_gpu_profile_says_how_to_get_it(self, load):
        with pytest.raises(
            DataError, match=r"not in KEXUE_DATA.*github\.com/.* put it at .* point KEXUE_DATA"
        ):
            load("gpu")

    @loaders
    def test_dry_run_is_small_and_touches_no_file(self, load, monkeypatch, tmp_path):
        monkeypatch.setenv("KEXUE_DRY_RUN", "1")
        monkeypatch.setenv("KEXUE_DATA", str(tmp_path / "nowhere"))
        data = load("gpu")
        assert data.is_stand_in
        assert all(size[0] <= 2000 for size in data._sizes().values())

    @loaders
    def test_unknown_profile(self, load):
        with pytest.raises(ValueError, match="profile must be 'cpu' or 'gpu', got 'tpu'"):
            load("tpu")


class TestCouplets:
    @pytest.mark.parametrize("profile", ["cpu", "gpu"])
    def test_real_ones(self, data_folder, profile):
        write_couplets(data_folder)
        data = tang_couplets(profile)
        assert (data.train_upper, data.train_lower) == (("天高", "山远近"), ("地厚", "水长短"))
        assert (data.test_upper, data.test_lower) == (("日月",), ("星云",))
        assert not data.is_stand_in
        assert "2 train and 1 test" in data.name
        assert "digest not checked" in data.source

    def test_a_missing_file(self, data_folder):
        write_couplets(data_folder)
        (data_folder / "couplets_tang/test_out.txt").unlink()
        with pytest.raises(DataError, match=r"couplets_tang/test_out\.txt is missing in KEXUE_DATA; add it"):
            tang_couplets()

    def test_no_stand_in_where_a_part_is_there(self, data_folder):
        write_couplets(data_folder)
        (data_folder / "couplets_tang/train_in.txt").unlink()
        with pytest.raises(DataError, match=r"couplets_tang/train_in\.txt is missing in KEXUE_DATA; add it"):
            tang_couplets()

    @pytest.mark.parametrize("lower", ["地 厚\n", "地 厚\n水 长\n"])
    def test_halves_of_unequal_length(self, data_folder, lower):
        write_couplets(data_folder)
        (data_folder / "couplets_tang/train_out.txt").write_text(lower, encoding="utf-8")
        with pytest.raises(DataError, match="do not match line by line"):
            tang_couplets()

    def test_not_utf_8(self, data_folder):
        write_couplets(data_folder)
        (data_folder / "couplets_tang/train_in.txt").write_bytes("天 高\n".encode("gb18030"))
        with pytest.raises(DataError, match=r"train_in\.txt cannot be read as UTF-8"):
            tang_couplets()

    def test_stand_in_has_the_rules_of_couplets(self):
        """Equal lengths, nothing repeated in place, and what repeats above repeats below."""
        data = tang_couplets()
        pairs = list(zip(data.train_upper, data.train_lower, strict=True))
        assert {len(upper) for upper, _ in pairs} == {5, 7}
        repeats = 0
        for upper, lower in pairs:
            assert len(upper) == len(lower)
            assert all(a != b for a, b in zip(upper, lower, strict=True))
            answers = set(zip(upper, lower, strict=True))
            assert len(answers) == len(set(upper))
            repeats += len(answers) < len(upper)
        assert repeats > 100

    def test_stand_in_has_something_to_learn(self):
        """The most frequent answer to a character is right nine times in ten."""
        data = tang_couplets()
        answers = Counter(
            pair
            for upper, lower in zip(data.train_upper, data.train_lower, strict=True)
            for pair in zip(upper, lower, strict=True)
        )
        table = {upper: lower for (upper, lower), _ in sorted(answers.items(), key=lambda item: item[1])}
        right = [
            table[a] == b
            for upper, lower in zip(data.test_upper, data.test_lower, strict=True)
            for a, b in zip(upper, lower, strict=True)
        ]
        assert 0.88 < np.mean(right) < 0.92  # of 1,200 characters

    def test_characters_of_the_stand_in_are_in_pairs_and_of_one_kind(self):
        every = "".join(_PAIRS.values())
        assert len(set(every)) == len(every)
        assert all(len(kind) % 2 == 0 for kind in _PAIRS.values())


class TestNovel:
    def test_real_one(self, data_folder):
        content = "《红楼梦》曹雪芹\r\n\r\n    \t\t\r\n\r\n    第一段．\r\n\r\n　　第二段．“完”\r\n"
        (data_folder / "novels/红楼梦.txt").write_bytes(content.encode())
        data = novel()
        assert data.text == "《红楼梦》曹雪芹\n第一段。\n第二段。“完”"
        assert data.name == "红楼梦 by 曹雪芹, 21 characters"
        assert not data.is_stand_in
        assert novel("水浒传").is_stand_in

    def test_only_one_novel_has_full_stops_of_its_own(self, data_folder):
        (data_folder / "novels/水浒传.txt").write_text("既然如此．．．”\n", encoding="utf-8")
        assert novel("水浒传").text == "既然如此．．．”"

    def test_words_of_the_stand_in_follow_the_law_of_zipf(self):
        """Pairs of characters are not words, but the frequent ones are."""
        text = novel().text
        counts = Counter(text[place : place + 2] for place in range(len(text) - 1))
        by_rank = [count for pair, count in counts.most_common() if not set(pair) & set("，。\n")]
        assert by_rank[0] > 5 * by_rank[20] > 25 * by_rank[800]

    def test_words_of_the_stand_in_have_one_to_three_characters(self):
        words = _words(500, np.random.default_rng(0))
        assert len(set(words)) == 500
        assert {len(word) for word in words} == {1, 2, 3}

    def test_stand_in(self):
        text = novel().text
        assert len(text) == 200_000
        assert all(line.endswith("。") for line in text.splitlines()[:-1])
        characters = Counter(text)
        assert characters["，"] > characters["。"] == pytest.approx(len(text.splitlines()), abs=1)

    def test_unknown_title(self):
        with pytest.raises(ValueError, match=r"title must be one of 红楼梦, .* got '金瓶梅'"):
            novel("金瓶梅")


class TestVerse:
    def test_real_poems(self, data_folder):
        lines = ["一二三；四五六。", "七八九[一作十]，十百千？", "甲乙：丙丁、\n 戊！"]
        poems = [{"author": "甲", "title": "乙", "paragraphs": lines}]
        (data_folder / "mengxue/唐诗三百首.json").write_text(json.dumps(poems), encoding="utf-8")
        data = verse()
        assert data.poems == (("一二三", "四五六", "七八九", "十百千", "甲乙", "丙丁", "戊"),)
        assert (data.titles, data.authors) == (("乙",), ("甲",))
        assert not data.is_stand_in

    @pytest.mark.parametrize("content", ["[", "[1]", '[{"title": "乙"}]', "7"])
    def test_damaged(self, data_folder, content):
        (data_folder / "mengxue/唐诗三百首.json").write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=r"json is damaged or another file .* replace it"):
            verse()

    def test_stand_in_is_of_the_four_forms(self):
        forms = Counter((len(poem), *{len(line) for line in poem}) for poem in verse().poems)
        assert forms == {(4, 5): 75, (4, 7): 75, (8, 5): 75, (8, 7): 75}


class TestNestedBrackets:
    @pytest.mark.parametrize("length", [4, 6, 30])
    def test_brackets_match(self, length):
        data = nested_brackets(sentences=200, length=length, seed=3)
        assert data.tokens.shape == data.depths.shape == (200, length)
        assert data.tokens.dtype == data.depths.dtype == "int32"
        for tokens, depths in zip(data.tokens, data.depths, strict=True):
            text = "".join(data.alphabet[token - 1] for token in tokens if token)
            assert np.all(tokens[len(text) :] == 0)
            assert np.all(depths[len(text) :] == 0)
            assert 4 <= len(text) <= length
            while any(pair in text for pair in ("()", "[]", "{}", "<>")):
                for pair in ("()", "[]", "{}", "<>"):
                    text = text.replace(pair, "")
            assert text == ""

    def test_depths(self):
        """Both brackets of a pair have its depth; the outermost have 1."""
        data = nested_brackets(sentences=200, length=30)
        assert np.all(data.depths.max(axis=1) > 0)
        for tokens, depths in zip(data.tokens, data.depths, strict=True):
            is_open = tokens % 2 == 1
            before = np.cumsum(np.where(tokens == 0, 0, np.where(is_open, 1, -1)))
            np.testing.assert_array_equal(depths, np.where(tokens == 0, 0, before + ~is_open))

    def test_trees(self):
        data = nested_brackets(sentences=200, length=30)
        for tokens, depths, tree in zip(data.tokens, data.depths, data.trees, strict=True):
            text = [data.alphabet[token - 1] for token in tokens if token]
            assert leaves(tree) == text
            pairs, stack = set(), []
            for place, depth in enumerate(depths[: len(text)]):
                if len(stack) < depth:
                    stack.append(place)
                elif tokens[place] % 2 == 0:
                    pairs.add((stack.pop(), place + 1))
                else:
                    stack.append(place)
            assert spans(tree) == pairs - {(0, len(text))}

    def test_a_sentence_that_is_one_pair_is_that_pair(self):
        data = nested_brackets(sentences=300, length=4)
        apart = [tree for tree in data.trees if isinstance(tree[0], tuple)]
        nested = [tree for tree in data.trees if isinstance(tree[0], str)]
        assert all([len(part) for part in tree] == [2, 2] for tree in apart)  # ("(", ")"), ("[", "]")
        assert all([len(part) for part in tree] == [1, 2, 1] for tree in nested)  # "(", ("[", "]"), ")"
        assert 120 < len(nested) < 180  # after the first bracket it opens or closes, 1/2 each

    def test_every_number_of_pairs_is_as_likely(self):
        sizes = np.count_nonzero(nested_brackets(sentences=2000, length=12).tokens, axis=1)
        counts = Counter(sizes.tolist())
        assert all(340 < count < 460 for count in counts.values())  # 400 each; 18 is a deviation

    def test_every_kind_is_as_likely(self):
        tokens = nested_brackets(sentences=500, length=12).tokens
        opens = Counter(tokens[(tokens % 2 == 1)].tolist())
        assert set(opens) == {1, 3, 5, 7}
        assert max(opens.values()) < 1.2 * min(opens.values())

    def test_lengths_and_depths_vary(self):
        data = nested_brackets(sentences=400, length=12)
        assert set(np.count_nonzero(data.tokens, axis=1)) == {4, 6, 8, 10, 12}
        assert set(data.depths.max(axis=1)) == {1, 2, 3, 4, 5, 6}
        assert set(data.tokens.ravel()) == set(range(9))

    def test_seeds(self):
        first, same, other = (nested_brackets(5, 12, seed=seed).tokens for seed in (0, 0, 1))
        assert np.array_equal(first, same)
        assert not np.array_equal(first, other)

    def test_is_what_it_says(self):
        data = nested_brackets(5, 12)
        assert not data.is_stand_in
        assert data._sizes() == {"tokens": [5, 12], "depths": [5, 12], "trees": [5], "alphabet": [8]}

    def test_dry_run(self, monkeypatch):
        monkeypatch.setenv("KEXUE_DRY_RUN", "1")
        assert nested_brackets(5000, 12).tokens.shape == (40, 12)

    @pytest.mark.parametrize(
        ("sentences", "length", "message"),
        [
            (0, 12, "sentences must be a whole number of at least 1, got 0"),
            (5, 2, "length must be a whole number of at least 4, got 2"),
            (5, 7, "length must be even, for brackets come in pairs, got 7"),
        ],
    )
    def test_bad_arguments(self, sentences, length, message):
        with pytest.raises(ValueError, match=message):
            nested_brackets(sentences, length)

    @pytest.mark.parametrize("seed", [-1, None])
    def test_bad_seed(self, seed):
        with pytest.raises(ValueError, match="seed must be a whole number of at least 0"):
            nested_brackets(5, 12, seed)
