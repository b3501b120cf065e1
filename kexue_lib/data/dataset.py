"""What a loader returns, and the line that tells a reader where it came from."""

from dataclasses import dataclass, fields
from html import escape

import numpy as np

from kexue_lib.output import show

MIME_TYPE = "application/vnd.kexue.data+json"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Data and its provenance. A kind of data subclasses it and adds its arrays or texts.

    Attributes:
        name: what it is, and how it was split if that is our choice.
        source: where it comes from: an address, or the library that ships or generated it.
        licence: under which licence it may be used.
        is_stand_in: whether it replaces the data that the article used.
    """

    name: str
    source: str
    licence: str
    is_stand_in: bool

    def show(self) -> None:
        """Display one line with name, source and licence, and record the same in the notebook."""
        kind = "Stand-in data" if self.is_stand_in else "Data"
        text = f"{kind}: {self.name}. Source: {self.source}. Licence: {self.licence}."
        record = {field.name: getattr(self, field.name) for field in fields(Dataset)}
        facts = {MIME_TYPE: {**record, "sizes": self._sizes()}}
        show(text, markup=f'<p class="kexue-data">{escape(text)}</p>', facts=facts)

    def _sizes(self) -> dict[str, list[int]]:
        own = fields(self)[len(fields(Dataset)) :]
        values = {field.name: getattr(self, field.name) for field in own}
        return {name: list(v.shape) if isinstance(v, np.ndarray) else [len(v)] for name, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class LabelledImages(Dataset):
    """Grey images and their classes, in two disjoint parts.

    Attributes:
        train_images: shape (examples, height, width), float32, from 0 (background) to 1.
        train_labels: shape (examples,), int32, from 0 to 9.
        test_images: as `train_images`.
        test_labels: as `train_labels`.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Couplets(Dataset):
    """Pairs of lines that answer each other character by character, in two disjoint parts.

    Attributes:
        train_upper: the upper halves, one string each.
        train_lower: the lower halves; each has the length of its upper half.
        test_upper: as `train_upper`.
        test_lower: as `train_lower`.
    """

    train_upper: tuple[str, ...]
    train_lower: tuple[str, ...]
    test_upper: tuple[str, ...]
    test_lower: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Text(Dataset):
    """A running text.

    Attributes:
        text: all of it; a paragraph a line, no empty lines.
    """

    text: str


@dataclass(frozen=True, kw_only=True)
class Verse(Dataset):
    """Poems.

    Attributes:
        poems: of each poem its lines, without punctuation.
        titles: of each poem; some titles occur more than once.
        authors: of each poem.
    """

    poems: tuple[tuple[str, ...], ...]
    titles: tuple[str, ...]
    authors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Brackets(Dataset):
    """Sentences of matching brackets.

    Attributes:
        tokens: shape (sentences, length), int32; 1 + the place of the bracket in `alphabet`, 0 after the end.
        depths: shape (sentences, length), int32; how many pairs a bracket stands in, its own included; 0
            after the end.
        trees: of each sentence its tree, as `kexue_lib.text.trees` has them: a matching pair and what stands
            within is a part.
        alphabet: the brackets.
    """

    tokens: np.ndarray
    depths: np.ndarray
    trees: tuple[tuple, ...]
    alphabet: str
