// The side panel: numbers of the chosen word, and the ten that it rests on most, or supports.

const SHOWN = 10;

function panel(node, context) {
  node.replaceChildren();
  const { chosen } = context;
  if (!chosen.length) node.append(...overview(context));
  else if (chosen.length === 1) node.append(...detail(chosen[0], context));
  else node.append(element("div", { class: "columns" }, ...chosen.map((unit) => element("div", {}, ...detail(unit, context)))));
}

function overview({ text, view, measure, about }) {
  const surprisals = [...text.arrays.log2Prob].filter((value) => !isNaN(value)).map((value) => 0 - value);
  const mean = surprisals.reduce((sum, value) => sum + value, 0) / surprisals.length;
  const model = about.about.model ?? {};
  const numbers = [
    ["predicted tokens", surprisals.length.toLocaleString("en")],
    ["mean surprisal", `${mean.toFixed(2)} bits`],
    ["perplexity per token", surprisals.length > 1 ? short(2 ** mean) : null],
    ["completeness gap", text.gap === null ? null : text.gap.toExponential(1)],
  ];
  return [
    element("h2", { text: text.name }),
    element("p", { class: "what", text: "Point at a word to see what its prediction rests on; click to keep it." }),
    list(numbers),
    element("h3", { text: text.measures[measure].name }),
    element("p", { class: "what", text: describe(text.measures[measure]) }),
    element("h3", { text: "Made with" }),
    list([["model", model.model], ["weights", model.weights], ["precision", model.dtype], ["version", model.version], ["command", about.about.command]], "plain"),
    rounding(about),
  ];
}

function describe({ what, unit, source }) {
  return [what, unit && `Unit: ${unit}.`, source].filter(Boolean).join(" — ").replace(/ — Unit/, ". Unit");
}

function rounding({ steps }) {
  return element("p", { class: "note", text: `Scores are kept in ${steps.toLocaleString("en")} steps up to each target's strongest; the table has them whole.` });
}

function detail(unit, context) {
  const { turned } = context;
  return turned ? supports(unit, context) : restsOn(unit, context);
}

function restsOn(unit, context) {
  const { view, text, measure } = context;
  const all = view.related(unit, measure, false, context.filters);
  const parts = [element("h2", { text: view.label(unit) }), element("p", { class: "what", text: placeOf(unit, view, view.first[unit] + 1) })];
  if (!view.isTarget(unit)) return [...parts, element("p", { class: "what", text: "is not predicted here; Shift + click shows what it supports." })];
  const log2Prob = view.log2Prob[unit];
  const sum = all.reduce((total, { score }) => total + score, 0);
  parts.push(list([
    ["probability", percent(2 ** log2Prob)],
    ["surprisal", `${(0 - log2Prob).toFixed(2)} bits`],
    ["entropy", isNaN(view.entropy[unit]) ? null : `${view.entropy[unit].toFixed(2)} bits`],
  ]));
  parts.push(...predictions(unit, context));
  for (const each of context.measures) {
    const found = view.related(unit, each, false, context.filters);
    parts.push(element("h3", { text: `Rests on · ${text.measures[each].name}` }), ranked(strongest(found), context));
  }
  parts.push(element("h3", { text: "Beside these" }), list([
    [`all ${all.length} sources shown`, signed(sum)],
    ["beginning of sequence", ofBos(unit, context)],
    ...text.extraNames.map((name) => [name, signed(view.extra(name, measure, unit))]),
    ["completeness gap", text.gap === null ? null : text.gap.toExponential(1)],
  ]));
  return parts;
}

function supports(unit, context) {
  const { view, text, measure } = context;
  const found = view.related(unit, measure, true, context.filters);
  const total = found.reduce((sum, { score }) => sum + score, 0);
  return [
    element("h2", { text: view.source(unit, 120) }),
    element("p", { class: "what", text: placeOf(unit, view, view.text.grouped ? view.stop(unit) : view.first[unit] + 1) }),
    element("h3", { text: `Supports later · ${text.measures[measure].name}` }),
    found.length ? ranked(strongest(found), context) : element("p", { class: "what", text: "nothing that is predicted within reach" }),
    list([[`all ${found.length} later ones`, signed(total)]]),
  ];
}

/** The ten with the largest absolute scores; the beginning of sequence soaks up what has no other place, and is never one. */
function strongest(found) {
  return found.filter(({ bos }) => !bos).slice(0, SHOWN);
}

function ofBos(unit, { view, measure, filters }) {
  if (!view.isBos(0)) return null;
  const found = view.related(unit, measure, false, { distance: 1, hideBos: false }).find(({ bos }) => bos);
  return found ? signed(found.score) : null;
}

function placeOf(unit, view, stop) {
  const { positions } = view.text.arrays, position = positions[view.first[unit]], last = positions[stop - 1];
  return position < 0 ? "beginning of sequence" : last > position ? `tokens ${position} to ${last}` : `token ${position}`;
}

function predictions(unit, { view, text }) {
  const likely = text.predictions[text.targetAt[view.first[unit]]];
  if (!likely || !likely.length) return [];
  return [element("h3", { text: "The model's own choice" }), list(likely.map(([token, share]) => [token, percent(share)]))];
}

function list(numbers, kind = "") {
  const known = numbers.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("dl", { class: `numbers ${kind}` }, ...known.flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: value })]));
}

function ranked(found, { view, pinUnit, turned }) {
  const most = Math.max(...found.map(({ score }) => Math.abs(score)), 0) || 1;
  return element("ol", { class: view.text.grouped && !turned ? "ranked groups" : "ranked" }, ...found.map(({ unit, score, distance }) =>
    element("li", {}, element("button", { type: "button", title: `${distance} back: ${view.text.grouped && !turned ? "what does it support?" : "pin it"}`, onclick: () => pinUnit(unit) },
      element("span", { class: "name", text: turned ? view.label(unit, 28) : view.source(unit, 44) }),
      bar(score / most),
      element("span", { class: "number", text: signed(score) }),
      element("span", { class: "far", text: distance })))));
}

function bar(share) {
  const width = 36 * Math.abs(share);
  return drawn("svg", { class: "bar", viewBox: "0 0 74 10", "aria-hidden": "true" },
    drawn("rect", { class: share < 0 ? "minus" : "plus", x: share < 0 ? 37 - width : 37, y: 1, width, height: 8, rx: 1.5 }),
    drawn("line", { class: "axis", x1: 37, x2: 37, y1: 0, y2: 10 }));
}
