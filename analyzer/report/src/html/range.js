// The range of time that all views show, and the figures of each site in this range.
//
// Counters are exact at every instant, so growth, allocations and frees between two instants are exact.
// Counters do not show how many of the allocations of a range are still live at its end. At least the growth
// of the site is live, and at most all bytes that the site allocated. If the site freed nothing in the range,
// these two limits are equal. For a watched site, the birth epochs narrow the distance between these two
// limits.

/**
 * @typedef {{grew: Float64Array, live: Float64Array, liveCount: Float64Array, allocated: Float64Array,
 *   freed: Float64Array, allocs: Float64Array, frees: Float64Array, keptLow: Float64Array,
 *   keptHigh: Float64Array}} Figures
 */

/** The recording that is shown, and the range that the user chose in it. */
class View {
  /** @param {Trace} trace */
  constructor(trace) {
    this.trace = trace;
    /** Index of the last instant before the range; −1 is the start of the recording. */
    this.from = -1;
    this.to = trace.judgedEnd;
    /** @type {number | null} */
    this.selected = null;
    /** @type {(() => void)[]} */
    this.onRange = [];
    /** @type {(() => void)[]} */
    this.onSelect = [];
    /** @type {Figures | null} */
    this.cached = null;
  }

  get isWhole() {
    return this.from < 0 && this.to === this.trace.end;
  }

  get from_s() {
    return this.from < 0 ? 0 : this.trace.at_s[this.from];
  }

  get to_s() {
    return this.trace.instants === 0 ? 0 : this.trace.at_s[this.to];
  }

  /** @param {number} from @param {number} to */
  setRange(from, to) {
    this.from = Math.max(-1, Math.min(from, this.trace.end - 1));
    this.to = Math.max(this.from + 1, Math.min(to, this.trace.end));
    this.cached = null;
    for (const changed of this.onRange) changed();
  }

  /** @param {number | null} site */
  select(site) {
    this.selected = site;
    for (const changed of this.onSelect) changed();
  }

  /** @returns {Figures} */
  get figures() {
    this.cached ??= this.isWhole ? wholeFigures(this.trace) : figuresOf(this.trace, this.from, this.to);
    return this.cached;
  }
}

/**
 * Figures of the whole record, computed from the totals and from the counters of the first instant.
 * @param {Trace} trace @returns {Figures}
 */
function wholeFigures(trace) {
  const known = (/** @type {Float64Array} */ values) => values.map((value) => Math.max(0, value));
  const live = trace.liveBytes;
  const grew = live.map((bytes, site) => {
    if (!trace.hasCounters(site)) return NaN;
    const reader = new Reader(trace.packedOf(site));
    if (reader.bytes.length === 0 || reader.next() > 0) return bytes;
    const allocated = reader.next();
    return bytes - Math.max(0, allocated - reader.next());
  });
  return {
    grew,
    live,
    liveCount: known(trace.liveCount),
    allocated: known(trace.allocatedBytes),
    freed: known(trace.freedBytes),
    allocs: known(trace.allocs),
    frees: known(trace.frees),
    keptLow: live,
    keptHigh: live,
  };
}

