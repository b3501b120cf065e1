"""Chinese texts without meaning but with structure, in place of real ones."""

from itertools import islice

import numpy as np

# Characters that answer each other, by the place they take in a line.
_PAIRS = {
    "noun": "天地山水日月风云花鸟江海春秋星露松竹雨雪楼阁溪岭烟霞酒茶琴剑舟马城村草木鱼雁霜雾",
    "place": "东西南北前后上下内外左右",
    "adjective": "高深清明远近寒暖白青新旧长短轻重古今绿红孤双",
    "verb": "来去开落起归听看行坐照映飞流生老笑歌吹扫",
    "number": "一千三五百万两半",
}
_GRAMMARS = {
    5: ("adjective", "noun", "verb", "adjective", "noun"),
    7: ("number", "noun", "place", "noun", "verb", "adjective", "noun"),
}
_RARELY = 0.1


def generated_couplets(count: int) -> list[tuple[str, str]]:
    """Return pairs of halves of five or seven characters, always the same.

    A character's answer is its partner in nine cases of ten, and another of its kind otherwise. No character
    answers itself. Where the upper half repeats a character the lower half repeats the answer.
    """
    random = np.random.default_rng(0)
    return [_couplet(_GRAMMARS[(5, 7)[int(random.integers(2))]], random) for _ in range(count)]


def _couplet(grammar: tuple[str, ...], random: np.random.Generator) -> tuple[str, str]:
    upper = "".join(_any(_PAIRS[kind], random) for kind in grammar)
    answers = {
        character: _answer(character, _PAIRS[kind], random)
        for character, kind in zip(upper, grammar, strict=True)
    }
    return upper, "".join(answers[character] for character in upper)


def _answer(character: str, kind: str, random: np.random.Generator) -> str:
    if random.random() < _RARELY:
        return _any(kind.replace(character, ""), random)
    return kind[kind.index(character) ^ 1]  # partners stand at an even place and the odd one after it


def _any(characters: str, random: np.random.Generator) -> str:
    return characters[int(random.integers(len(characters)))]


def generated_prose(length: int) -> str:
    """Return so many characters of sentences, one a line, whose words follow Zipf's law; always the same."""
    random = np.random.default_rng(0)
    words = _words(3000, random)
    frequencies = 1 / np.arange(1, len(words) + 1)
    drawn = iter(random.choice(words, size=length, p=frequencies / frequencies.sum()).tolist())
    sizes = iter(random.integers(2, 7, size=length).tolist())
    text = ""
    while len(text) < length:
        clauses = ["".join(islice(drawn, next(sizes))) for _ in range(3)]
        text += "，".join(clauses) + "。\n"
    return text[:length]


def _words(count: int, random: np.random.Generator) -> list[str]:
    """Return different words of one to three common characters."""
    # The first 800 of level 1 of the standard GB 2312, which begins at row 16 and has 94 characters a row.
    common = "".join(bytes([0xB0 + place // 94, 0xA1 + place % 94]).decode("gb2312") for place in range(800))
    words = {}
    while len(words) < count:
        size = int(random.choice([1, 2, 3], p=[0.15, 0.7, 0.15]))
        words["".join(_any(common, random) for _ in range(size))] = None
    return list(words)
