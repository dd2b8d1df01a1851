// Memory over time: stacked sites, live, resident and swapped bytes, and the rate of allocations. The user
// chooses a range by dragging over the chart.

const CHART = { left: 68, right: 14, top: 12, height: 250, gap: 30, strip: 64, bottom: 26 };
const LARGEST = SERIES_COLORS.length;

class Timeline {
  /** @param {View} view @param {Trace | null} before */
  constructor(view, before) {
    this.view = view;
    this.trace = view.trace;
    this.before = before;
    this.isLog = false;
    this.shows = { sites: true, resident: true, swap: false, rate: this.trace.header.has_turnover };
    this.width = 0;
    /** @type {(seconds: number) => number} */
    this.x = () => 0;
    this.largest = largestSites(this.trace);
    this.body = bodyOf("timeline");
    this.tip = el("div", { class: "tip", role: "presentation", hidden: true });
    document.body.append(this.tip);
    this.tools = el("div", { class: "tools" });
    this.holder = el("div", { class: "chart" });
    this.legend = el("ul", { class: "legend" });
    this.body.replaceChildren(this.tools, this.holder, this.legend);
    if (this.trace.instants < 2) {
      this.body.replaceChildren(el("p", { class: "empty" }, "The recording has too few slices for a curve."));
      return;
    }
    this.fillTools();
    this.draw();
    onResize(this.holder, () => this.draw());
    this.view.onRange.push(() => this.showSelection());
  }

  fillTools() {
    const { header } = this.trace;
    const hasSwap = this.trace.swap.some((bytes) => bytes > 0);
    const change =
      (/** @type {"sites" | "resident" | "swap" | "rate"} */ what) => (/** @type {boolean} */ on) => {
        this.shows[what] = on;
        this.draw();
      };
    this.shows.swap = hasSwap;
    this.tools.append(
      choice("Scale of bytes", [["linear", "linear"], ["log", "log"]], "linear", (value) => {
        this.isLog = value === "log";
        this.draw();
      }),
      checkbox("largest sites", true, change("sites")),
    );
    if (header.has_resident) this.tools.append(checkbox("resident", true, change("resident"), "resident"));
    if (hasSwap) this.tools.append(checkbox("swapped", true, change("swap"), "swap"));
    if (header.has_turnover) this.tools.append(checkbox("allocation rate", true, change("rate")));
    this.tools.append(el("span", { class: "note hint" }, "Drag to choose a range."));
  }

  draw() {
    const { trace } = this;
    this.width = Math.max(280, this.holder.clientWidth || 900);
    const { left, right, top, height, gap, strip, bottom } = CHART;
    const total = top + height + (this.shows.rate ? gap + strip : 0) + bottom;
    const end_s =
      Math.max(trace.at_s[trace.end], this.before === null ? 0 : (this.before.at_s[this.before.end] ?? 0)) ||
      1;
    this.x = (seconds) => left + ((this.width - left - right) * seconds) / end_s;
    this.root = svg("svg", {
      width: this.width, height: total, viewBox: "0 0 " + this.width + " " + total, role: "group",
      "aria-label": "Memory over time: " + formatBytes(trace.live[trace.end]) + " live at the end, " +
        formatBytes(trace.header.peak_bytes) + " at the peak after " + formatDuration(trace.header.peak_s),
    });
    this.drawGaps(top, height);
    this.drawBytes(top, height);
    if (this.shows.rate) this.drawRate(top + height + gap, strip);
    this.drawTimes(end_s, total - bottom + 4);
    this.drawSelection(top, total - bottom - top);
    this.holder.replaceChildren(this.root);
    this.fillLegend();
    this.showSelection();
  }

  /** Whether slices are missing at the start of the record. */
  startsLate() {
    const { at_s, end } = this.trace;
    return at_s[0] > Math.max((2.5 * (at_s[end] - at_s[0])) / end, at_s[end] / 100);
  }

  /** @param {number} i */
  xAt(i) {
    return this.x(this.trace.at_s[i]);
  }