/** @param {Trace} trace @param {number} from @param {number} to @returns {Figures} */
function figuresOf(trace, from, to) {
  const column = () => new Float64Array(trace.sites);
  const figures = {
    grew: column(),
    live: column(),
    liveCount: column(),
    allocated: column(),
    freed: column(),
    allocs: column(),
    frees: column(),
    keptLow: column(),
    keptHigh: column(),
  };
  const first = Math.max(0, from);
  for (let site = 0; site < trace.sites; site++) {
    if (!trace.hasCounters(site)) {
      for (const values of Object.values(figures)) values[site] = NaN;
      continue;
    }
    const bytes = trace.packedOf(site);
    const reader = new Reader(bytes);
    // The counters at three instants: the instant before the range, the first instant of the range, and its
    // end. For each of these instants, the code takes the counters of the last change up to that instant.
    let allocated = 0, freed = 0, allocs = 0, frees = 0, next = 0;
    let allocated0 = 0, freed0 = 0, allocs0 = 0, frees0 = 0, live0 = 0;
    while (reader.at < bytes.length) {
      const instant = next + reader.next();
      if (instant > to) break;
      allocated += reader.next();
      freed += reader.next();
      allocs += reader.next();
      frees += reader.next();
      if (instant <= from) {
        allocated0 = allocated;
        freed0 = freed;
        allocs0 = allocs;
        frees0 = frees;
      }
      if (instant <= first) live0 = Math.max(0, allocated - freed);
      next = instant + 1;
    }
    const live = Math.max(0, allocated - freed);
    figures.live[site] = live;
    figures.liveCount[site] = Math.max(0, allocs - frees);
    figures.grew[site] = live - live0;
    figures.allocated[site] = allocated - allocated0;
    figures.freed[site] = freed - freed0;
    figures.allocs[site] = allocs - allocs0;
    figures.frees[site] = frees - frees0;
    const grew = live - Math.max(0, allocated0 - freed0);
    let low = Math.max(0, grew);
    let high = Math.min(figures.allocated[site], live);
    if (from < 0) low = live;
    if (figures.frees[site] === 0) low = high;
    if (low < high && trace.epochs[site] > 0) {
      const [born, perhaps] = bornBetween(trace, site, from < 0 ? 0 : trace.at_s[from], trace.at_s[to]);
      low = Math.min(high, Math.max(low, born));
      if (to === trace.end) high = Math.max(low, Math.min(high, perhaps));
    }
    figures.keptLow[site] = Math.min(low, high);
    figures.keptHigh[site] = high;
  }
  return figures;
}

/**
 * Bytes that are still live at the end of the record, as two numbers: bytes allocated in the epochs that are
 * completely in a range, and in the epochs that overlap the range. @param {Trace} trace @param {number} site
 * @param {number} from_s @param {number} to_s @returns {[number, number]}
 */
function bornBetween(trace, site, from_s, to_s) {
  let within = 0;
  let overlapping = 0;
  const first = trace.epochsFrom[site];
  for (let i = first; i < first + trace.epochs[site]; i++) {
    const [begins, ends] = [trace.epochFrom[i], trace.epochTo[i]];
    if (begins >= from_s && ends <= to_s) within += trace.epochBytes[i];
    if (begins < to_s && ends > from_s) overlapping += trace.epochBytes[i];
  }
  return [within, overlapping];
}

/** @param {number} low @param {number} high @returns {string} */
function formatKept(low, high) {
  if (Number.isNaN(low)) return "–";
  const [from, to] = [formatBytes(low), formatBytes(high)];
  return from === to ? from : from + " – " + to;
}

/** The sums over all sites in the range, and over the sites without counters. @param {View} view */
function sumsOf(view) {
  const { trace, figures, from, to } = view;
  /** @param {Counters} counters */
  const between = (counters) => {
    const at = (/** @type {Float64Array} */ values, /** @type {number} */ i) => (i < 0 ? 0 : values[i]);
    return {
      allocated: at(counters.allocated, to) - at(counters.allocated, from),
      freed: at(counters.freed, to) - at(counters.freed, from),
      allocs: at(counters.allocs, to) - at(counters.allocs, from),
      frees: at(counters.frees, to) - at(counters.frees, from),
      live0: at(counters.allocated, from) - at(counters.freed, from),
      live1: at(counters.allocated, to) - at(counters.freed, to),
    };
  };
  let low = 0;
  let high = 0;
  for (let site = 0; site < trace.sites; site++) {
    if (Number.isNaN(figures.keptLow[site])) continue;
    low += figures.keptLow[site];
    high += figures.keptHigh[site];
  }
  const others = between(trace.others);
  low += others.frees === 0 ? others.allocated : Math.max(0, others.live1 - others.live0);
  high += Math.min(others.allocated, others.live1);
  return { process: between(trace.process), others, low, high };
}

