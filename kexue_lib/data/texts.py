"""Chinese texts in the public domain: Tang couplets and poems, and four classic novels.

None of them has a publisher of digests, so they are never downloaded: they come from `KEXUE_DATA`.
"""

import json
import re
from pathlib import Path

from kexue_lib.data.dataset import Couplets, Text, Verse
from kexue_lib.data.files import DataError, in_data_folder
from kexue_lib.data.generated_texts import generated_couplets, generated_prose
from kexue_lib.notebook import dry_run
from kexue_lib.validation import require

POETRY = "https://github.com/chinese-poetry/chinese-poetry (99ebbef)"
NOVELS = {"红楼梦": "曹雪芹", "水浒传": "施耐庵", "西游记": "吴承恩", "三国演义": "罗贯中"}
POEMS = "mengxue/唐诗三百首.json"
UNCHECKED = "a copy in KEXUE_DATA, digest not checked"
NO_LICENCE = {"licence": "none needed", "is_stand_in": True}


def tang_couplets(profile: str = "cpu") -> Couplets:
    """Load 43,393 couplets of five or seven characters a half, taken from Tang poems; 1,000 of them to test.

    Couplets that have one character at the same place of both halves were left out when the file was made.

    Looks for the four files `couplets_tang/{train,test}_{in,out}.txt` in `KEXUE_DATA`: one half a line, its
    characters separated by spaces. Another corpus of couplets in this layout can take their place. Without
    them the `cpu` profile generates couplets as a stand-in: 4,000 and 200, of common characters in fixed
    pairs.

    Args:
        profile: `"cpu"` or `"gpu"`.

    Raises:
        DataError: if a file is missing or damaged, or the `gpu` profile finds no data.
        ValueError: if the profile is unknown.

    Source: article 6270 (the task); the poems' third and fourth, fifth and sixth lines.
    """
    paths = {
        f"{part}_{half}": f"couplets_tang/{part}_{end}.txt"
        for part in ("train", "test")
        for half, end in (("upper", "in"), ("lower", "out"))
    }
    origin = f"lines 3 to 6 of the eight-line poems in 全唐诗 of {POETRY}, simplified"
    if not _is_at_hand(profile, [*paths.values()], origin):
        return _generated_couplets()
    halves = {name: _halves(_required(path)) for name, path in paths.items()}
    for part in ("train", "test"):
        lengths = ([len(half) for half in halves[f"{part}_{half}"]] for half in ("upper", "lower"))
        if len({tuple(row) for row in lengths}) > 1:
            raise DataError(f"couplets_tang/{part}_in.txt and {part}_out.txt do not match line by line")
    train, test = len(halves["train_upper"]), len(halves["test_upper"])
    return Couplets(
        name=f"Tang couplets, {train:,} train and {test:,} test",
        source=f"{origin}; {UNCHECKED}",
        licence="public domain; the collection MIT",
        is_stand_in=False,
        **halves,
    )


def novel(title: str = "红楼梦", profile: str = "cpu") -> Text:
    """Load a classic novel, in simplified characters and modern punctuation.

    Looks for `novels/<title>.txt` in `KEXUE_DATA`. Paragraphs lose their indentation, and the full stop that
    红楼梦 writes as ． becomes 。. Otherwise the copies are as they were found: 西游记 has lost its commas,
    and paragraphs of the others, most of all of 三国演义, have characters of a wrong encoding. Without the
    file the `cpu` profile generates 200,000 characters of prose without meaning as a stand-in: words of one
    to three characters, whose frequencies follow Zipf's law.

    Args:
        title: 红楼梦, 水浒传, 西游记 or 三国演义.
        profile: `"cpu"` or `"gpu"`.

    Raises:
        DataError: if the file is damaged or the `gpu` profile finds no data.
        ValueError: if the title or the profile is unknown.
    """
    require(title in NOVELS, "title", title, f"one of {', '.join(NOVELS)}")
    path = f"novels/{title}.txt"
    origin = "https://github.com/tennessine/corpus (c5ce96a)"
    if not _is_at_hand(profile, [path], f"{title}.txt of {origin}"):
        return _generated_novel(title)
    lines = (line.strip() for line in _content(_required(path)).splitlines())
    text = "\n".join(line for line in lines if line)
    if title == "红楼梦":  # in 水浒传 three of them are an ellipsis, in 西游记 one is a comma
        text = text.replace("．", "。")
    return Text(
        name=f"{title} by {NOVELS[title]}, {len(text):,} characters",
        source=f"{origin}; {UNCHECKED}",
        licence="public domain",
        is_stand_in=False,
        text=text,
    )


