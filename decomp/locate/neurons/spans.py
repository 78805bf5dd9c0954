"""Edits of texts: what was changed, cut out at the level of tokens, lines, or blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from decomp.corpus.tokenizer import Tokenizer
from decomp.locate.encoding import common_start, encode
from decomp.locate.neurons.blocks import enclosing_block, lines_of

MASK = "[MASK]"


@dataclass(frozen=True)
class Cut:
    """An edit, `before + old + after` that became `before + new + after`, and the first three as tokens."""

    level: str
    before: str
    old: str
    new: str
    after: str
    before_ids: list[int]
    old_ids: list[int]
    new_ids: list[int]

    @property
    def masked(self) -> str:
        """Return the text with `[MASK]` where it was cut."""
        return self.before + MASK + self.after


def changed(old: Sequence[object], new: Sequence[object]) -> tuple[int, int]:
    """Return how many elements at the start, and then at the end, are the same: between is the smallest change."""
    start = common_start(old, new)
    return start, common_start(old[start:][::-1], new[start:][::-1])


def cut_tokens(pre: str, post: str, tokenizer: Tokenizer) -> Cut:
    """Return the smallest differing run of tokens, as they are in the two texts."""
    old, new = encode(tokenizer, pre), encode(tokenizer, post)
    start, end = changed(old, new)
    ids = new[:start], old[start : len(old) - end], new[start : len(new) - end]
    before, gone, come, after = (
        tokenizer.decode(part, clean_up_tokenization_spaces=False) for part in (*ids, new[len(new) - end :])
    )
    return Cut("token", before, gone, come, after, *ids)


def cut_text(level: str, pre: str, post: str, start: int, stop: int, tokenizer: Tokenizer) -> Cut:
    """Return the characters [start, stop) of the text after the edit cut out, with what they replaced."""
    after = len(post) - stop
    parts = post[:start], pre[start : len(pre) - after], post[start:stop]
    return Cut(level, *parts, post[stop:], *(encode(tokenizer, part) for part in parts))


def changed_lines(pre: str, post: str) -> tuple[int, int]:
    """Return how many characters stand before and after the whole lines that differ."""
    old, new = lines_of(pre), lines_of(post)
    start, end = changed(old, new)
    return len("".join(new[:start])), len("".join(new[len(new) - end :]))


def cut_lines(pre: str, post: str, tokenizer: Tokenizer) -> Cut:
    """Return the whole lines that differ."""
    before, after = changed_lines(pre, post)
    return cut_text("line", pre, post, before, len(post) - after, tokenizer)


def cut_block(pre: str, post: str, tokenizer: Tokenizer) -> Cut:
    """Return the smallest function or statement block around the change; the changed lines where they are in none.

    It is looked for in the text after the edit; where something was only deleted, in the one before.
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
    """Return the changed lines with the one after them, or before them at the end of the text."""
    before, after = changed_lines(pre, post)
    if after:
        after -= len(lines_of(post[len(post) - after :])[0])
    elif before:
        before -= len(lines_of(post[:before])[-1])
    return cut_text("neighbor", pre, post, before, len(post) - after, tokenizer)


def without_blanks(text: str, start: int, stop: int) -> tuple[int, int]:
    """Return the stretch without white space at its ends; as it is where it is nothing else."""
    part = text[start:stop]
    if not part.strip():
        return start, stop
    return start + len(part) - len(part.lstrip()), stop - len(part) + len(part.rstrip())


CUTS: dict[str, Callable[[str, str, Tokenizer], Cut]] = {"token": cut_tokens, "line": cut_lines, "block": cut_block}
"""By level, from narrow to wide."""


def cut_mask(pre: str, post: str, mask: str, tokenizer: Tokenizer) -> Cut:
    """Return the text after the edit cut at a part of it, which has all that was changed.

    ValueError where that part is not in the text exactly once, or something else was changed too.
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
    """Return the change at a level; at the next wider one where that leaves nothing new (or, if needed, nothing old).

    So a deletion inside a line is cut as the line that is left, one of whole lines as their block, and outside
    of blocks with a line beside them (`neighbor`). ValueError where the texts are the same, or one is empty.
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
