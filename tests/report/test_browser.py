"""The page in a real browser: what it shows, that it answers, and that token text stays text."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

import decomp
from decomp.report.page.document import Page, document, write_page
from decomp.report.page.opening import table_page
from decomp.report.page.tabs import Tab
from decomp.report.readable import one_line, visible
from decomp.report.texts import texts_of
from tests.commands import CORPUS, MODEL
from tests.report.pages import HOSTILE, long_table, table_of

playwright = pytest.importorskip("playwright.sync_api", reason="pages are tested with playwright (extra test)")
CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(path).exists()), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="pages are tested in chromium, which is not installed")
WITHIN_MS = 5000
"""For what a page should do at once: the machine may be busy."""
DRAWN = """() => {
  const canvas = document.querySelector('#canvas');
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.width, canvas.height, [...pixels].filter((value, n) => n % 4 === 3 && value > 0).length];
}"""
"""Size of the matrix, and its pixels that are not transparent."""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scored():
    measures = ("delta_lp", "attention")
    return decomp.score(Path(CORPUS), MODEL, measures, decomposition_length=8, extra=True)


@pytest.fixture(scope="module")
def golden(scored, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "golden.html"
    write_page(table_page(scored, "golden"), path)
    return path


@pytest.fixture
def opened(browser):
    """Opens a page; at the end nothing may have gone wrong on it, or been asked for from outside."""
    context = browser.new_context(offline=True, accept_downloads=True, viewport={"width": 1200, "height": 800})
    wrong, asked = [], []

    def opened(path, where=""):
        page = context.new_page()
        page.set_default_timeout(WITHIN_MS)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{path.as_uri()}{where}")
        page.wait_for_selector("#main:not([hidden])")
        return page

    yield opened
    context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith(("file:", "blob:"))] == []


def word(page, place):
    return page.locator(f'#panes .pane:first-child [data-place="{place}"]')


def ranked(page):
    names, scores = page.locator(".ranked .name"), page.locator(".ranked .number")
    return list(zip(names.all_inner_texts(), scores.all_inner_texts(), strict=True))


def number(shown):
    return float(shown.replace("−", "-"))


def sources_of(table, position, measure="delta_lp"):
    return [
        row
        for row in table.select(position=position, measure=measure)
        if row.source_position is not None and row.source_position >= 0
    ]


def saved(page, button):
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_text("utf-8")


def test_segments_of_a_context_are_blocks_with_their_names(opened, tmp_path):
    said = [
        {"name": "the cat", "text": "The cat sat on the mat."},
        {"name": "the <b>key</b>", "text": "The key was lost."},
    ]
    table = decomp.context([{"id": "one", "segments": said, "answer": "Then the cat sat."}], MODEL)
    write_page(table_page(table, "context"), tmp_path / "context.html")
    page = opened(tmp_path / "context.html")
    names = page.locator(".segment").all_inner_texts()
    assert [name.lower() for name in names[:2]] == ["the cat", "the <b>key</b>"]


def test_a_click_lights_up_the_sentences_that_a_word_rests_on(opened, tmp_path):
    table = decomp.score("The key is in the vase. He said so. Where is it? It is in the", MODEL, sources="sentence")
    write_page(table_page(table, "sentences"), tmp_path / "sentences.html")
    page = opened(tmp_path / "sentences.html")
    assert page.locator(".block").count() == 5
    last = page.locator("#panes .w").last
    last.click()
    rows = [row for row in table if row.position == table["position"].max() and row.source_position >= 0]
    strongest = sorted(rows, key=lambda row: -abs(row.score))
    assert [name for name, _ in ranked(page)] == [row.source_token for row in strongest]
    first = strongest[0]
    block = page.locator(".block", has_text=first.source_token)
    assert block.locator(".w.ap, .w.am").count() == block.locator(".w:not(.first)").count()
    shades = {
        node.evaluate("node => getComputedStyle(node).backgroundImage") for node in block.locator(".ap, .am").all()
    }
    assert len(shades) == 1
    word(page, first.source_position + 1).click(modifiers=["Shift"])
    assert page.inner_text("#panel h2") == first.source_token
    assert "Supports later" in page.inner_text("#panel")


def test_a_click_pins_a_word_and_shows_its_numbers(opened, golden, scored):
    page = opened(golden)
    assert word(page, 9).get_attribute("class") == "w tint"
    word(page, 9).click()
    position = 8
    row = next(iter(scored.select(position=position)))
    strongest = sorted(sources_of(scored, position), key=lambda row: -abs(row.score))[:10]
    shown = ranked(page)
    assert [name for name, _ in shown] == [one_line(row.source_token.replace("Ġ", " ")) for row in strongest]
    assert [number(score) for _, score in shown] == pytest.approx([row.score for row in strongest], abs=0.006, rel=0.01)
    panel = page.inner_text("#panel")
    assert f"{-row.log2_prob:.2f} bits" in panel
    assert "<bias>" in panel
    for each in strongest[:2]:
        place = each.source_position + 1
        shade = "ap" if each.score > 0 else "am"
        assert shade in word(page, place).get_attribute("class").split()
    word(page, 9).click()
    page.mouse.move(600, 5)
    page.wait_for_selector(".w.tint")
    assert "tint" in word(page, 9).get_attribute("class")


def test_pointing_previews_and_shift_turns_round(opened, golden, scored):
    page = opened(golden)
    word(page, 5).hover()
    page.wait_for_selector(".w.over")
    assert page.inner_text("#panel h2") == word(page, 5).inner_text()
    word(page, 3).click(modifiers=["Shift"])
    assert "Supports later" in page.inner_text("#panel")
    later = list(scored.select(source_position=2, measure="delta_lp"))
    strongest = max(later, key=lambda row: abs(row.score))
    assert number(ranked(page)[0][1]) == pytest.approx(strongest.score, abs=0.006, rel=0.01)


def test_keys_alone(opened, golden):
    page = opened(golden)
    word(page, 0).focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert "pin=4" in page.url
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    assert "second=5" in page.url
    assert page.locator("#panel .columns h2").count() == 2
    page.keyboard.press("m")
    page.keyboard.press("u")
    assert "measure=1" in page.url
    assert "unit=word" in page.url
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert "pin" not in page.url
    word(page, 2).focus()
    page.keyboard.press("Shift+Enter")
    assert "turned=1" in page.url


def test_the_address_reproduces_the_view(opened, golden):
    page = opened(golden)
    page.select_option("#beside", "1")
    page.check("input[value=word]", force=True)
    page.fill("#distance", "2")
    page.check("#bos")
    word(page, 9).click()
    again = opened(golden, page.url[page.url.index("#") :])
    assert again.inner_html("#panel") == page.inner_html("#panel")
    assert again.locator(".pane").count() == 2
    headings = again.locator("#panel h3").all_inner_texts()
    assert headings[:2] == ["Rests on · delta_lp", "Rests on · attention"]
    assert again.is_checked("#bos")
    assert min(int(far) for far in again.locator(".ranked .far").all_inner_texts()) >= 2
    opened(golden, "#pin=999&measure=-3&unit=line&view=none&limit=x&second=1&text=2")


def test_words_add_up_their_tokens(opened, golden, scored):
    page = opened(golden, "#unit=word&pin=12")
    word_number = next(row.word for row in scored if row.position == 11)
    rows = [r for r in scored.select(word=word_number, measure="delta_lp") if r.source_word not in (None, word_number)]
    sums = {}
    for row in rows:
        if row.source_word >= 0:
            sums[row.source_word] = sums.get(row.source_word, 0) + row.score
    strongest = sorted(sums.values(), key=abs, reverse=True)[:10]
    assert [number(score) for _, score in ranked(page)] == pytest.approx(strongest, abs=0.006, rel=0.01)


def test_matrix_and_distance(opened, golden, scored):
    page = opened(golden, "#view=matrix")
    drawn = page.evaluate(DRAWN)
    pairs = len(scored.select(measure="delta_lp")) - 2 * len(np.unique(scored["position"]))
    places = len(np.unique(scored["position"])) + 1
    assert drawn == [places, places, pairs]
    page.focus("#canvas")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert page.is_visible("#tip")
    page.keyboard.press("Enter")
    assert "pin=2" in page.url
    page.click("text=Distance")
    means = list(csv.DictReader(io.StringIO(saved(page, "#save-numbers")), delimiter="\t"))
    scores = [r.score for r in scored.select(measure="delta_lp", distance=3) if r.source_position >= 0]
    assert float(means[2]["mean"]) == pytest.approx(np.mean(scores), rel=1e-3)
    assert int(means[2]["targets"]) == len(scores)


def test_what_is_shown_can_be_saved(opened, golden, scored):
    page = opened(golden, "#pin=9")
    rows = list(csv.DictReader(io.StringIO(saved(page, "#save-numbers")), delimiter="\t"))
    assert len(rows) == len([row for row in scored.select(position=8, measure="delta_lp") if row.distance])
    for view in ("text", "matrix", "distance"):
        page.click(f'#tabs [data-view="{view}"]')
        svg = saved(page, "#save-svg")
        assert svg.startswith("<svg")
        assert "var(" not in svg
        assert svg.count("<rect") + svg.count("<circle") > 3


def test_hostile_tokens_are_text(opened, tmp_path):
    tokens = HOSTILE
    path = tmp_path / "hostile.html"
    path.write_text(document(Page(HOSTILE[0], texts_of(table_of(tokens)), ["delta_lp"])))
    page = opened(path)
    assert page.title() == HOSTILE[0]
    assert page.locator("#panes").evaluate("node => node.querySelectorAll('script, img, b, [onmouseover]').length") == 0
    shown = [word(page, place).text_content() for place in range(len(tokens))]
    assert shown == [visible(token) for token in HOSTILE]
    word(page, len(tokens) - 1).click()
    assert "⟨U+202E⟩evil" in page.inner_text("#panel")
    page.keyboard.press("v")
    page.keyboard.press("v")
    assert not re.search("[\x00-\x08\x1b\u2028\u202e]", page.content())
    assert page.title() == HOSTILE[0]


def test_a_long_text_answers_at_once(opened, tmp_path):
    path = tmp_path / "long.html"
    write_page(table_page(long_table(2000, 50, 3), "long"), path)
    page = opened(path)
    took = page.evaluate(
        "() => { const begin = performance.now(); document.querySelector('[data-place=\"1500\"]').click();"
        "document.body.offsetHeight; return performance.now() - begin }"
    )
    assert page.locator(".w.ap, .w.am").count() == 50
    assert took < WITHIN_MS


def test_light_dark_print_and_narrow(browser, golden):
    colours = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 380, "height": 700})
        page = context.new_page()
        page.goto(f"{golden.as_uri()}#pin=9")
        page.wait_for_selector(".w.first")
        colours[scheme] = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        if scheme == "dark":
            page.emulate_media(media="print", color_scheme="dark")
            colours["print"] = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert not page.is_visible("#controls")
        context.close()
    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 28)", "print": "rgb(255, 255, 255)"}


def test_without_scripts(browser, golden):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(golden.as_uri())
    assert page.is_visible("noscript pre")
    assert not page.is_visible("#controls")
    context.close()


def test_tables_get_tabs(opened, tmp_path):
    cells = [("mlp · last", layer, 0.5 - layer) for layer in range(3)]
    tab = Tab(
        "layers", "layers", ["layer", "token", "score"], [[2, "<b>x</b>", -1.5], [0, "y", 0.5]], 2, "score", cells
    )
    path = tmp_path / "tab.html"
    write_page(Page("where", [], [], {}, [tab]), path)
    page = opened(path)
    assert page.locator("#table rect").count() == 3
    assert page.locator("#table tbody tr").first.inner_text() == "2\t<b>x</b>\t−1.50"
    rows = list(csv.reader(io.StringIO(saved(page, "#save-numbers")), delimiter="\t"))
    assert rows == [["layer", "token", "score"], ["2", "<b>x</b>", "-1.5"], ["0", "y", "0.5"]]
    assert saved(page, "#save-svg").count("<rect") == 3
    page.click("th >> text=score")
    assert page.locator("#table tbody tr").first.inner_text() == "0\ty\t0.50"


def test_a_table_shows_itself_in_a_notebook_s_frame(browser, scored):
    context = browser.new_context(offline=True)
    page = context.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.set_content(f"<p>Out[1]:</p>{scored._repr_html_()}")
    frame = page.frame_locator("iframe")
    frame.locator('[data-place="9"]').click(timeout=WITHIN_MS)
    assert frame.locator("#panel .ranked li").count() == 8
    context.close()
    assert wrong == []
