# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The scenes of `tla_study.py`: two pictures side by side, and texts that say which of them is on the left.

Each scene is there in both orders, one after the other. A tower whose patches see neither one another nor where they
are gives both the same vector, and cannot tell their texts apart better than a coin.
"""

import io
import json
import math
import tarfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tla_study_pictures import METADATA, Pictures, draw, read_pictures, write_metadata
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from turingvit_hf.data.draws import draws
from turingvit_hf.data.media import decode_image
from turingvit_hf.files.whole_folder import written_whole
from turingvit_hf.modeling.dual_encoder_parts import pool_text
from turingvit_hf.processing.pixels import resize_pixels
from turingvit_hf.training.collators import tokenize


# between the captions of two pictures; the tokenizer knows it
SEPARATOR = "[SEP]"
WHITE = 255
# pictures that are paired with one another: a pack has scenes of few pictures, and what tells them apart is the order
GROUP = 16
NUM_COMMON = 32
# so many scenes have the smallest size for each that has another
SMALLEST = 5

Pair = tuple[int, int]


class OrderedWordVectorsConfig(PreTrainedConfig):
    """Configuration of `OrderedWordVectors`; `hidden_size` is twice the width of a word's vector."""

    model_type = "ordered_word_vectors"
    vocab_size: int = 30522
    hidden_size: int = 768
    special_tokens: list[int] | None = None
    separator: int = 102
    # it has none, which estimates of its cost want to know
    num_hidden_layers: int = 0


class OrderedWordVectors(PreTrainedModel):
    """A text of two captions becomes the mean of the words' vectors of the first, and next to it that of the second.

    Of a text of one caption the second half is zeros.

    Args:
        config: its `special_tokens` count for nothing; the first `separator`, which is one of them, stands between
            captions.
    """

    config_class = OrderedWordVectorsConfig
    config: OrderedWordVectorsConfig
    input_modalities = ("text",)

    def __init__(self, config: OrderedWordVectorsConfig):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size // 2)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The words' vectors."""
        return self.words

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """The ordered vectors (M, 2 W) as `pooler_output`, of texts (M, tokens)."""
        special = torch.tensor(self.config.special_tokens or [], device=input_ids.device)
        words = ~torch.isin(input_ids, special)
        if attention_mask is not None:
            words = words & attention_mask.bool()
        is_second = (input_ids == self.config.separator).cumsum(1) > 0
        vectors = self.words(input_ids)
        halves = [pool_text(vectors, words & part, "mean") for part in (~is_second, is_second)]
        return BaseModelOutputWithPooling(last_hidden_state=vectors, pooler_output=torch.cat(halves, -1))


AutoConfig.register(OrderedWordVectorsConfig.model_type, OrderedWordVectorsConfig)
AutoModel.register(OrderedWordVectorsConfig, OrderedWordVectors)


