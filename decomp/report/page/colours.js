// Colours as the style sheet has them, for canvas and SVG; numbers as a person reads them.

const STEPS = 128;

/** Red, green, blue from the strongest negative (0) by zero (STEPS) to the strongest positive (2 · STEPS). */
function scale() {
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * STEPS + 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const probe = document.body.appendChild(document.createElement("i"));
  for (let step = -STEPS; step <= STEPS; step++) {
    probe.style.backgroundColor = `color-mix(in oklab, var(--${step < 0 ? "minus" : "plus"}) ${(100 * Math.abs(step)) / STEPS}%, var(--zero))`;
    context.fillStyle = getComputedStyle(probe).backgroundColor;
    context.fillRect(step + STEPS, 0, 1, 1);
  }
  probe.remove();
  return context.getImageData(0, 0, 2 * STEPS + 1, 1).data;
}

function colourOf(rgb, share) {
  const at = 4 * (STEPS + Math.round(STEPS * Math.max(-1, Math.min(1, share))));
  return `#${[0, 1, 2].map((n) => rgb[at + n].toString(16).padStart(2, "0")).join("")}`;
}

/** A colour of the style sheet, as hexadecimal. */
function resolved(name) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.backgroundColor = `var(--${name})`;
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = getComputedStyle(probe).backgroundColor;
  probe.remove();
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return `#${[red, green, blue].map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** A number with its sign, and as many digits as are known of it. */
function signed(value) {
  if (value === undefined || isNaN(value)) return "–";
  const size = Math.abs(value), after = coarse ? 1 : 2;
  const digits = size === 0 ? "0" : size >= 1e5 || size < 1e-3 ? size.toExponential(1) : size >= 100 ? size.toFixed(0) : size >= 0.995 ? size.toFixed(after) : size.toPrecision(after);
  return `${value < 0 ? "−" : "+"}${digits}`;
}

/** Whether scores are kept in few steps. */
let coarse = false;

function percent(share) {
  if (share >= 0.0995) return `${(100 * share).toFixed(0)} %`;
  return share >= 1e-5 ? `${(100 * share).toPrecision(2)} %` : `${(100 * share).toExponential(0)} %`;
}

/** An element with attributes (text: its text, on…: listeners) and children. */
function element(name, attributes = {}, ...children) {
  return grown(document.createElement(name), attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  return grown(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function grown(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
