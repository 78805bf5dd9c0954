// The running text: words as elements, shaded by the scores of the chosen one.

/** One measure's copy of the text. */
class Pane {
  constructor(text, measure, titled) {
    this.measure = measure;
    this.painted = [];
    this.marked = [];
    this.spans = new Array(text.count);
    this.gaps = new Map();
    const running = element("div", { class: text.grouped ? "running grouped" : "running", role: "listbox", "aria-label": "Words: Enter pins one", dir: "auto" });
    for (let n = 0; n < text.paragraphs.length; n++) {
      running.append(this.block(text, text.paragraphs[n], text.paragraphs[n + 1] ?? text.count));
    }
    this.node = element("div", { class: "pane" }, ...(titled ? [element("h2", { text: text.measures[measure].name })] : []), running);
  }

  block(text, start, stop) {
    const block = element("div", { class: "block", role: "group", dir: "auto" });
    for (let place = start; place < stop; place++) {
      if (text.segments?.[place]) block.append(element("span", { class: "segment", text: text.segments[place] }));
      const piece = text.pieces[place];
      const [, before, shown, after] = piece.match(/^(\s*)(.*?)(\s*)$/s);
      const gap = place === start ? "" : before.replaceAll("\n", "");
      block.append(gap && text.grouped ? this.gap(place, gap) : gap || (text.unspaced && place > start ? " " : ""));
      block.append(this.word(text, place, shown, before + after));
      if (!shown && after === "" && before.includes("\n") && place > start) block.append(element("br"));
    }
    return block;
  }

  /** The white space before a word, where it may be inside a source and so be shaded with it. */
  gap(place, space) {
    this.gaps.set(place, element("span", { class: "gap", text: space }));
    return this.gaps.get(place);
  }

  /** The elements of a part of the text, and the white space between them. */
  elements(begin, stop) {
    const found = [];
    for (let place = begin; place < stop; place++) {
      if (place > begin && this.gaps.has(place)) found.push(this.gaps.get(place));
      found.push(this.spans[place]);
    }
    return found;
  }

  word(text, place, shown, space) {
    const classes = ["w"];
    if (text.isBos(place)) classes.push("bos");
    if (!shown) classes.push("mark");
    if (text.evidence.has(place)) classes.push("evidence");
    const label = shown || (space.includes("\n") ? "↵" : space.includes("\t") ? "⇥" : "␣");
    const word = element("span", { class: classes.join(" "), role: "option", tabindex: "-1", "data-place": place, text: label });
    this.spans[place] = word;
    return word;
  }

  clear() {
    for (const span of this.painted) {
      span.classList.remove("tint", "ap", "am", "two", "bp", "bm");
    }
    this.painted = [];
  }

  /** Tints every word by its surprisal. */
  tint(view) {
    this.clear();
    const limit = view.surprisalLimit();
    for (let unit = 0; unit < view.count; unit++) {
      if (!view.isTarget(unit)) continue;
      const share = Math.max(0, Math.min(1, -view.log2Prob[unit] / limit));
      this.paint(view.first[unit], view.first[unit + 1], "tint", "--s", share);
    }
  }

  /** Shades what one unit, or two, rest on: the first in the upper half, the second in the lower. */
  shade(view, related, limit) {
    this.clear();
    related.forEach((found, number) => {
      const half = "ab"[number];
      for (const { first, stop, score } of found) {
        const share = Math.min(1, Math.abs(score) / limit);
        this.paint(first, stop, half + (score < 0 ? "m" : "p"), `--s${half}`, share);
        if (related.length > 1) for (const span of this.elements(first, stop)) span.classList.add("two");
      }
    });
  }

  paint(begin, stop, name, variable, share) {
    for (const span of this.elements(begin, stop)) {
      span.style.setProperty(variable, share.toFixed(3));
      span.classList.add(name);
      this.painted.push(span);
    }
  }

  /** Frames the pinned words, or the one that is pointed at. */
  mark(view, marks, turned) {
    for (const span of this.marked) {
      span.classList.remove("first", "second", "over", "goes-on", "went-on");
      span.removeAttribute("aria-selected");
    }
    this.marked = [];
    for (const [name, unit] of marks) {
      const begin = view.first[unit], stop = turned ? view.stop(unit) : view.first[unit + 1];
      this.elements(begin, stop).forEach((span, number, all) => {
        span.classList.add(name);
        span.classList.toggle("goes-on", number + 1 < all.length);
        span.classList.toggle("went-on", number > 0);
        if (name === "first") span.setAttribute("aria-selected", "true");
        this.marked.push(span);
      });
    }
  }
}

function legend(node, { limits, names, unit, surprisal }) {
  node.replaceChildren();
  if (surprisal !== undefined) {
    node.append(element("span", { class: "scale sequential" }, "surprisal 0", element("i"), `${surprisal.toFixed(1)} bits`));
    return;
  }
  limits.forEach((limit, n) => {
    node.append(element("span", { class: "scale diverging" }, `${names[n]}  −${short(limit)}`, element("i"), `+${short(limit)} ${unit[n]}`));
  });
}

function short(value) {
  return value >= 100 ? value.toFixed(0) : value >= 0.995 ? value.toFixed(1) : value.toPrecision(2);
}