  /** @param {number} top @param {number} height */
  drawGaps(top, height) {
    const { trace, root } = this;
    if (root === undefined) return;
    const gap = (/** @type {number} */ from_s, /** @type {number} */ to_s) => {
      const from = this.x(from_s);
      root.append(
        svg(
          "rect",
          { class: "gap", x: from, y: top, width: Math.max(1, this.x(to_s) - from), height },
          svg("title", {}, "No slices from " + formatDuration(from_s) + " to " + formatDuration(to_s)),
        ),
      );
    };
    // The first slice is taken one period after the start.
    if (this.startsLate()) gap(0, trace.at_s[0]);
    for (let i = 1; i < trace.instants; i++) {
      if (!trace.missing[i]) continue;
      let last = i;
      while (last + 1 < trace.instants && trace.missing[last + 1]) last++;
      gap(trace.at_s[i - 1], trace.at_s[Math.min(last + 1, trace.end)]);
      i = last;
    }
    const judged = this.x(trace.header.judged_until_s);
    const end = this.xAt(trace.end);
    if (end - judged > 1) {
      root.append(svg("rect", { class: "unjudged", x: judged, y: top, width: end - judged, height },
        svg("title", {}, "The program freed everything and ended: not judged")));
    }
  }

  /** @param {number} top @param {number} height */
  drawBytes(top, height) {
    const { trace, root, before, shows } = this;
    if (root === undefined) return;
    let highest = 1;
    let lowest = Infinity;
    const note = (/** @type {Float64Array} */ values) => {
      for (const value of values) {
        highest = Math.max(highest, value);
        if (value > 0) lowest = Math.min(lowest, value);
      }
    };
    note(trace.live);
    if (shows.resident) note(trace.resident);
    if (shows.swap) note(trace.swap);
    if (before !== null) note(before.live);
    lowest = Math.max(1, Math.min(lowest, highest / 1024));
    const floor = this.isLog ? lowest : 0;
    const y = scaleOf(this.isLog, lowest, highest * 1.04, top + height, top);
    for (const tick of this.isLog ? logTicks(lowest, highest * 1.04) : byteTicks(highest * 1.04, 5)) {
      root.append(
        svg("line", {
          class: "grid",
          x1: CHART.left,
          x2: this.width - CHART.right,
          y1: y(tick),
          y2: y(tick),
        }),
        svg(
          "text",
          { class: "tick", x: CHART.left - 8, y: y(tick) + 4, "text-anchor": "end" },
          formatBytes(tick),
        ),
      );
    }
    const missing = (/** @type {number} */ i) => trace.missing[i] > 0;
    const x = (/** @type {number} */ i) => this.xAt(i);
    if (shows.sites && !this.isLog) this.drawStack(y);
    if (shows.sites && this.isLog) {
      for (const [color, site] of this.largest.entries()) {
        const live = trace.curveOf(site);
        root.append(
          svg("path", {
            class: "line " + SERIES_COLORS[color],
            d: linePath(
              live.length,
              x,
              (i) => y(live[i]),
              (i) => missing(i) || live[i] < floor,
            ),
          }),
        );
      }
    }
    if (before !== null) {
      const d = linePath(
        before.instants,
        (i) => this.x(before.at_s[i]),
        (i) => y(before.live[i]),
        (i) => before.missing[i] > 0,
      );
      root.append(svg("path", { class: "halo", d }), svg("path", { class: "line before", d }));
    }
    const lines = /** @type {[boolean, string, Float64Array][]} */ ([
      [shows.swap, "swap", trace.swap],
      [shows.resident && trace.header.has_resident, "resident", trace.resident],
      [true, "live", trace.live],
    ]);
    for (const [isShown, name, values] of lines) {
      if (!isShown) continue;
      const path = linePath(trace.instants, x, (i) => y(values[i]), (i) => missing(i) || values[i] < floor);
      // A pale, wider line is drawn first, so that this line is visible on top of the areas.
      root.append(svg("path", { class: "halo", d: path }), svg("path", { class: "line " + name, d: path }));
    }
  }

