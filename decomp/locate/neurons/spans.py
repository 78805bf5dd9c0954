"""Cutting edits of texts: the changed part is cut out, at the level of tokens, lines, or blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from decomp.corpus.tokenizer import Tokenizer
from decomp.locate.encoding import common_start, encode
from decomp.locate.neurons.blocks import enclosing_block, lines_of

MASK = "[MASK]"


@dataclass(frozen=True)
class Cut:
    """An edit of `before + old + after` to `before + new + after`, with `before`, `old` and `new` as token ids."""

    level: str
    """The level that the edit was cut at."""
    before: str
    """The text before the change."""
    old: str
    """The text that was replaced."""
    new: str
    """The text that replaced it."""
    after: str
    """The text after the change."""
    before_ids: list[int]
    """The token ids of `before`."""
    old_ids: list[int]
    """The token ids of `old`."""
    new_ids: list[int]
    """The token ids of `new`."""

    @property
    def masked(self) -> str:
        """Return the text with `[MASK]` in place of the part that was cut out."""
        return self.before + MASK + self.after


def changed(old: Sequence[object], new: Sequence[object]) -> tuple[int, int]:
    """Return the numbers of equal elements at the start and at the end; the smallest change is in between."""
    start = common_start(old, new)
    return start, common_start(old[start:][::-1], new[start:][::-1])


def cut_tokens(pre: str, post: str, tokenizer: Tokenizer) -> Cut:
    """Return the edit cut to the smallest run of tokens that differ between the two texts."""
    old, new = encode(tokenizer, pre), encode(tokenizer, post)
    start, end = changed(old, new)
    ids = new[:start], old[start : len(old) - end], new[start : len(new) - end]
    before, gone, come, after = (
        tokenizer.decode(part, clean_up_tokenization_spaces=False) for part in (*ids, new[len(new) - end :])
    )
    return Cut("token", before, gone, come, after, *ids)


def cut_text(level: str, pre: str, post: str, start: int, stop: int, tokenizer: Tokenizer) -> Cut:
    """Return the edit cut to the characters [start, stop) of the text after the edit, with the text they replaced."""
    after = len(post) - stop
    parts = post[:start], pre[start : len(pre) - after], post[start:stop]
    return Cut(level, *parts, post[stop:], *(encode(tokenizer, part) for part in parts))


def changed_lines(pre: str, post: str) -> tuple[int, int]:
    """Return the numbers of characters before and after the whole lines that differ."""
    old, new = lines_of(pre), lines_of(post)
    start, end = changed(old, new)
    return len("".join(new[:start])), len("".join(new[len(new) - end :]))


def cut_lines(pre: str, post: str, tokenizer: Tokenizer) -> Cut:
    """Return the edit cut to the whole lines that differ."""
    before, after = changed_lines(pre, post)
    return cut_text("line", pre, post, before, len(post) - after, tokenizer)


def cut_block(pre: str, post: str, tokenizer: Tokenizer) -> Cut:
    """Return the edit cut to the smallest function or statement block around it, or to its lines outside of blocks.

    The block is looked for in the text after the edit; where text was only deleted, in the text before.
    """
    before, after = changed_lines(pre, post)
    if all(len(lines_of(text[before : len(text) - after])) == 1 for text in (pre, post)):
        before, after = changed(pre, post)
    source = post if before + after < len(post) else pre
    block = enclosing_block(source, *without_blanks(source, before, len(source) - after))
    if block is None:
        return cut_lines(pre, post, tokenizer)
    begin, end = min(before, block.start), min(after, len(source) - block.stop)
    return cut_text("block", pre, post, begin, len(post) - end, tokenizer)


def cut_neighbor(pre: str, post: str, tokenizer: Tokenizer) -> Cut:
    """Return the edit cut to the changed lines and the line after them, or before them at the end of the text."""
    before, after = changed_lines(pre, post)
    if after:
        after -= len(lines_of(post[len(post) - after :])[0])
    elif before:
        before -= len(lines_of(post[:before])[-1])
    return cut_text("neighbor", pre, post, before, len(post) - after, tokenizer)


def without_blanks(text: str, start: int, stop: int) -> tuple[int, int]:
    """Return the range [start, stop) without white space at its ends; unchanged where it is all white space."""
    part = text[start:stop]
    if not part.strip():
        return start, stop
    return start + len(part) - len(part.lstrip()), stop - len(part) + len(part.rstrip())


CUTS: dict[str, Callable[[str, str, Tokenizer], Cut]] = {"token": cut_tokens, "line": cut_lines, "block": cut_block}
"""The functions that cut an edit, by level, from narrow to wide."""


def cut_mask(pre: str, post: str, mask: str, tokenizer: Tokenizer) -> Cut:
    """Return the edit cut to the part `mask` of the text after it, which must hold all changes.

    ValueError where that part is not in the text exactly once, and where something else was changed, too.
    """
    count = post.count(mask) if mask else 0
    if count != 1:
        raise ValueError(f"mask {mask!r} must be in post_text exactly once, it is there {count} times")
    start = post.index(mask)
    after = len(post) - start - len(mask)
    if not (
        pre.startswith(post[:start]) and pre[start:].endswith(post[start + len(mask) :]) and len(pre) >= start + after
    ):
        raise ValueError(f"mask {mask!r} must have all that was changed in it: more of pre_text and post_text differs")
    return cut_text("mask", pre, post, start, start + len(mask), tokenizer)


def cut(pre: str, post: str, level: str, tokenizer: Tokenizer, needs_old: bool = False) -> Cut:
    """Return an edit cut at a level, or at the next wider one where that leaves no new text (with `needs_old`, no old).

    So a deletion within a line is cut as the line that is left, a deletion of whole lines as the block around them, and
    outside of blocks with a line beside them (`neighbor`). ValueError for two equal texts, and for an empty one.
    """
    if pre == post:
        raise ValueError("pre_text and post_text are the same: nothing was edited")
    levels = list(CUTS)
    for make in (*(CUTS[wider] for wider in levels[levels.index(level) :]), cut_neighbor):
        found = make(pre, post, tokenizer)
        if found.new_ids and (found.old_ids or not needs_old):
            return found
    raise ValueError(
        f"{'post_text' if not found.new_ids else 'pre_text'} is empty: nothing is left to "
        f"{'be predicted' if not found.new_ids else 'contrast with'}"
    )
