"use strict";
// What the page shows: unpacked from the deflated, base64 text that the document carries.

const KINDS = { int8: Int8Array, int16: Int16Array, int32: Int32Array, float32: Float32Array };

async function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const content = await new Response(stream).arrayBuffer();
  const length = new DataView(content).getUint32(0, true);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 8, length)));
  about.texts = about.texts.map((text) => new Text(text, content, 8 + length, about));
  return about;
}

/** One text: its places, the predicted ones (targets), and per target the pairs with its sources. */
class Text {
  constructor(packed, content, begin, about) {
    Object.assign(this, packed);
    for (const [name, [kind, offset, length]] of Object.entries(packed.arrays)) {
      this.arrays[name] = new KINDS[kind](content, begin + offset, length);
    }
    this.count = this.pieces.length;
    this.grouped = Boolean(this.arrays.stops);
    this.measures = about.measures;
    this.missing = -about.steps - 1;
    this.extraNames = Object.keys(packed.arrays).filter((name) => name.startsWith("extra:")).map((name) => name.slice(6));
    this.evidence = new Set(packed.evidence);
    this.targetAt = new Int32Array(this.count).fill(-1);
    this.arrays.targets.forEach((place, target) => { this.targetAt[place] = target; });
    this.views = new Map();
    this.decoded = new Map();
  }

  isBos(place) { return this.arrays.positions[place] < 0; }

  /** Scores of all pairs by one measure; NaN where it has none. */
  scores(measure) {
    if (!this.decoded.has(measure)) this.decoded.set(measure, this.decode(measure));
    return this.decoded.get(measure);
  }

  decode(measure) {
    const { starts, scores, sizes, targets } = this.arrays;
    const pairs = starts[starts.length - 1];
    const values = new Float32Array(pairs);
    for (let target = 0; target < targets.length; target++) {
      const size = sizes[measure * targets.length + target];
      for (let pair = starts[target]; pair < starts[target + 1]; pair++) {
        const steps = scores[measure * pairs + pair];
        values[pair] = steps === this.missing ? NaN : steps * size;
      }
    }
    return values;
  }

  extra(name, measure, target) {
    return this.arrays[`extra:${name}`][measure * this.arrays.targets.length + target];
  }

  /** The text in units of "token", "word" or "sentence". */
  in(unit) {
    if (!this.views.has(unit)) this.views.set(unit, new View(this, unit));
    return this.views.get(unit);
  }
}
