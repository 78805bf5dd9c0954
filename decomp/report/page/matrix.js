// Target × source as a picture: one pixel a pair, enlarged; long texts by the part around the chosen word.

const MOST_CELLS = 1200;
const SIDE = 760;

class Matrix {
  constructor(canvas, note, on) {
    this.canvas = canvas;
    this.note = note;
    this.cursor = null;
    canvas.addEventListener("pointermove", (event) => on.over(this.cell(event), event));
    canvas.addEventListener("pointerleave", () => on.out());
    canvas.addEventListener("click", (event) => on.pin(this.cell(event), event));
    canvas.addEventListener("keydown", (event) => this.key(event, on));
  }

  draw(view, measure, filters, limit, around) {
    const half = MOST_CELLS / 2;
    const centre = Math.max(half, Math.min(view.count - half, around < 0 ? 0 : around));
    this.from = view.count <= MOST_CELLS ? 0 : centre - half;
    this.count = Math.min(MOST_CELLS, view.count);
    this.view = view;
    const size = Math.max(1, Math.floor(SIDE / this.count));
    Object.assign(this.canvas, { width: this.count, height: this.count });
    this.canvas.style.width = this.canvas.style.height = `${Math.min(24, size) * this.count}px`;
    this.canvas.getContext("2d").putImageData(this.image(view, measure, filters, limit), 0, 0);
    this.note.textContent = this.count < view.count
      ? `${view.unit}s ${this.from} to ${this.from + this.count - 1} of ${view.count}, around the pinned one. Rows are predicted, columns are what they rest on.`
      : "Rows are predicted, columns are what they rest on.";
  }

  image(view, measure, filters, limit) {
    const rgb = scale(), image = new ImageData(this.count, this.count), scores = view.scores(measure);
    for (let row = 0; row < this.count; row++) {
      const target = this.from + row;
      for (let pair = view.starts[target]; pair < view.starts[target + 1]; pair++) {
        if (isNaN(scores[pair]) || !view.passes(pair, filters)) continue;
        const at = 4 * (STEPS + Math.round(STEPS * Math.max(-1, Math.min(1, scores[pair] / limit))));
        const begin = view.sources[pair], last = Math.max(begin, Math.min(target - 1, view.unitOf[view.stop(begin) - 1]));
        for (let column = Math.max(0, begin - this.from); column <= last - this.from; column++) {
          image.data.set(rgb.subarray(at, at + 4), 4 * (row * this.count + column));
        }
      }
    }
    return image;
  }

  cell(event) {
    const box = this.canvas.getBoundingClientRect();
    const at = (where, size) => this.from + Math.max(0, Math.min(this.count - 1, Math.floor((where / size) * this.count)));
    return { target: at(event.clientY - box.top, box.height), source: at(event.clientX - box.left, box.width) };
  }

  key(event, on) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const cell = this.cursor ?? { target: this.from, source: this.from };
    if (event.key === "Enter") on.pin(cell, event);
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    const inside = (n) => Math.max(this.from, Math.min(this.from + this.count - 1, n));
    this.cursor = { target: inside(cell.target + moves[event.key][0]), source: inside(cell.source + moves[event.key][1]) };
    const box = this.canvas.getBoundingClientRect(), size = box.width / this.count;
    const corner = (n) => (n - this.from + 0.5) * size;
    on.over(this.cursor, { clientX: box.left + corner(this.cursor.source), clientY: box.top + corner(this.cursor.target) });
  }
}
