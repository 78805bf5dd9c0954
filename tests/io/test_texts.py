"""Whole files of text: packed, too large, damaged, not there."""

import gzip
import io
from types import SimpleNamespace

import pytest

from decomp.io import texts
from decomp.io.texts import read_text


def test_packed_or_not(tmp_path):
    text = "Café.\r\n" * 400_000
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert read_text(tmp_path / "a.txt") == read_text(tmp_path / "a.txt.gz") == text


@pytest.mark.parametrize("name", ["bomb.txt.gz", "plain.txt"])
def test_more_text_than_fits(name, tmp_path, monkeypatch):
    content = b"a" * 3_000_000
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    monkeypatch.setattr(texts, "LARGEST_FILE", 3_000_000)
    assert len(read_text(tmp_path / name)) == 3_000_000
    monkeypatch.setattr(texts, "LARGEST_FILE", 1_000_000)
    with pytest.raises(ValueError, match=rf"{name} has more than 976\.6 KiB of text: split it into several files"):
        read_text(tmp_path / name)


def test_no_more_is_unpacked_than_fits(monkeypatch):
    monkeypatch.setattr(texts, "LARGEST_FILE", 10 * texts.BLOCK)

    class Endless:
        blocks = 0

        def read(self, size):
            self.blocks += 1
            return b"a" * size

    file = Endless()
    with pytest.raises(ValueError, match="endless has more than 10 MiB"):
        texts.read_bounded(file, "endless")
    assert file.blocks == 11


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("Café".encode())))
    assert read_text("-") == "Café"


def test_closed_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ValueError, match="can't read standard input: it is closed; give a file"):
        read_text("-")


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"can't read .*: Is a directory"):
        read_text(tmp_path)
    with pytest.raises(ValueError, match=r"can't read .*: File name too long"):
        read_text(tmp_path / ("a" * 300))
    (tmp_path / "a.txt").write_bytes(b"x" * 5_000_000 + b"\xe9\n")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8: invalid byte at offset 5000000; convert it first"):
        read_text(tmp_path / "a.txt")
