// Tokens, words, sentences: scores of larger units are the sums of their tokens' scores. A source begins in the unit
// that its first token is in; one that is a group of tokens goes on beyond it.

const UNITS = ["token", "word", "sentence"];

class View {
  constructor(text, unit) {
    this.text = text;
    this.unit = unit;
    const { words, sentences } = text.arrays;
    const labels = unit === "token" ? null : unit === "word" ? words : sentences;
    this.unitOf = new Int32Array(text.count);
    this.first = [];
    for (let place = 0; place < text.count; place++) {
      if (place === 0 || labels === null || labels[place] !== labels[place - 1]) this.first.push(place);
      this.unitOf[place] = this.first.length - 1;
    }
    this.count = this.first.length;
    this.first.push(text.count);
    this.log2Prob = new Float64Array(this.count).fill(NaN);
    this.entropy = new Float64Array(this.count).fill(NaN);
    text.arrays.targets.forEach((place, target) => this.takeTarget(this.unitOf[place], target));
    this.pair();
    this.sums = new Map();
  }

  takeTarget(unit, target) {
    const { log2Prob, entropy } = this.text.arrays;
    this.log2Prob[unit] = (isNaN(this.log2Prob[unit]) ? 0 : this.log2Prob[unit]) + log2Prob[target];
    if (entropy && isNaN(this.entropy[unit])) this.entropy[unit] = entropy[target];
  }

  /** Pairs of units, target by target, and to which of them each pair of tokens belongs (-1: within a unit). */
  pair() {
    const { targets, starts, back } = this.text.arrays;
    const pairs = starts[starts.length - 1];
    this.pairOf = new Int32Array(pairs).fill(-1);
    this.starts = new Int32Array(this.count + 1);
    const sources = [], seen = new Int32Array(this.count).fill(-1);
    let unit = 0, opened = 0;
    for (let target = 0; target < targets.length; target++) {
      const own = this.unitOf[targets[target]];
      while (unit < own) { this.starts[++unit] = sources.length; opened = sources.length; }
      for (let pair = starts[target]; pair < starts[target + 1]; pair++) {
        const source = this.unitOf[targets[target] - back[pair]];
        if (source === own) continue;
        if (seen[source] < opened) { seen[source] = sources.length; sources.push(source); }
        this.pairOf[pair] = seen[source];
      }
    }
    while (unit < this.count) this.starts[++unit] = sources.length;
    this.sources = Int32Array.from(sources);
    this.targets = new Int32Array(sources.length);
    for (let own = 0; own < this.count; own++) this.targets.fill(own, this.starts[own], this.starts[own + 1]);
  }

  /** Scores of all pairs of units by one measure; NaN where it has none. */
  scores(measure) {
    if (this.unit === "token") return this.text.scores(measure);
    if (!this.sums.has(measure)) this.sums.set(measure, this.sum(this.text.scores(measure)));
    return this.sums.get(measure);
  }

  sum(scores) {
    const sums = new Float32Array(this.sources.length).fill(NaN);
    for (let pair = 0; pair < scores.length; pair++) {
      const own = this.pairOf[pair];
      if (own >= 0 && !isNaN(scores[pair])) sums[own] = (isNaN(sums[own]) ? 0 : sums[own]) + scores[pair];
    }
    return sums;
  }

  /** Pairs of each source, in order of reading. */
  get turned() {
    if (!this.turnedPairs) {
      const starts = new Int32Array(this.count + 2);
      for (const source of this.sources) starts[source + 2]++;
      for (let n = 2; n < starts.length; n++) starts[n] += starts[n - 1];
      const pairs = new Int32Array(this.sources.length);
      this.sources.forEach((source, pair) => { pairs[starts[source + 1]++] = pair; });
      this.turnedPairs = { starts, pairs };
    }
    return this.turnedPairs;
  }

