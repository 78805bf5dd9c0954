"""Token strings as a person reads them: byte-level and SentencePiece spellings decoded, control characters replaced."""

import codecs
import re
import unicodedata
from collections.abc import Sequence
from functools import cache

JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need."""
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]]*$")
INSIDE = "·"
"""Shown for a token that holds bytes of a character which a later token completes."""


@cache
def bytes_of_characters() -> dict[str, int]:
    """Return the byte that each character of byte-level vocabularies stands for (Radford et al. 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{chr(byte): byte for byte in plain}, **{chr(256 + n): byte for n, byte in enumerate(others)}}


def spelling_of(tokens: Sequence[str]) -> str:
    """Return how a vocabulary spells tokens: "byte-level" (`Ġthe`), "sentencepiece" (`▁the`) or "plain"."""
    if any(token.startswith("▁") for token in tokens):
        return "sentencepiece"
    if any(token.startswith(("Ġ", "Ċ")) for token in tokens):
        return "byte-level"
    return "plain"


def pieces_of(tokens: Sequence[str], spelling: str | None = None) -> list[str]:
    """Return the piece of running text that each token stands for, its white space in front; plain tokens are words.

    A character whose bytes belong to several tokens is shown at the last of them; the others are shown as a dot.
    """
    spelling = spelling or spelling_of(tokens)
    if spelling == "byte-level":
        return byte_level_pieces(tokens)
    if spelling == "sentencepiece":
        return [sentencepiece_piece(token) for token in tokens]
    return [f" {token}" if number else token for number, token in enumerate(tokens)]


def byte_level_pieces(tokens: Sequence[str]) -> list[str]:
    """Return the text of byte-level tokens, their bytes decoded as one stream."""
    known, decoder = bytes_of_characters(), codecs.getincrementaldecoder("utf-8")("replace")
    pieces = []
    for token in tokens:
        if all(character in known for character in token):
            pieces.append(decoder.decode(bytes(known[character] for character in token)) or INSIDE)
        else:
            pieces.append(token)
            decoder.reset()
    return pieces


def sentencepiece_piece(token: str) -> str:
    """Return the text of a SentencePiece token; a single byte (`<0x0A>`) as its character, if it is one."""
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", token)
    if byte:
        value = int(byte[1], 16)
        return chr(value) if value < 128 else INSIDE
    return token.replace("▁", " ")


def visible(text: str) -> str:
    """Return text with characters that would control a page or terminal replaced by their code, `⟨U+202E⟩`.

    Line feeds, tabs and the joiners of scripts stay.
    """
    return "".join(character if harmless(character) else f"⟨U+{ord(character):04X}⟩" for character in text)


def harmless(character: str) -> bool:
    """Return whether a character is printed, or is white space, and changes nothing around it."""
    return character in "\n\t" + JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def one_line(text: str) -> str:
    """Return a piece of text as a label, without white space around it, with arrows for line feeds."""
    label = visible(text).replace("\n", "↵").replace("\t", "⇥").strip(" ")
    return label or "␣"


def shortened(text: str, longest: int) -> str:
    """Return the beginning of a text as a label of at most so many characters."""
    line = one_line(" ".join(text.split()))
    return line if len(line) <= longest else f"{line[: longest - 2].rstrip()} …"


def words_of(pieces: Sequence[str]) -> list[int]:
    """Return the number of the word of each piece of running text, from 0; a new word begins at white space."""
    words, word, open_word = [], -1, False
    for piece in pieces:
        if not open_word or piece[:1].isspace():
            word += 1
        words.append(word)
        open_word = not piece[-1:].isspace()
    return words


def sentences_of(pieces: Sequence[str], words: Sequence[int]) -> list[int]:
    """Return the number of the sentence of each piece, from 0; a sentence ends with a full stop, or with a line.

    White space belongs to the sentence before it.
    """
    sentences, sentence, said = [], 0, ""
    for number, piece in enumerate(pieces):
        begins_word = number > 0 and words[number] != words[number - 1]
        if begins_word and piece.strip() and said and ends_sentence(said, piece):
            sentence, said = sentence + 1, ""
        elif begins_word and piece.strip():
            said = ""
        said += piece
        sentences.append(sentence)
    return sentences


def ends_sentence(word: str, following: str) -> bool:
    """Return whether a word, given with the white space around it, is the last of its sentence."""
    return bool(SENTENCE_END.search(word.rstrip())) or "\n" in word + leading(following)


def leading(piece: str) -> str:
    """Return the white space that a piece begins with."""
    return piece[: len(piece) - len(piece.lstrip())]
