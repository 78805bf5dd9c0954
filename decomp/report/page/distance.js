// How scores decay with distance: means over targets with their 95 % intervals, and the chosen word's own.

function distanceMeans(view, measure, filters) {
  const scores = view.scores(measure), sums = [];
  for (let pair = 0; pair < scores.length; pair++) {
    if (isNaN(scores[pair]) || view.isBos(view.sources[pair]) || !view.passes(pair, filters)) continue;
    const distance = view.distance(view.targets[pair], view.sources[pair]);
    const sum = (sums[distance] ??= { distance, count: 0, total: 0, squares: 0 });
    sum.count++;
    sum.total += scores[pair];
    sum.squares += scores[pair] ** 2;
  }
  return sums.filter(Boolean).map(({ distance, count, total, squares }) => {
    const mean = total / count;
    const variance = count > 1 ? Math.max(0, (squares - count * mean * mean) / (count - 1)) : NaN;
    return { distance, count, mean, error: 1.96 * Math.sqrt(variance / count) };
  });
}

function profile(view, measure, filters, chosen) {
  const means = distanceMeans(view, measure, filters);
  if (!means.length) return element("p", { class: "note", text: "No score passes the filters." });
  const own = chosen.map((unit) => view.related(unit, measure, false, filters).filter(({ bos }) => !bos));
  const width = 780, height = 400, left = 70, bottom = 46, top = 20;
  const last = means.at(-1).distance, first = means[0].distance;
  const x = (distance) => left + ((Math.log2(distance) - Math.log2(first)) / (Math.log2(last) - Math.log2(first) || 1)) * (width - left - 20);
  const inside = means.filter(({ count }) => count > 1).concat(means.length === 1 ? means : []);
  const ends = (inside.length ? inside : means).flatMap(({ mean, error }) => [mean + (error || 0), mean - (error || 0)]).concat(0);
  const shown = own.flat().map(({ score }) => score);
  const high = Math.max(...ends, ...shown), low = Math.min(...ends, ...shown);
  const y = (value) => top + ((high - value) / (high - low || 1)) * (height - top - bottom);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Mean score by distance", "font-size": 12 });
  for (const value of ticks(low, high)) {
    svg.append(drawn("line", { class: "axis", x1: left, x2: width - 20, y1: y(value), y2: y(value), stroke: "#ccc", "stroke-opacity": value === 0 ? 1 : 0.5 }));
    svg.append(drawn("text", { class: "soft", x: left - 8, y: y(value) + 4, "text-anchor": "end", text: signed(value).replace("+0", "0") }));
  }
  for (let distance = 1; distance <= last; distance *= 2) {
    if (distance < first) continue;
    svg.append(drawn("text", { class: "soft", x: x(distance), y: height - bottom + 18, "text-anchor": "middle", text: distance }));
  }
  svg.append(drawn("text", { class: "soft", x: (width + left) / 2, y: height - 8, "text-anchor": "middle", text: `distance in ${view.unit}s${view.text.grouped ? ", to where the source begins" : ""}` }));
  const sure = means.filter(({ error }) => !isNaN(error));
  const band = [...sure.map((m) => [x(m.distance), y(m.mean + m.error)]), ...sure.reverse().map((m) => [x(m.distance), y(m.mean - m.error)])];
  if (band.length) svg.append(drawn("polygon", { class: "plus", points: band.map((point) => point.map((n) => n.toFixed(1)).join(",")).join(" "), "fill-opacity": 0.28 }));
  svg.append(drawn("polyline", { points: means.map((m) => `${x(m.distance).toFixed(1)},${y(m.mean).toFixed(1)}`).join(" "), fill: "none", stroke: "var(--plus)", "stroke-width": 2 }));
  own.forEach((found, number) => {
    for (const { distance, score } of found) svg.append(drawn("circle", { cx: x(distance), cy: y(score), r: 3.2, fill: "none", stroke: number ? "var(--soft)" : "var(--ink)", "stroke-width": 1.2 }));
  });
  const names = chosen.map((unit, number) => `${number ? "grey circles" : "circles"}: ${view.label(unit, 24)}`);
  const note = element("p", { class: "note", text: [`Mean ${view.text.measures[measure].name} over targets, with 95 % intervals; the beginning of sequence left out.`, ...names].join(" · ") });
  return element("div", {}, note, svg);
}

function ticks(low, high) {
  const rough = (high - low || 1) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n <= high / step; n++) found.push(n * step);
  return found;
}
