// Tables of layers, neurons and edges: a heat map where roles are known, and the strongest rows.

function tableTab(tab) {
  const parts = [];
  if (tab.cells.length) parts.push(heatMap(tab.cells));
  const note = tab.rows.length < tab.total ? `The ${tab.rows.length} strongest of ${tab.total.toLocaleString("en")} rows.` : `${tab.total.toLocaleString("en")} rows.`;
  const body = element("tbody");
  const order = { column: -1, down: true };
  const head = element("tr", {}, ...tab.columns.map((name, column) => element("th", {}, element("button", { type: "button", text: name, onclick: () => sortRows(tab, column, order, body) }))));
  fillRows(tab.rows, body);
  return element("div", {}, ...parts, element("p", { class: "note", text: note }), element("table", { class: "rows" }, element("thead", {}, head), body));
}

function sortRows(tab, column, order, body) {
  order.down = order.column === column ? !order.down : true;
  order.column = column;
  const rows = tab.rows.slice().sort((a, b) => (a[column] < b[column] ? -1 : a[column] > b[column] ? 1 : 0));
  fillRows(order.down ? rows.reverse() : rows, body);
}

function fillRows(rows, body) {
  body.replaceChildren(...rows.map((row) => element("tr", {}, ...row.map((value) => {
    const isNumber = typeof value === "number";
    const text = value === null ? "" : isNumber && !Number.isInteger(value) ? signed(value).replace("+", "") : value;
    return element("td", { class: isNumber ? "n" : null, text });
  }))));
}

function heatMap(cells) {
  const names = [...new Set(cells.map(([name]) => name))], rgb = scale();
  const layers = 1 + Math.max(...cells.map(([, layer]) => layer));
  const most = Math.max(...cells.map(([, , score]) => Math.abs(score))) || 1;
  const left = 16 + 6.6 * Math.max(...names.map((name) => name.length)), size = Math.max(9, Math.min(30, 560 / layers)), row = 22;
  const width = left + Math.max(300, size * layers + 10), height = row * names.length + 40;
  const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-size": 12 });
  names.forEach((name, n) => svg.append(drawn("text", { x: left - 8, y: n * row + 15, "text-anchor": "end", text: name.replaceAll("_", " ") })));
  for (const [name, layer, score] of cells) {
    svg.append(drawn("rect", { x: left + layer * size, y: names.indexOf(name) * row, width: size - 1, height: row - 1, fill: colourOf(rgb, score / most) }, drawn("title", { text: `${name}, layer ${layer}: ${signed(score)}` })));
  }
  for (let layer = 0; layer < layers; layer += Math.ceil(layers / 24)) {
    svg.append(drawn("text", { class: "soft", x: left + (layer + 0.5) * size, y: row * names.length + 15, "text-anchor": "middle", text: layer }));
  }
  svg.append(drawn("text", { class: "soft", x: left, y: row * names.length + 34, text: `layer; mean score from −${short(most)} to +${short(most)}` }));
  return svg;
}