def verse(profile: str = "cpu") -> Verse:
    """Load the poems of 唐诗三百首, Three Hundred Tang Poems, in traditional characters.

    Looks for `mengxue/唐诗三百首.json` in `KEXUE_DATA`. Notes in brackets are left out. The file has 366
    entries, for some poems stand in it under two titles, 13 of them word for word: leave the second copies
    out before you split. Without the file the `cpu` profile generates 300 poems as a stand-in: four or eight
    lines of five or seven characters.

    Args:
        profile: `"cpu"` or `"gpu"`.

    Raises:
        DataError: if the file is damaged or the `gpu` profile finds no data.
        ValueError: if the profile is unknown.
    """
    if not _is_at_hand(profile, [POEMS], f"全唐诗/唐诗三百首.json of {POETRY}"):
        return _generated_verse()
    file = _required(POEMS)
    try:
        poems = json.loads(_content(file))
        rows = [("".join(poem["paragraphs"]), poem["title"], poem["author"]) for poem in poems]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is damaged or another file ({error!r}); replace it by a good copy"
        ) from error
    return Verse(
        name=f"唐诗三百首, {len(rows)} poems in traditional characters",
        source=f"{POETRY}; {UNCHECKED}",
        licence="public domain; the collection MIT",
        is_stand_in=False,
        poems=tuple(_lines(text) for text, _, _ in rows),
        titles=tuple(title for _, title, _ in rows),
        authors=tuple(author for _, _, author in rows),
    )


def _is_at_hand(profile: str, paths: list[str], origin: str) -> bool:
    """Return whether a file is there to be read; if none is, a stand-in or a dry run's few texts must do."""
    require(profile in ("cpu", "gpu"), "profile", profile, "'cpu' or 'gpu'")
    if dry_run():
        return False
    if any(map(in_data_folder, paths)):
        return True
    if profile == "gpu":
        raise DataError(
            f"{paths[0]} is not in KEXUE_DATA, and it cannot be downloaded for you because nobody publishes "
            f"its digest. Get or make it ({origin}), put it at {', '.join(paths)} in a folder of yours and "
            "point KEXUE_DATA there"
        )
    return False


def _required(path: str) -> Path:
    file = in_data_folder(path)
    if file is None:
        raise DataError(f"{path} is missing in KEXUE_DATA; add it")
    return file


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 ({error}); replace it by a good copy") from error


def _halves(file: Path) -> tuple[str, ...]:
    return tuple("".join(line.split()) for line in _content(file).splitlines())


def _lines(text: str) -> tuple[str, ...]:
    """Return the lines of a poem: what stands between its marks, without notes in brackets."""
    return tuple(line for line in re.split(r"[，。？！；：、\s]+", re.sub(r"\[.*?\]", "", text)) if line)


def _generated_couplets() -> Couplets:
    train, test = (32, 8) if dry_run() else (4000, 200)
    upper, lower = zip(*generated_couplets(train + test), strict=True)
    return Couplets(
        name=f"generated couplets in place of those of the Tang, {train:,} train and {test:,} test",
        source="generated: characters that answer each other, in the places of a grammar",
        **NO_LICENCE,
        train_upper=upper[:train],
        train_lower=lower[:train],
        test_upper=upper[train:],
        test_lower=lower[train:],
    )


def _generated_novel(title: str) -> Text:
    text = generated_prose(2_000 if dry_run() else 200_000)
    return Text(
        name=f"prose without meaning in place of {title}, {len(text):,} characters",
        source="generated: words of one to three characters by Zipf's law",
        **NO_LICENCE,
        text=text,
    )


def _generated_verse() -> Verse:
    count = 40 if dry_run() else 300
    couplets = iter(generated_couplets(10 * count))
    poems = []
    for number in range(count):
        size, pairs = (5, 7)[number % 2], (2, 4)[number // 2 % 2]
        fitting = (pair for pair in couplets if len(pair[0]) == size)
        poems.append(tuple(line for _ in range(pairs) for line in next(fitting)))
    return Verse(
        name=f"{count} generated poems in place of 唐诗三百首",
        source="generated: couplets of characters that answer each other",
        **NO_LICENCE,
        poems=tuple(poems),
        titles=("generated",) * count,
        authors=("nobody",) * count,
    )
