// What is shown, as a file: the picture as SVG, the numbers as tab-separated text.

function save(name, kind, content) {
  const address = URL.createObjectURL(new Blob([content], { type: kind }));
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** The running text as it is laid out: a rectangle behind each shaded word. */
function textPicture(node) {
  const frame = node.getBoundingClientRect();
  const svg = drawn("svg", { xmlns: "http://www.w3.org/2000/svg", width: Math.ceil(frame.width), height: Math.ceil(frame.height) });
  svg.append(drawn("rect", { width: "100%", height: "100%", fill: resolved("paper") }));
  const shades = drawn("g"), letters = drawn("g", { "font-family": "Georgia, serif" });
  for (const span of node.querySelectorAll(".w, .gap")) {
    const style = getComputedStyle(span);
    const boxes = [...span.getClientRects()].filter(({ width }) => width);
    const halves = [style.getPropertyValue("--a"), style.getPropertyValue("--b")];
    for (const box of boxes) shades.append(...halfShades(span, box, frame, halves), ...framed(span, box, frame));
    if (boxes.length) {
      letters.append(drawn("text", {
        x: (boxes[0].left - frame.left).toFixed(1), y: (boxes[0].bottom - frame.top - boxes[0].height * 0.27).toFixed(1),
        "font-size": style.fontSize, fill: hex(style.color), textLength: boxes.length === 1 ? boxes[0].width.toFixed(1) : null, text: span.textContent,
      }));
    }
  }
  svg.append(shades, letters);
  return svg;
}

function halfShades(span, box, frame, halves) {
  const names = [["ap", "plus", "--sa"], ["am", "minus", "--sa"], ["tint", "surprisal", "--s"]];
  const lower = [["bp", "plus", "--sb"], ["bm", "minus", "--sb"]];
  const two = span.classList.contains("two");
  const shade = ([name, colour, variable], part) => span.classList.contains(name) && drawn("rect", {
    x: (box.left - frame.left).toFixed(1), y: (box.top - frame.top + (part === 1 ? box.height / 2 : 0)).toFixed(1),
    width: box.width.toFixed(1), height: (two ? box.height / 2 : box.height).toFixed(1),
    fill: resolved(colour), "fill-opacity": span.style.getPropertyValue(variable),
  });
  return [...names.map((each) => shade(each, 0)), ...lower.map((each) => shade(each, 1))].filter(Boolean);
}

function framed(span, box, frame) {
  if (!span.classList.contains("first") && !span.classList.contains("second")) return [];
  return [drawn("rect", { x: box.left - frame.left, y: box.top - frame.top, width: box.width, height: box.height, rx: 3, fill: "none", stroke: resolved("ink"), "stroke-width": 1.5 })];
}

function hex(colour) {
  const numbers = colour.match(/[\d.]+/g).slice(0, 3);
  return `#${numbers.map((n) => Math.round(n).toString(16).padStart(2, "0")).join("")}`;
}

function matrixPicture(matrix) {
  const { canvas, count } = matrix, size = Math.max(1, Math.floor(SIDE / count));
  const pixels = canvas.getContext("2d").getImageData(0, 0, count, count).data;
  const svg = drawn("svg", { xmlns: "http://www.w3.org/2000/svg", width: size * count, height: size * count, "shape-rendering": "crispEdges" });
  for (let cell = 0; cell < count * count; cell++) {
    if (!pixels[4 * cell + 3]) continue;
    const fill = `#${[0, 1, 2].map((n) => pixels[4 * cell + n].toString(16).padStart(2, "0")).join("")}`;
    svg.append(drawn("rect", { x: (cell % count) * size, y: Math.floor(cell / count) * size, width: size, height: size, fill }));
  }
  return svg;
}

/** A drawing of the page with the style sheet's colours written out. */
function standalone(svg) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("font-family", "sans-serif");
  for (const node of copy.querySelectorAll("*")) {
    for (const name of ["plus", "minus", "soft"]) if (node.classList.contains(name)) node.setAttribute("fill", resolved(name));
    if (node.tagName === "text" && !node.getAttribute("fill")) node.setAttribute("fill", resolved("ink"));
    const stroke = node.getAttribute("stroke");
    if (stroke?.startsWith("var(--")) node.setAttribute("stroke", resolved(stroke.slice(6, -1)));
    node.removeAttribute("class");
  }
  return copy;
}

function numbers(columns, rows) {
  const cell = (value) => String(value).replace(/[\t\n\r]/g, " ");
  return [columns, ...rows].map((row) => row.map(cell).join("\t")).join("\n") + "\n";
}

/** Of the chosen words their sources (or what they support); of none, every word with its surprisal. */
function textNumbers({ view, text, measures, chosen, turned, filters }) {
  if (!chosen.length) {
    const units = Array.from({ length: view.count }, (_, unit) => unit).filter((unit) => view.isTarget(unit));
    return numbers([view.unit, "label", "log2_prob"], units.map((unit) => [unit, view.label(unit), view.log2Prob[unit]]));
  }
  const rows = chosen.flatMap((unit) => measures.flatMap((measure) => view.related(unit, measure, turned, filters).map(({ unit: other, score, distance }) =>
    [text.measures[measure].name, turned ? view.source(unit) : view.label(unit), unit, turned ? view.label(other) : view.source(other), other, distance, score])));
  return numbers(["measure", "chosen", `chosen_${view.unit}`, turned ? "target" : "source", `${turned ? "target" : "source"}_${view.unit}`, "distance", "score"], rows);
}

function matrixNumbers({ view, measure, filters }, { from, count }) {
  const scores = view.scores(measure), rows = [];
  for (let pair = view.starts[from]; pair < view.starts[from + count]; pair++) {
    if (view.sources[pair] < from || isNaN(scores[pair]) || !view.passes(pair, filters)) continue;
    rows.push([view.targets[pair], view.label(view.targets[pair]), view.sources[pair], view.source(view.sources[pair]), scores[pair]]);
  }
  return numbers(["target", "target_label", "source", "source_label", "score"], rows);
}