/** The text and the inputs of the range. @param {View} view */
function showRange(view) {
  const body = bodyOf("range");
  const { trace } = view;
  const end = trace.instants === 0 ? 0 : trace.at_s[trace.end];
  const step = trace.instants > 1 ? end / (trace.instants - 1) / 10 : 1;
  const digits = Math.max(0, Math.ceil(-Math.log10(step || 1)));
  const input = (/** @type {string} */ label) =>
    el("input", {
      type: "number",
      min: 0,
      max: end.toFixed(digits),
      step: "any",
      "aria-label": label + " of the range in seconds",
    });
  const [from, to] = [input("Start"), input("End")];
  const error = el("p", { class: "error", role: "alert" });
  const apply = () => {
    const [a, b] = [Number(from.value), Number(to.value)];
    const shown = end.toFixed(digits);
    if (from.value === "" || to.value === "" || !(a >= 0 && b <= Number(shown) && a < b)) {
      error.textContent =
        "The record goes from 0 to " + shown + " s: give a start and a later end within it.";
      return;
    }
    error.textContent = "";
    view.setRange(a <= 0 ? -1 : trace.instantAt(a), trace.instantAt(b));
  };
  from.addEventListener("change", apply);
  to.addEventListener("change", apply);
  const whole = el("button", { type: "button" }, "Whole record");
  whole.addEventListener("click", () => view.setRange(-1, trace.end));
  const say = el("div", { class: "answers", "aria-live": "polite" });
  body.replaceChildren(
    el(
      "p",
      { class: "inputs" },
      el("label", {}, "From ", from, " s "),
      el("label", {}, "to ", to, " s "),
      whole,
    ),
    error,
    say,
  );
  const update = () => {
    error.textContent = "";
    setAttributes(byId("range"), { "data-from": view.from_s, "data-to": view.to_s });
    from.value = view.from_s.toFixed(digits);
    to.value = view.to_s.toFixed(digits);
    whole.disabled = view.isWhole;
    say.replaceChildren(...sentencesOf(view));
  };
  view.onRange.push(update);
  update();
}

/** @param {View} view @returns {HTMLElement[]} */
function sentencesOf(view) {
  const { trace } = view;
  if (trace.instants === 0) return [el("p", {}, "The recording has no slices.")];
  const { process, low, high } = sumsOf(view);
  const seconds = view.to_s - view.from_s;
  const figure = (
    /** @type {string} */ name,
    /** @type {string} */ value,
    /** @type {string} */ note,
    /** @type {Record<string, number>} */ exact,
  ) =>
    el(
      "div",
      { class: "tile", ...exact },
      el("span", { class: "label" }, name),
      el("strong", {}, value),
      el("span", { class: "note" }, note),
    );
  const tiles = [
    figure("Live at its end", formatBytes(process.live1), view.isWhole
      ? plural(process.allocs - process.frees, "allocation", "allocations")
      : formatGrowth(process.live1 - process.live0) + " in the range", { "data-live": process.live1 }),
  ];
  if (trace.header.has_turnover) {
    tiles.push(
      figure(
        "Allocated in it",
        formatBytes(process.allocated),
        plural(process.allocs, "allocation", "allocations"),
        { "data-allocated": process.allocated },
      ),
      figure(
        "Freed in it",
        formatBytes(process.freed),
        seconds > 0 ? formatRate(process.freed / seconds) : "",
        { "data-freed": process.freed },
      ),
      figure(
        "Allocated in it and alive at its end",
        formatKept(low, high),
        low === high ? "exact" : "least and most",
        { "data-kept-low": low, "data-kept-high": high },
      ),
    );
  }
  const notes = [];
  const span = view.isWhole
    ? "The whole record"
    : "From " + formatDuration(view.from_s) + " to " + formatDuration(view.to_s);
  notes.push(
    span +
      " (" +
      formatDuration(seconds) +
      "). Everything below answers for this range; verdict, leaked and rate are those of the whole record.",
  );
  if (trace.judgedEnd < trace.end && view.to === trace.judgedEnd)
    notes.push("Then the program freed its memory and ended.");
  if (trace.missing[view.to] || (view.from >= 0 && trace.missing[view.from])) {
    notes.push(
      "The range begins or ends where slices are missing: the counters of the slice before are used.",
    );
  }
  if (!trace.header.has_turnover) {
    notes.push("The input says only what was live, so allocations and frees within a slice are unknown.");
  }
  return [el("div", { class: "tiles" }, ...tiles), el("p", { class: "note" }, notes.join(" "))];
}
