// A chart of size and growth, with one mark for each site. A large site that grows fast has its mark at the
// upper right.

const SCATTER = { left: 68, right: 16, top: 14, height: 300, bottom: 44 };
/**
 * The smallest value at which the logarithmic axes begin, in bytes. Sites with a smaller value are drawn at
 * the edge.
 */
const LEAST_BYTES = 16;

class Scatter {
  /** @param {View} view */
  constructor(view) {
    this.view = view;
    this.trace = view.trace;
    /** @type {{site: number, x: number, y: number}[]} */
    this.dots = [];
    this.at = -1;
    this.canvas = el("canvas", { tabindex: 0, role: "img" });
    this.tip = el("div", { class: "tip", role: "presentation", hidden: true });
    this.said = el("p", { class: "note", "aria-live": "polite" });
    document.body.append(this.tip);
    this.legend = el(
      "ul",
      { class: "legend" },
      ...VERDICTS.map((verdict) =>
        el(
          "li",
          {},
          el("span", { class: "verdict " + verdict }, verdict === "no-leak" ? "no leak" : verdict),
        ),
      ),
    );
    const body = bodyOf("scatter");
    if (this.trace.sites === 0 || this.trace.instants < 2) {
      body.replaceChildren(el("p", { class: "empty" }, "There are no sites with a curve to show."));
      return;
    }
    this.holder = el("div", { class: "chart" }, this.canvas);
    body.replaceChildren(this.holder, this.legend, this.said);
    this.listen();
    this.draw();
    onResize(this.holder, () => this.draw());
    view.onRange.push(() => this.draw());
    view.onSelect.push(() => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  draw() {
    const { trace, view, canvas } = this;
    const { left, right, top, height, bottom } = SCATTER;
    const width = Math.max(280, this.holder?.clientWidth || 900);
    const ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = (top + height + bottom) * ratio;
    canvas.style.width = width + "px";
    canvas.style.height = top + height + bottom + "px";
    const context = canvas.getContext("2d");
    if (context === null) return;
    context.scale(ratio, ratio);
    const { grew, live } = view.figures;
    /** The ends of an axis. @param {Float64Array} values @returns {[number, number]} */
    const ends = (values) => {
      let [low, high] = [Infinity, LEAST_BYTES * 2];
      for (const value of values) {
        if (value >= LEAST_BYTES && value < low) low = value;
        if (value > high) high = value;
      }
      return [Math.min(low / 1.5, high / 4), high * 1.5];
    };
    const [[least, largest], [lowest, most]] = [ends(live), ends(grew)];
    const x = scaleOf(true, least, largest, left + 18, width - right);
    const y = scaleOf(true, lowest, most, top + height - 18, top);
    const colors = getComputedStyle(document.documentElement);
    const color = (/** @type {string} */ name) => colors.getPropertyValue(name).trim();
    this.drawAxes(
      context,
      width,
      x,
      y,
      logTicks(least, largest),
      logTicks(lowest, most),
      color("--line"),
      color("--faint"),
    );
    this.dots = [];
    // Leaks are drawn last, so that no other mark covers them.
    for (const verdict of [2, 1, 0]) {
      context.fillStyle = color(["--leak", "--undecided", "--calm"][verdict]);
      context.strokeStyle = color("--page");
      context.globalAlpha = trace.sites > 5000 && verdict === 2 ? 0.5 : 0.85;
      // Thousands of marks are drawn as one path, because this is faster.
      const isCrowded = trace.sites > 5000 && verdict > 0;
      if (isCrowded) context.beginPath();
      for (let site = 0; site < trace.sites; site++) {
        if (trace.verdict[site] !== verdict || Number.isNaN(live[site]) || Number.isNaN(grew[site])) continue;
        const dot = {
          site,
          x: live[site] < least ? left + 6 : x(live[site]),
          y: grew[site] < lowest ? top + height - 6 : y(grew[site]),
        };
        this.dots.push(dot);
        if (isCrowded) context.rect(dot.x - 1.5, dot.y - 1.5, 3, 3);
        else drawMark(context, verdict, dot.x, dot.y, verdict === 0 ? 5 : 3.5);
      }
      if (isCrowded) context.fill();
    }
    context.globalAlpha = 1;
    this.ring(context, view.selected, color("--ink"));
    const focused = this.dots[this.at];
    if (focused !== undefined && document.activeElement === canvas)
      this.ring(context, focused.site, color("--accent"));
    canvas.setAttribute(
      "aria-label",
      "Size against growth of " +
        plural(this.dots.length, "site", "sites") +
        ". Arrow keys go from site to site by falling growth, Enter selects.",
    );
  }

  /**
   * @param {CanvasRenderingContext2D} context @param {number} width
   * @param {(v: number) => number} x @param {(v: number) => number} y
   * @param {number[]} sizes @param {number[]} growths @param {string} line @param {string} faint
   */
  drawAxes(context, width, x, y, sizes, growths, line, faint) {
    const { left, right, top, height } = SCATTER;
    context.font = "11px system-ui, sans-serif";
    context.strokeStyle = line;
    context.fillStyle = faint;
    context.lineWidth = 1;
    context.textAlign = "center";
    let last = -100;
    for (const tick of sizes) {
      const at = Math.round(x(tick)) + 0.5;
      context.beginPath();
      context.moveTo(at, top);
      context.lineTo(at, top + height);
      context.stroke();
      if (at - last > 56) {
        context.fillText(formatBytes(tick), at, top + height + 16);
        last = at;
      }
    }
    context.textAlign = "right";
    for (const tick of growths) {
      const at = Math.round(y(tick)) + 0.5;
      context.beginPath();
      context.moveTo(left, at);
      context.lineTo(width - right, at);
      context.stroke();
      context.fillText(formatBytes(tick), left - 8, at + 4);
    }
    context.fillText("live at the end of the range →", width - right, top + height + 34);
    context.textAlign = "left";
    context.fillText("↑ grew in the range", left, top - 3);
    context.fillText("did not grow", left + 2, top + height + 34);
  }

  /** @param {CanvasRenderingContext2D} context @param {number | null} site @param {string} color */
  ring(context, site, color) {
    const dot = this.dots.find((each) => each.site === site);
    if (dot === undefined) return;
    context.strokeStyle = color;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(dot.x, dot.y, 9, 0, 7);
    context.stroke();
  }

  /** @param {PointerEvent | MouseEvent} event */
  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let found = -1;
    let least = 144;
    for (const [i, dot] of this.dots.entries()) {
      const distance = (dot.x - x) ** 2 + (dot.y - y) ** 2;
      if (distance <= least) [found, least] = [i, distance];
    }
    return found;
  }

  listen() {
    const { canvas, trace, view } = this;
    canvas.addEventListener("pointermove", (event) => {
      const dot = this.dots[this.nearest(event)];
      canvas.style.cursor = dot === undefined ? "default" : "pointer";
      if (dot === undefined) this.tip.hidden = true;
      else {
        this.tip.replaceChildren(
          el("bdi", { class: "name" }, shortName(trace.nameOf(dot.site), 80)),
          el("div", {}, this.describe(dot.site)),
        );
        placeTip(this.tip, event.clientX, event.clientY);
      }
    });
    canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    canvas.addEventListener("click", (event) => {
      const dot = this.dots[this.nearest(event)];
      if (dot !== undefined) view.select(dot.site);
    });
    canvas.addEventListener("keydown", (event) => {
      const moves = /** @type {Record<string, number>} */ ({
        ArrowRight: 1,
        ArrowDown: 1,
        ArrowLeft: -1,
        ArrowUp: -1,
      });
      const move = moves[event.key];
      if (move !== undefined && this.dots.length > 0) {
        event.preventDefault();
        const order = this.dots
          .map((_, i) => i)
          .sort((a, b) => view.figures.grew[this.dots[b].site] - view.figures.grew[this.dots[a].site]);
        const place = Math.max(0, Math.min(order.length - 1, order.indexOf(this.at) + move));
        this.at = order[place];
        const { site } = this.dots[this.at];
        this.said.textContent = visible(trace.nameOf(site)).slice(0, 300) + ": " + this.describe(site);
        this.draw();
      } else if (event.key === "Enter" && this.dots[this.at] !== undefined)
        view.select(this.dots[this.at].site);
    });
    canvas.addEventListener("blur", () => this.draw());
  }

  /** @param {number} site */
  describe(site) {
    const { view, trace } = this;
    return (
      VERDICTS[trace.verdict[site]] +
      ", " +
      formatBytes(view.figures.live[site]) +
      " live, " +
      grewBy(view.figures.grew[site])
    );
  }
}

/** Draws the shape of a verdict; each verdict has its own.
 * @param {CanvasRenderingContext2D} context @param {number} verdict
 * @param {number} x @param {number} y @param {number} size */
function drawMark(context, verdict, x, y, size) {
  context.beginPath();
  if (verdict === 0) {
    context.moveTo(x, y - size * 1.2);
    context.lineTo(x + size * 1.1, y + size * 0.8);
    context.lineTo(x - size * 1.1, y + size * 0.8);
    context.closePath();
  } else if (verdict === 1) context.rect(x - size, y - size, 2 * size, 2 * size);
  else context.arc(x, y, size, 0, 7);
  context.fill();
  context.lineWidth = 0.75;
  context.stroke();
}