  /**
   * Draws the largest sites on top of each other, and below them one area for all other sites.
   * @param {(value: number) => number} y
   */
  drawStack(y) {
    const { trace, root } = this;
    if (root === undefined) return;
    const layers = this.largest.map((site) => trace.curveOf(site));
    const base = trace.live.map((bytes, i) =>
      Math.max(0, bytes - layers.reduce((sum, layer) => sum + layer[i], 0)),
    );
    let lower = new Float64Array(trace.instants);
    const area = (
      /** @type {string} */ color,
      /** @type {Float64Array} */ values,
      /** @type {string} */ title,
    ) => {
      const upper = lower.map((bytes, i) => bytes + values[i]);
      let path = "";
      for (let i = 0; i < trace.instants;) {
        if (trace.missing[i]) {
          i++;
          continue;
        }
        let last = i;
        while (last + 1 < trace.instants && !trace.missing[last + 1]) last++;
        for (let j = i; j <= last; j++)
          path += (j === i ? "M" : "L") + this.xAt(j).toFixed(1) + " " + y(upper[j]).toFixed(1);
        for (let j = last; j >= i; j--) path += "L" + this.xAt(j).toFixed(1) + " " + y(lower[j]).toFixed(1);
        path += "Z";
        i = last + 1;
      }
      root.append(svg("path", { class: "layer " + color, d: path }, svg("title", {}, title)));
      lower = upper;
    };
    area("s0", base, "all other sites");
    for (let i = layers.length - 1; i >= 0; i--)
      area(SERIES_COLORS[i], layers[i], visible(trace.nameOf(this.largest[i])));
  }

  /** @param {number} top @param {number} height */
  drawRate(top, height) {
    const { trace, root } = this;
    if (root === undefined) return;
    const rate = this.ratesOf();
    // The first instant gets no bar, because its value contains all allocations before the first slice.
    const highest = usualMost(rate.slice(1));
    const y = scaleOf(false, 1, highest * 1.05, top + height, top);
    const isCut = rate.some((value) => value > highest);
    root.append(
      svg(
        "text",
        { class: "tick", x: CHART.left + 8, y: top - 6 },
        "Allocated per second" + (isCut ? " (higher bars are cut)" : ""),
      ),
      svg("line", {
        class: "grid",
        x1: CHART.left,
        x2: this.width - CHART.right,
        y1: top + height,
        y2: top + height,
      }),
      svg(
        "text",
        { class: "tick", x: CHART.left - 8, y: top + 8, "text-anchor": "end" },
        formatRate(highest),
      ),
      svg("text", { class: "tick", x: CHART.left - 8, y: top + height + 4, "text-anchor": "end" }, "0"),
    );
    let path = "";
    for (let i = 1; i < trace.instants; i++) {
      if (trace.missing[i]) continue;
      const [from, to, level] = [
        this.xAt(i - 1).toFixed(1),
        this.xAt(i).toFixed(1),
        y(Math.min(rate[i], highest * 1.05)).toFixed(1),
      ];
      path += "M" + from + " " + (top + height) + "V" + level + "H" + to + "V" + (top + height) + "Z";
    }
    root.append(svg("path", { class: "rate", d: path }));
  }

  /** Bytes allocated per second up to each instant. @returns {Float64Array} */
  ratesOf() {
    const { allocated } = this.trace.process;
    const { at_s } = this.trace;
    return allocated.map((bytes, i) => {
      const seconds = i === 0 ? at_s[0] : at_s[i] - at_s[i - 1];
      return seconds > 0 ? (bytes - (i === 0 ? 0 : allocated[i - 1])) / seconds : 0;
    });
  }

  /** @param {number} end_s @param {number} y */
  drawTimes(end_s, y) {
    for (const tick of timeTicks(end_s, Math.max(3, Math.floor(this.width / 110)))) {
      const at = this.x(tick);
      const anchor = tick === 0 ? "start" : at > this.width - 34 ? "end" : "middle";
      this.root?.append(
        svg(
          "text",
          { class: "tick", x: anchor === "end" ? this.width - 2 : at, y: y + 14, "text-anchor": anchor },
          formatDuration(tick),
        ),
      );
    }
  }

  /** @param {number} top @param {number} height */
  drawSelection(top, height) {
    const { root } = this;
    if (root === undefined) return;
    const shade = () => svg("rect", { class: "outside", y: top, height });
    this.shades = [shade(), shade()];
    this.cross = svg("line", { class: "cross", y1: top, y2: top + height, visibility: "hidden" });
    const plot = svg("rect", {
      class: "plot", x: CHART.left, y: top, width: this.width - CHART.left - CHART.right, height,
    });
    this.handles = /** @type {("from" | "to")[]} */ (["from", "to"]).map((edge) =>
      this.handle(edge, top, height),
    );
    root.append(...this.shades, this.cross, plot, ...this.handles);
    this.listen(plot);
  }

