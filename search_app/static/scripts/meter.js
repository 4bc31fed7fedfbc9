// The level of the last seconds as bars, and the time.
const BARS = 48;

export class Meter {
  #levels = [];

  constructor(canvas, clock) { Object.assign(this, { canvas, clock }); }

  clear() { this.#levels = []; }

  // level: 0 to 1
  show(level, seconds) {
    this.#levels = [...this.#levels, level].slice(-BARS);
    this.clock.textContent = `0:${String(Math.floor(seconds)).padStart(2, "0")}`;
    const scale = devicePixelRatio;
    const [width, height] = [this.canvas.clientWidth * scale, this.canvas.clientHeight * scale];
    Object.assign(this.canvas, { width, height });
    const pen = this.canvas.getContext("2d");
    pen.fillStyle = getComputedStyle(this.canvas).color;
    const step = width / BARS;
    for (let bar = 0; bar < BARS; bar += 1) {
      const tall = Math.max(2 * scale, (this.#levels[this.#levels.length - BARS + bar] ?? 0) * height);
      pen.fillRect(bar * step, (height - tall) / 2, step * 0.55, tall);
    }
  }
}