def keep_ordered_vectors(text_encoder: Path, target: Path, captions: Sequence[str]) -> None:
    """Makes an `OrderedWordVectors` of the words' vectors of a BERT, with its tokenizer.

    Vectors are shifted and scaled so that those of captions have mean 0 and standard deviation 1: otherwise all texts
    are alike at first.

    Args:
        text_encoder: folder of the BERT.
        target: the folder, which appears whole or not at all.
        captions: of training.
    """
    embeddings = AutoModel.from_pretrained(text_encoder).embeddings
    words = embeddings.word_embeddings.weight
    tokenizer = AutoTokenizer.from_pretrained(text_encoder)
    config = OrderedWordVectorsConfig(
        vocab_size=len(words),
        hidden_size=2 * words.shape[1],
        special_tokens=tokenizer.all_special_ids,
        separator=tokenizer.sep_token_id,
    )
    model = OrderedWordVectors(config)
    with torch.no_grad():
        # as they come out of BERT's embeddings, but for their places
        vectors = embeddings.LayerNorm(words + embeddings.token_type_embeddings.weight[0])
        model.words.weight.copy_(vectors)
        found = model(**tokenize(tokenizer, captions)).pooler_output[:, : words.shape[1]]
        model.words.weight.copy_((vectors - found.mean(0)) / (found - found.mean(0)).std())
    with written_whole(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two squares (3, C, C) side by side, (3, C, 2 C)."""
    return np.concatenate((first, second), axis=2)


def on_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """A picture (3, H, W) with this longer side in the middle of a white square (3, side, side)."""
    height, width = pixels.shape[1:]
    longest = max(height, width)
    size = (max(1, round(height * side / longest)), max(1, round(width * side / longest)))
    square = np.full((3, side, side), WHITE, np.uint8)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    resized = resize_pixels(pixels, size, Image.Resampling.BICUBIC)
    square[:, top : top + size[0], left : left + size[1]] = resized
    return square


def draw_pairs(captions: Sequence[str], num_pairs: int, *, key: str, but: Collection[Pair] = ()) -> list[Pair]:
    """Pairs of numbers below `len(captions)` whose captions differ, none twice and none of `but`, in either order.

    All numbers are used once before one is used again, as far as captions allow.
    """
    pairs: list[Pair] = []
    taken = {frozenset(pair) for pair in but}
    for epoch in range(1 + 4 * math.ceil(2 * num_pairs / max(1, len(captions)))):
        numbers = list(range(len(captions)))
        draws("pairs", key, epoch).shuffle(numbers)
        for one, other in zip(numbers[::2], numbers[1::2], strict=False):
            if captions[one] != captions[other] and {one, other} not in taken and len(pairs) < num_pairs:
                taken.add(frozenset((one, other)))
                pairs.append((one, other))
    return pairs


def draw_groups(captions: Sequence[str], num_groups: int) -> list[list[int]]:
    """Groups of numbers below `len(captions)` whose captions differ, every second one of the few that come often.

    Which order is right can be learned only of pictures that are known; a few are known soon, and the others are there
    so that what is learned of the few holds for all.
    """
    numbers = list(range(len(captions)))
    draws("common").shuffle(numbers)
    bags: dict[bool, list[int]] = {True: [], False: []}
    groups = []
    for number in range(num_groups):
        is_common = number % 2 == 0
        group: dict[str, int] = {}
        while len(group) < min(GROUP, len(set(captions))):
            if not bags[is_common]:
                bags[is_common] = numbers[:NUM_COMMON] if is_common else numbers.copy()
                draws("groups", number).shuffle(bags[is_common])
            place = bags[is_common].pop()
            group.setdefault(captions[place], place)
        groups.append(list(group.values()))
    return groups


def pairs_of(group: Sequence[int]) -> list[Pair]:
    """Each of a group with the two that follow it in a circle, those of five and more."""
    return [(one, group[(place + step) % len(group)]) for place, one in enumerate(group) for step in (1, 2)]


def make_scenes(
    pictures: Path,
    target: Path,
    *,
    bounds: tuple[int, int],
    sides: Sequence[int],
    num_groups: int,
    num_measured: int,
    patch_size: int,
) -> None:
    """Writes `train/`, tars of scenes in both orders, and folders of scenes that are measured.

    These are `test`, of held-out pictures, `seen`, of pictures of training in pairs that training has not, and
    `drawings512` and so on, of held-out drawings, drawn anew for each side. Squares have whole patches, so that no
    patch has something of two pictures, and pictures lie alike in the left and in the right square.

    Args:
        pictures: what `make_pictures` wrote.
        target: the folder, which appears whole or not at all.
        bounds: between which the longer side of each scene lies in `train`, `test` and `seen`, in pixels; most have
            the smallest.
        sides: the longer sides of scenes of drawings.
        num_groups: groups of pictures in training, each of 32 pairs, which are 64 scenes.
        num_measured: pairs of each of the other folders, at most.
        patch_size: side of a patch in pixels.
    """
    train, test = (read_pictures(pictures / split) for split in ("train", "test"))
    unit = 2 * patch_size
    squares = [number * patch_size for number in range(-(-bounds[0] // unit), bounds[1] // unit + 1)]
    groups = [pairs_of(group) for group in draw_groups(train.captions, num_groups)]
    seen = draw_pairs(train.captions, num_measured, key="seen", but=[pair for pairs in groups for pair in pairs])
    held_out = draw_pairs(test.captions, num_measured, key="test")
    rows = [json.loads(line) for line in (pictures / "test" / METADATA).read_text(encoding="utf-8").splitlines()]
    drawings = [row for row in rows if row["drawing"]]
    of_drawings = draw_pairs([row["caption"] for row in drawings], num_measured, key="drawings")
    with written_whole(target) as folder:
        (folder / "train").mkdir()
        for number, pairs in enumerate(groups):
            _write_group(folder / "train" / f"{number:04d}.tar", train, pairs, _draw_square("train", number, squares))
        for name, objects, pairs in (("test", test, held_out), ("seen", train, seen)):
            made = []
            for number, pair in enumerate(pairs):
                side = _draw_square(name, number, squares)
                made.append([on_square(objects.images[place], side) for place in pair])
            _write_measured(folder / name, made, _captions(objects.captions, pairs))
        for side in sides:
            drawn = ([_drawn(drawings[place]["drawing"], side // 2) for place in pair] for pair in of_drawings)
            captions = _captions([row["caption"] for row in drawings], of_drawings)
            _write_measured(folder / f"drawings{side}", drawn, captions)


def read_scenes(folder: Path) -> Pictures:
    """The scenes of a folder that is measured, each followed by the one with its pictures in the other order."""
    images, captions = [], []
    for line in (folder / METADATA).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        first, second = (decode_image(folder / row[name]) for name in ("first", "second"))
        images += [compose(first, second), compose(second, first)]
        captions += [text_of(*row["captions"]), text_of(*reversed(row["captions"]))]
    swapped = [number ^ 1 for number in range(len(images))]
    return Pictures(images, captions, [""] * len(images), swapped)


def text_of(first: str, second: str) -> str:
    """The text of a scene with the captions of the picture on the left and of that on the right."""
    return f"{first} {SEPARATOR} {second}"


def _draw_square(name: str, number: int, sides: Sequence[int]) -> int:
    # small scenes are quickly seen: of these much is learned, the others are there to be known too
    weights = [1 if side > min(sides) else SMALLEST * max(1, len(sides) - 1) for side in sides]
    return draws("square", name, number).choices(sides, weights)[0]


def _captions(captions: Sequence[str], pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(captions[one], captions[other]) for one, other in pairs]


def _write_group(path: Path, objects: Pictures, pairs: Sequence[Pair], side: int) -> None:
    """A tar in which both orders of a pair follow each other: read in order they are mostly in the same pack."""
    squares = {place: on_square(objects.images[place], side) for pair in pairs for place in pair}
    with tarfile.open(path, "w") as tar:
        for number, (one, other) in enumerate(pairs):
            for first, second, order in ((one, other, "a"), (other, one, "b")):
                _add(tar, f"{number:02d}{order}.bmp", _as_bmp(compose(squares[first], squares[second])))
                text = text_of(objects.captions[first], objects.captions[second])
                _add(tar, f"{number:02d}{order}.txt", text.encode())


def _write_measured(target: Path, pairs: Iterable[Sequence[np.ndarray]], captions: Sequence[tuple[str, str]]) -> None:
    target.mkdir()
    rows = []
    for number, (squares, texts) in enumerate(zip(pairs, captions, strict=True)):
        names = [f"{number:04d}{order}.bmp" for order in "ab"]
        for name, square in zip(names, squares, strict=True):
            (target / name).write_bytes(_as_bmp(square))
        rows.append({"first": names[0], "second": names[1], "captions": texts})
    write_metadata(target, rows)


def _drawn(drawing: str, side: int) -> np.ndarray:
    content = draw(Path(drawing), side)
    assert content is not None, "it was drawn when the data was prepared"
    return on_square(decode_image(content), side)


def _as_bmp(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "BMP")
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