  /**
   * One end of the range. The user can move it with the keyboard.
   * @param {"from" | "to"} edge @param {number} top @param {number} height
   */
  handle(edge, top, height) {
    const handle = svg(
      "g",
      {
        class: "handle",
        role: "slider",
        tabindex: 0,
        "aria-label": edge === "from" ? "Start of the range" : "End of the range",
        "aria-orientation": "horizontal",
        "aria-valuemin": 0,
        "aria-valuemax": this.trace.at_s[this.trace.end].toFixed(3),
      },
      svg("line", { y1: top, y2: top + height }),
      svg("rect", { class: "grip", x: -4, y: top + 4, width: 8, height: 22, rx: 3 }),
    );
    handle.addEventListener("keydown", (event) => {
      const { view } = this;
      const moves = /** @type {Record<string, number>} */ ({
        ArrowLeft: -1,
        ArrowDown: -1,
        ArrowRight: 1,
        ArrowUp: 1,
        PageDown: -10,
        PageUp: 10,
        Home: -1e9,
        End: 1e9,
      });
      const move = moves[event.key];
      if (move === undefined) return;
      event.preventDefault();
      if (edge === "from") view.setRange(Math.max(-1, Math.min(view.from + move, view.to - 1)), view.to);
      else view.setRange(view.from, Math.max(view.from + 1, Math.min(view.to + move, view.trace.end)));
    });
    return handle;
  }

