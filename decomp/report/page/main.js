// What is chosen, kept in the address; and what a click, a key or a control does to it.

const START = { text: 0, measure: 0, beside: -1, unit: "token", distance: 1, bos: 0, limit: 97, view: "text", pin: -1, turned: 0, second: -1, theme: "" };
const THEMES = ["", "light", "dark"];
const at = (id) => document.getElementById(id);
const state = { ...START };
const known = {};
let about, text, view, panes = [], matrix, over = -1, built = "";

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const [name, otherwise] of Object.entries(START)) {
    const given = asked.get(name);
    state[name] = given === null ? otherwise : typeof otherwise === "number" ? Number(given) : given;
  }
  refuseNonsense();
}

/** An address that was cut or edited shows something all the same. */
function refuseNonsense() {
  const within = (name, low, high) => { if (!(Number.isInteger(state[name]) && state[name] >= low && state[name] < high)) state[name] = START[name]; };
  within("text", 0, about.texts.length);
  const { length } = about.measures, count = about.texts.length ? about.texts[state.text].count : 0;
  within("measure", 0, length);
  within("beside", -1, length);
  within("pin", -1, count);
  within("second", -1, count);
  within("distance", 1, Infinity);
  if (!UNITS.includes(state.unit)) state.unit = START.unit;
  if (!(state.limit >= 80 && state.limit <= 100)) state.limit = START.limit;
  if (!THEMES.includes(state.theme)) state.theme = "";
  if (!views().some(([name]) => name === state.view)) state.view = views()[0][0];
  if (state.pin < 0) Object.assign(state, { second: -1, turned: 0 });
}

function writeAddress() {
  const told = Object.entries(state).filter(([name, value]) => value !== START[name]);
  const hash = new URLSearchParams(told.map(([name, value]) => [name, String(value)])).toString();
  try { history.replaceState(null, "", `#${hash}`); } catch { /* a notebook's frame has no address */ }
}

function views() {
  const ofTexts = about.texts.length ? [["text", "Text"], ["matrix", "Matrix"], ["distance", "Distance"]] : [];
  return [...ofTexts, ...about.tabs.map(({ title }, n) => [`table${n}`, title])];
}

/** The table that is shown. */
function tab() {
  return about.tabs[Number(state.view.slice(5))];
}

function filters() {
  return { distance: state.distance, hideBos: Boolean(state.bos) };
}

function limitOf(measure) {
  const key = [state.text, measure, state.unit, state.distance, state.bos, state.limit].join();
  return (known[key] ??= view.limit(measure, state.limit, filters()));
}

function measuresShown() {
  return state.beside >= 0 && state.beside !== state.measure ? [state.measure, state.beside] : [state.measure];
}

function chosenUnits() {
  const { targets } = text.arrays, only = targets.length === 1 ? [targets[0]] : [];
  const places = state.pin >= 0 ? [state.pin, state.second].filter((place) => place >= 0) : over >= 0 ? [over] : only;
  return [...new Set(places.map((place) => (state.turned ? view.sourceOf(place) : view.unitOf[place])))];
}

function context() {
  return {
    text, view, about, measure: state.measure, measures: measuresShown(), chosen: chosenUnits(), turned: Boolean(state.turned), filters: filters(),
    pinUnit: (unit) => set({ pin: view.first[unit], second: -1, turned: Number(text.grouped && !state.turned) }),
  };
}

function set(changes) {
  Object.assign(state, changes);
  refuseNonsense();
  show();
  writeAddress();
}

function show() {
  document.documentElement.dataset.theme = state.theme;
  syncControls();
  const isTable = state.view.startsWith("table");
  for (const [id, name] of [["panes", "text"], ["facts", "text"], ["matrix", "matrix"], ["profile", "distance"]]) at(id).hidden = state.view !== name;
  at("table").hidden = !isTable;
  at("panel").hidden = at("legend").hidden = at("controls").hidden = isTable;
  if (isTable) at("table").replaceChildren(tableTab(tab()));
  at("save-svg").hidden = isTable && !tab().cells.length;
  if (isTable) return;
  text = about.texts[state.text];
  view = text.in(state.unit);
  if (state.view === "text") buildPanes();
  paint();
}

function buildPanes() {
  const wanted = [state.text, ...measuresShown()].join();
  if (built === wanted) return;
  built = wanted;
  const shown = measuresShown();
  panes = shown.map((measure) => new Pane(text, measure, shown.length > 1));
  at("panes").replaceChildren(...panes.map(({ node }) => node));
  at("facts").replaceChildren(...factsOf(text));
  panes[0].spans[Math.max(0, state.pin)]?.setAttribute("tabindex", "0");
}

function factsOf({ facts }) {
  if (!facts.target) return [];
  const odds = facts.log2_odds;
  const told = [["target", facts.target], ["foil", facts.foil], ["log2 odds", `${signed(odds)} bits`], ["the model prefers", odds > 0 ? "the target" : "the foil"], ["phenomenon", facts.phenomenon]];
  return [element("dl", {}, ...told.filter(([, value]) => value).map(([name, value]) => element("div", {}, element("dt", { text: name }), element("dd", { text: value }))))];
}