  isBos(unit) { return this.text.isBos(this.first[unit]); }
  isTarget(unit) { return !isNaN(this.log2Prob[unit]); }
  isEvidence(unit) { return this.places(unit).some((place) => this.text.evidence.has(place)); }

  places(unit) {
    return Array.from({ length: this.first[unit + 1] - this.first[unit] }, (_, n) => this.first[unit] + n);
  }

  /** The place behind the source that begins in a unit. */
  stop(unit) {
    const { stops } = this.text.arrays;
    return stops ? Math.max(...this.places(unit).map((place) => stops[place])) : this.first[unit + 1];
  }

  /** The unit that the source which a place is part of begins in. */
  sourceOf(place) {
    const { stops } = this.text.arrays;
    let begin = place;
    while (stops && begin > 0 && stops[begin] <= Math.max(place, begin + 1)) begin--;
    return this.unitOf[!stops || stops[begin] > place ? begin : place];
  }

  /** A source as a label: its name, where it has one. */
  source(unit, most) {
    return (this.text.grouped && this.text.segments[this.first[unit]]) || this.label(unit, most, this.stop(unit));
  }

  /** A unit as a label, on one line. */
  label(unit, most = 60, stop = this.first[unit + 1]) {
    let label = "";
    for (let place = this.first[unit]; place < stop && label.length <= most + 1; place++) label += this.text.pieces[place];
    label = label.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ +| +$/g, "");
    return (label.length > most ? `${label.slice(0, most)}…` : label) || "␣";
  }

  extra(name, measure, unit) {
    let sum = NaN;
    for (const place of this.places(unit)) {
      const target = this.text.targetAt[place];
      const value = target < 0 ? NaN : this.text.extra(name, measure, target);
      if (!isNaN(value)) sum = (isNaN(sum) ? 0 : sum) + value;
    }
    return sum;
  }

  /** What a unit rests on (or, turned, supports): pairs with a score that pass the filters, strongest first. */
  related(unit, measure, turned, filters) {
    const scores = this.scores(measure), found = [];
    const [starts, at] = turned
      ? [this.turned.starts, (n) => this.turned.pairs[n]]
      : [this.starts, (n) => n];
    for (let n = starts[unit]; n < starts[unit + 1]; n++) {
      const pair = at(n);
      if (!this.passes(pair, filters) || isNaN(scores[pair])) continue;
      const [target, source] = [this.targets[pair], this.sources[pair]];
      const other = turned ? target : source, stop = turned ? this.first[target + 1] : Math.min(this.stop(source), this.first[target]);
      found.push({ unit: other, first: this.first[other], stop, score: scores[pair], distance: this.distance(target, source), bos: this.isBos(source) });
    }
    return found.sort((a, b) => Math.abs(b.score) - Math.abs(a.score));
  }

  /** How far before a target a source begins: in tokens of the article, some of which a table may not have. */
  distance(target, source) {
    const { positions } = this.text.arrays;
    return this.unit === "token" ? positions[target] - positions[source] : target - source;
  }

  passes(pair, { distance, hideBos }) {
    const source = this.sources[pair];
    return this.distance(this.targets[pair], source) >= distance && !(hideBos && this.isBos(source));
  }

  /** The absolute score that a percentile of all that pass the filters stays below. */
  limit(measure, percentile, filters) {
    const scores = this.scores(measure), kept = [];
    for (let pair = 0; pair < scores.length; pair++) {
      if (!isNaN(scores[pair]) && this.passes(pair, filters)) kept.push(Math.abs(scores[pair]));
    }
    return quantile(Float32Array.from(kept), percentile / 100) || 1;
  }

  surprisalLimit() {
    return quantile(Float32Array.from(this.log2Prob.filter((value) => !isNaN(value))).map((value) => -value), 0.95) || 1;
  }
}

function quantile(values, share) {
  if (!values.length) return 0;
  values.sort();
  const place = share * (values.length - 1), low = Math.floor(place);
  return values[low] + (place - low) * ((values[low + 1] ?? values[low]) - values[low]);
}