  /** @param {SVGRectElement} plot */
  listen(plot) {
    const { view, trace } = this;
    /** @type {number | null} */
    let began = null;
    const secondsAt = (/** @type {PointerEvent} */ event) => {
      const box = plot.getBoundingClientRect();
      const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
      return share * (trace.at_s[trace.end] || 1);
    };
    plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      began = this.anchorOf(secondsAt(event));
      plot.setPointerCapture(event.pointerId);
    });
    plot.addEventListener("pointermove", (event) => {
      const now = secondsAt(event);
      this.showTip(trace.instantAt(now), event);
      plot.style.cursor = began === null && this.anchorOf(now) !== now ? "ew-resize" : "crosshair";
      if (began !== null) this.shade(Math.min(began, now), Math.max(began, now));
    });
    plot.addEventListener("pointerup", (event) => {
      if (began === null) return;
      const [a, b] = [
        trace.instantAt(Math.min(began, secondsAt(event))),
        trace.instantAt(Math.max(began, secondsAt(event))),
      ];
      const isDrag = Math.abs(this.x(began) - this.x(secondsAt(event))) > 4 && b > a;
      began = null;
      if (isDrag) view.setRange(a === 0 ? -1 : a, b);
      else this.showSelection();
    });
    plot.addEventListener("pointercancel", () => {
      began = null;
      this.showSelection();
    });
    plot.addEventListener("dblclick", () => view.setRange(-1, trace.end));
    plot.addEventListener("pointerleave", () => {
      this.tip.hidden = true;
      this.cross?.setAttribute("visibility", "hidden");
    });
  }

  /**
   * The fixed end of a drag. If a drag begins at one end of the range, the drag moves this end, and the other
   * end is fixed.
   * @param {number} seconds
   */
  anchorOf(seconds) {
    const { view } = this;
    const isNear = (/** @type {number} */ edge) => Math.abs(this.x(edge) - this.x(seconds)) <= 6;
    return isNear(view.from_s) ? view.to_s : isNear(view.to_s) ? view.from_s : seconds;
  }

  /** @param {number} i @param {PointerEvent} event */
  showTip(i, event) {
    const { trace } = this;
    this.cross?.setAttribute("visibility", "visible");
    this.cross?.setAttribute("x1", String(this.xAt(i)));
    this.cross?.setAttribute("x2", String(this.xAt(i)));
    const rows = /** @type {[string, string, string][]} */ ([["live", "live", formatBytes(trace.live[i])]]);
    if (trace.header.has_resident) rows.push(["resident", "resident", formatBytes(trace.resident[i])]);
    if (trace.swap[i] > 0) rows.push(["swap", "swapped", formatBytes(trace.swap[i])]);
    if (trace.header.has_turnover) rows.push(["rate", "allocated per second", formatRate(this.ratesOf()[i])]);
    if (this.shows.sites) {
      for (const [color, site] of this.largest.entries()) {
        rows.push([SERIES_COLORS[color], this.legendName(site), formatBytes(trace.curveOf(site)[i])]);
      }
    }
    this.tip.replaceChildren(
      el("strong", {}, "after " + formatDuration(trace.at_s[i]) + (trace.missing[i] ? " (no slice)" : "")),
      ...rows.map(([mark, name, value]) =>
        el("div", {}, el("span", { class: "key " + mark }), el("bdi", {}, name), el("b", {}, value)),
      ),
    );
    placeTip(this.tip, event.clientX, event.clientY);
  }

  showSelection() {
    this.shade(this.view.from_s, this.view.to_s);
    const [from, to] = this.handles ?? [];
    from?.setAttribute("aria-valuenow", this.view.from_s.toFixed(3));
    from?.setAttribute("aria-valuetext", formatDuration(this.view.from_s));
    to?.setAttribute("aria-valuenow", this.view.to_s.toFixed(3));
    to?.setAttribute("aria-valuetext", formatDuration(this.view.to_s));
  }

  /** @param {number} from_s @param {number} to_s */
  shade(from_s, to_s) {
    const [before, after] = this.shades ?? [];
    const [from, to, end] = [this.x(from_s), this.x(to_s), this.width - CHART.right];
    before?.setAttribute("x", String(CHART.left));
    before?.setAttribute("width", String(Math.max(0, from - CHART.left)));
    after?.setAttribute("x", String(to));
    after?.setAttribute("width", String(Math.max(0, end - to)));
    for (const [i, at] of [from, to].entries())
      this.handles?.[i].setAttribute("transform", "translate(" + at.toFixed(1) + " 0)");
  }

  /** The name of a site; two sites of the same function also have their numbers. @param {number} site */
  legendName(site) {
    const name = this.trace.nameOf(site);
    const isShared = this.largest.some((other) => other !== site && this.trace.nameOf(other) === name);
    return (
      shortName(name, 36) +
      (isShared ? " (" + KINDS[this.trace.kind[site]] + " " + visible(this.trace.ids[site]) + ")" : "")
    );
  }

  fillLegend() {
    const { trace } = this;
    const entry = (/** @type {string} */ mark, /** @type {Node | string} */ name) =>
      el("li", {}, el("span", { class: "key " + mark }), name);
    const entries = [entry("live", "live bytes")];
    if (this.shows.resident && trace.header.has_resident) entries.push(entry("resident", "resident"));
    if (this.before !== null) entries.push(entry("before", "live bytes of the recording before"));
    if (this.shows.sites) {
      for (const [color, site] of this.largest.entries()) {
        const button = el(
          "button",
          { type: "button", class: "link", title: visible(trace.nameOf(site)) },
          this.legendName(site),
        );
        button.addEventListener("click", () => this.view.select(site));
        entries.push(entry(SERIES_COLORS[color], button));
      }
      if (!this.isLog && trace.sites > this.largest.length) {
        entries.push(entry("s0", plural(trace.sites - this.largest.length, "other site", "other sites")));
      }
    }
    if (this.startsLate() || trace.missing.some((missing) => missing > 0))
      entries.push(entry("gap", "no slices"));
    this.legend.replaceChildren(...entries);
  }
}

/**
 * The top of the scale. A short burst, as at the start of a program, must not make all other values look
 * flat.
 * @param {Float64Array} values @returns {number}
 */
function usualMost(values) {
  const sorted = values.slice().sort();
  const most = sorted[sorted.length - 1] ?? 1;
  const usual = sorted[Math.floor((sorted.length - 1) * 0.98)] ?? 1;
  return usual > 0 && most > 3 * usual ? 1.25 * usual : Math.max(1, most);
}

/** The sites with the largest peaks, largest first. @param {Trace} trace @returns {number[]} */
function largestSites(trace) {
  const sites = [];
  for (let site = 0; site < trace.sites; site++)
    if (trace.hasCounters(site) && trace.peakBytes[site] > 0) sites.push(site);
  return sites.sort((a, b) => trace.peakBytes[b] - trace.peakBytes[a]).slice(0, LARGEST);
}