/** Shades, frames and numbers of what is chosen now. */
function paint() {
  const now = context();
  const { chosen } = now;
  if (state.view === "text") {
    const marks = state.pin >= 0 ? chosen.map((unit, n) => [n ? "second" : "first", unit]) : chosen.map((unit) => ["over", unit]);
    for (const pane of panes) {
      if (chosen.length) pane.shade(view, chosen.map((unit) => view.related(unit, pane.measure, now.turned, now.filters)), limitOf(pane.measure));
      else pane.tint(view);
      pane.mark(view, marks, now.turned);
    }
  }
  if (state.view === "matrix") matrix.draw(view, state.measure, now.filters, limitOf(state.measure), state.pin < 0 ? -1 : view.unitOf[state.pin]);
  if (state.view === "distance") at("profile").replaceChildren(profile(view, state.measure, now.filters, state.turned ? [] : chosen));
  const shown = state.view === "text" ? measuresShown() : [state.measure];
  legend(at("legend"), state.view === "text" && !chosen.length
    ? { surprisal: view.surprisalLimit() }
    : { limits: shown.map(limitOf), names: shown.map((n) => about.measures[n].name), unit: shown.map((n) => about.measures[n].unit) });
  panel(at("panel"), now);
}

function syncControls() {
  for (const name of ["text", "measure", "beside", "distance", "limit"]) at(name).value = state[name];
  at("limit-shown").textContent = `${state.limit} %`;
  at("bos").checked = Boolean(state.bos);
  document.querySelector(`input[name=unit][value=${state.unit}]`).checked = true;
  for (const tab of at("tabs").children) {
    tab.setAttribute("aria-selected", String(tab.dataset.view === state.view));
  }
}

function pin(place, { shiftKey, altKey, ctrlKey, metaKey }) {
  if ((altKey || ctrlKey || metaKey) && state.pin >= 0) return set({ second: place === state.second || place === state.pin ? -1 : place });
  const unit = (at) => (shiftKey ? view.sourceOf(at) : view.unitOf[at]);
  const same = state.pin >= 0 && unit(place) === unit(state.pin) && Boolean(state.turned) === shiftKey;
  return set(same ? { pin: -1, second: -1, turned: 0 } : { pin: place, second: -1, turned: Number(shiftKey) });
}

function placeOfEvent({ target }) {
  const word = target.closest?.(".w");
  return word ? Number(word.dataset.place) : -1;
}

let waiting = 0;
function point(place, event) {
  if (state.pin >= 0) return tipFor(place, event);
  if (place === over) return;
  over = place;
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(paint);
}

/** With a word pinned, pointing at another shows its score. */
function tipFor(place, event) {
  const pane = panes.find(({ node }) => place >= 0 && node.contains(event.target)) ?? panes[0];
  const found = chosenUnits().map((chosen) => view.related(chosen, pane.measure, Boolean(state.turned), filters()).find(({ first, stop }) => place >= first && place < stop));
  const told = found.map((each) => (each ? `${signed(each.score)} · ${each.bos ? "beginning of sequence" : `${each.distance} back`}` : "–"));
  const unit = found.find(Boolean)?.unit;
  tip(found.some(Boolean) ? `${state.turned ? view.label(unit, 30) : view.source(unit, 30)}  ${told.join("  |  ")}` : "", event);
}

function tip(message, event) {
  const node = at("tip");
  node.hidden = !message;
  if (!message) return;
  node.textContent = message;
  node.style.left = `${Math.min(event.clientX + 14, innerWidth - node.offsetWidth - 8)}px`;
  node.style.top = `${Math.min(event.clientY + 18, innerHeight - node.offsetHeight - 8)}px`;
}

function goTo(place) {
  const span = panes[0]?.spans[place];
  if (!span) return;
  at("panes").querySelectorAll('.w[tabindex="0"]').forEach((other) => other.setAttribute("tabindex", "-1"));
  span.setAttribute("tabindex", "0");
  span.focus();
  span.scrollIntoView({ block: "nearest" });
  point(place, span.getBoundingClientRect());
}

/** The first place of the unit, or sentence, that comes after (1) or before (-1). */
function neighbour(place, step, unit) {
  const units = text.in(unit), now = units.unitOf[place];
  return units.first[Math.max(0, Math.min(units.count - 1, now + step))];
}

function wordKey(event, place) {
  const moves = {
    ArrowRight: () => neighbour(place, 1, state.unit), ArrowLeft: () => neighbour(place, -1, state.unit),
    ArrowDown: () => neighbour(place, 1, "sentence"), ArrowUp: () => neighbour(place, -1, "sentence"),
    Home: () => 0, End: () => text.count - 1,
  };
  if (event.key in moves) goTo(moves[event.key]());
  else if (event.key === "Enter" || event.key === " ") pin(place, event);
  else if (event.key === "c" || event.key === "C") pin(place, { altKey: true });
  else return false;
  event.preventDefault();
  return true;
}

function pageKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || at("keys").open) return;
  const place = placeOfEvent(event);
  if (place >= 0 && wordKey(event, place)) return;
  if (event.key === "Escape") return set({ pin: -1, second: -1, turned: 0 });
  if (event.target.matches("input, select, textarea")) return;
  const next = (values, now) => values[(values.indexOf(now) + 1) % values.length];
  const actions = {
    m: () => set({ measure: (state.measure + 1) % about.measures.length }),
    u: () => set({ unit: next(UNITS, state.unit) }),
    b: () => set({ bos: 1 - state.bos }),
    v: () => set({ view: next(views().map(([name]) => name), state.view) }),
    "?": () => at("keys").showModal(),
  };
  actions[event.key.toLowerCase()]?.();
}

function saveSvg() {
  const pictures = { text: () => textPicture(at("panes")), matrix: () => matrixPicture(matrix), distance: () => standalone(at("profile").querySelector("svg")) };
  const picture = (pictures[state.view] ?? (() => standalone(at("table").querySelector("svg"))))();
  save(`${nameOfView()}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(picture));
}

function saveNumbers() {
  const rows = {
    text: () => textNumbers(context()),
    matrix: () => matrixNumbers(context(), matrix),
    distance: () => numbers(["distance", "mean", "half_interval", "targets"], distanceMeans(view, state.measure, filters()).map((m) => [m.distance, m.mean, m.error, m.count])),
  };
  save(`${nameOfView()}.tsv`, "text/tab-separated-values", (rows[state.view] ?? (() => numbers(tab().columns, tab().rows.map((row) => row.map((value) => value ?? "")))))());
}

function nameOfView() {
  return `decomp-${state.view.startsWith("table") ? tab().kind : state.view}`;
}

function fillControls() {
  const option = (label, value) => element("option", { value, text: label });
  at("text").append(...about.texts.map(({ name }, n) => option(name, n)));
  at("measure").append(...about.measures.map(({ name }, n) => option(name, n)));
  at("beside").append(option("–", -1), ...about.measures.map(({ name }, n) => option(name, n)));
  at("text-field").hidden = about.texts.length < 2;
  at("beside-field").hidden = about.measures.length < 2;
  at("bos-field").hidden = !about.texts.some((each) => each.isBos(0));
  at("tabs").append(...views().map(([name, title]) => element("button", { type: "button", role: "tab", "data-view": name, text: title, onclick: () => set({ view: name }) })));
  at("title").textContent = about.title;
  const model = about.about.model ?? {};
  at("subtitle").textContent = [model.model, about.measures.map(({ name }) => name).join(", ")].filter(Boolean).join(" · ");
}

function listen() {
  for (const name of ["text", "measure", "beside", "distance", "limit"]) {
    at(name).addEventListener("input", () => set({ [name]: Number(at(name).value), ...(name === "text" ? { pin: -1, second: -1 } : {}) }));
  }
  at("bos").addEventListener("input", () => set({ bos: Number(at("bos").checked) }));
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  document.querySelectorAll("input[name=unit]").forEach((radio) => radio.addEventListener("input", () => set({ unit: radio.value })));
  const words = at("panes");
  words.addEventListener("pointerover", (event) => point(placeOfEvent(event), event));
  words.addEventListener("pointerleave", (event) => point(-1, event));
  words.addEventListener("click", (event) => { if (placeOfEvent(event) >= 0) pin(placeOfEvent(event), event); });
  words.addEventListener("focusin", (event) => { if (event.target.matches(":focus-visible")) point(placeOfEvent(event), event.target.getBoundingClientRect()); });
  document.addEventListener("keydown", pageKey);
  at("save-svg").addEventListener("click", saveSvg);
  at("save-numbers").addEventListener("click", saveNumbers);
  at("theme").addEventListener("click", () => set({ theme: THEMES[(THEMES.indexOf(state.theme) + 1) % THEMES.length] }));
  at("help").addEventListener("click", () => at("keys").showModal());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  addEventListener("hashchange", () => { readAddress(); show(); });
  const head = at("top");
  new ResizeObserver(() => document.documentElement.style.setProperty("--top", `${head.offsetHeight}px`)).observe(head);
}

function openMatrix() {
  return new Matrix(at("canvas"), at("matrix-note"), {
    over: ({ target, source }, event) => {
      const place = view.first[source];
      const found = view.related(target, state.measure, false, filters()).find(({ first, stop }) => place >= first && place < stop);
      tip(found ? `${view.label(target, 24)} ← ${view.source(found.unit, 24)}  ${signed(found.score)}` : "", event);
    },
    out: () => tip("", null),
    pin: ({ target }) => set({ pin: view.first[target], second: -1, turned: 0 }),
  });
}

async function begin() {
  about = await unpacked(at("data").textContent);
  coarse = about.steps < 1000;
  matrix = openMatrix();
  fillControls();
  listen();
  readAddress();
  at("top").hidden = at("main").hidden = false;
  show();
  if (state.pin >= 0) panes[0]?.spans[state.pin].scrollIntoView({ block: "center" });
}

begin();
