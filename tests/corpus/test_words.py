"""Words in their text, and the tokens that they are made of."""

import pytest

from decomp.corpus.article import Article
from decomp.corpus.articles import read_articles
from decomp.corpus.windows import windows_of
from decomp.corpus.word_lists import with_words
from decomp.corpus.words import check_white_space, match_words, spans_of, whitespace_words, words_of_tokens
from decomp.models.loading import load_tokenizer
from tests.conftest import ROOT, SHARED, needs_shared


def test_words_between_white_space():
    text = "  It's\tme,\u00a0you\n "
    assert [text[a:b] for a, b in whitespace_words(text)] == ["It's", "me,", "you"]


@pytest.mark.parametrize(
    "words", [["Do", "n't", "go", "."], ["Don't", "go."], ["D", "o", "n't\tgo ."], ["Don't", "go", "."]]
)
def test_given_words_are_matched_by_characters(words):
    text = " Don't  go.\n"
    spans = match_words(text, words, "it")
    assert ["".join(text[a:b].split()) for a, b in spans] == ["".join(word.split()) for word in words]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Don't", "stop"], r"word 1 of it is 'stop' in the word list, at character 6 comes 'go on\.'"),
        (["Don't", "go", "on"], r"the word list ends after 3 words of it, where '\.' follows"),
        (["Don't", "go", "on.", "and"], r"word 3 of it is 'and' in the word list, at character 12 comes its end"),
        (["Don't", " "], "word 1 of it in the word list is empty"),
        ([], "the word list ends after 0 words of it, where \"Don't"),
        (["Don't go on.."], "word 0 of it is"),
    ],
)
def test_first_mismatch(words, message):
    with pytest.raises(ValueError, match=message):
        match_words("Don't go on.", words, "it")


@pytest.fixture
def word_list(tmp_path):
    def write(text, name="words.tsv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_word_lists(word_list):
    articles = [Article("a b"), Article("c", "third")]
    path = word_list("zone\tword\tarticle\n1\ta\t0\n1\tc\tthird\n2\tb\t0\n")
    found = with_words(path, articles)
    assert [article.words for article in found] == [((0, 1), (2, 3)), ((0, 1),)]
    assert [article.annotations for article in found] == [{"zone": ("1", "2")}, {"zone": ("1",)}]
    with pytest.raises(ValueError, match=r"line 2 has the article '3': the corpus has 0, third"):
        with_words(word_list("word\tarticle\na\t3\n"), articles)
    with pytest.raises(ValueError, match=r"line 2 lacks article: it has word"):
        with_words(word_list("word\na\n"), articles)
    with pytest.raises(ValueError, match=r"word 0 of article third is 'd' .* at character 0 comes 'c'"):
        with_words(word_list("word\tarticle\na\t0\nb\t0\nd\tthird\n"), articles)
    with pytest.raises(ValueError, match="same id"):
        with_words(word_list("word\tarticle\na\t0\n"), [Article("a", "x"), Article("b", "x")])


def test_tokens_belong_to_the_word_they_begin_in():
    text = "ab cd  ef "
    words = whitespace_words(text)
    tokens = [(0, 1), (1, 2), (3, 5), (5, 6), (7, 9), (9, 10)]
    assert words_of_tokens(text, spans_of(tokens), words, "it").tolist() == [0, 0, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="no token begins in word 1 of it, 'b'"):
        words_of_tokens("ab", spans_of([(0, 2)]), spans_of([(0, 1), (1, 2)]), "it")
    with pytest.raises(ValueError, match="no token begins in word 2 of it, 'c'"):
        words_of_tokens("abc", spans_of([(0, 1), (1, 3)]), spans_of([(0, 1), (1, 2), (2, 3)]), "it")


def test_white_space_apart():
    check_white_space([Article("do n't", words=((0, 2), (3, 6)))])
    with pytest.raises(ValueError, match="article 0 has the word 'n' where white space sets \"n't\" apart"):
        check_white_space([Article("do n't", words=((0, 2), (3, 4), (4, 6)))])


@needs_shared
def test_words_of_the_natural_stories(tmp_path):
    check_corpus(SHARED / "corpora" / "naturalstories.sentitems", tmp_path, 10_000)


def test_words_of_the_demo_corpus(tmp_path):
    check_corpus(ROOT / "data" / "demo.sentitems", tmp_path, 500)


def check_corpus(path, folder, least):
    """Words cut from the corpus come back, for every token one, and one wrong word is found."""
    articles = read_articles(path)
    words = [article.text.split() for article in articles]
    rows = [f"{number}\t{word}" for number, own in enumerate(words) for word in own]
    assert len(rows) > least
    listed = folder / "words.tsv"
    listed.write_text("\n".join(["article\tword", *rows]), encoding="utf-8")
    known = with_words(listed, articles)
    spans = [article.words for article in known]
    for window in windows_of(known, load_tokenizer("demo-opt"), None, positions=512, bos=False):
        for span in window.text_spans:
            start, stop = spans[window.window.article][span.word]
            own = articles[window.window.article].text[span.char_start : span.char_end]
            assert own.isspace() or start <= span.char_start < span.char_end <= stop
            assert articles[window.window.article].text[start:stop] == words[window.window.article][span.word]
    rows[150] += "x"
    listed.write_text("\n".join(["article\tword", *rows]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"word 150 of article 0 is '.*x' in the word list"):
        with_words(listed, articles)
