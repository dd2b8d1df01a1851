// The details of one site: its curve, the reasons of its verdict, the ages of its live allocations, and its
// stacks.

/** @param {View} view @param {Frames} frames @param {number} site @returns {HTMLElement} */
function siteDetails(view, frames, site) {
  const { trace } = view;
  const parts = [];
  const why = trace.text(trace.why[site]);
  if (why !== "")
    parts.push(block("Why", el("ul", {}, ...why.split("\n").map((reason) => el("li", {}, visible(reason))))));
  parts.push(block("Figures", figureList(view, site)));
  parts.push(block("Live bytes", bigCurve(view, site)));
  if (trace.epochs[site] > 0) parts.push(block("Age of what survives", ages(trace, site)));
  parts.push(block("Stack", stackList(trace, frames, site)));
  const stacks = stacksBelow(trace, site);
  if (stacks.length > 0) parts.push(block("Stacks of this caller", stackButtons(view, stacks)));
  return el("div", { class: "details" }, ...parts);
}

/** @param {string} heading @param {Node} content */
function block(heading, content) {
  return el(
    "section",
    { class: heading === "Stack" ? "block wide" : "block" },
    el("h3", {}, heading),
    content,
  );
}

/** @param {View} view @param {number} site */
function figureList(view, site) {
  const { trace, figures } = view;
  const known = (/** @type {number} */ value, /** @type {(n: number) => string} */ format) =>
    value < 0 ? "unknown" : format(value);
  /** @type {[string, string][]} */
  const rows = [
    ["site", trace.ids[site] + (trace.kind[site] === 0 ? "" : " (" + KINDS[trace.kind[site]] + ")")],
    ["leaked", formatBytes(trace.leakBytes[site]) + ", " + formatRate(trace.rate[site])],
    [
      "live at the end",
      formatBytes(trace.liveBytes[site]) +
        ", " +
        known(trace.liveCount[site], (n) => plural(n, "allocation", "allocations")),
    ],
    ["peak", formatBytes(trace.peakBytes[site]) + " after " + formatDuration(trace.peakAt[site])],
    [
      "allocated",
      known(trace.allocatedBytes[site], formatBytes) +
        ", " +
        known(trace.allocs[site], (n) => plural(n, "time", "times")),
    ],
    [
      "freed",
      known(trace.freedBytes[site], formatBytes) +
        ", " +
        known(trace.frees[site], (n) => plural(n, "time", "times")),
    ],
  ];
  const others = sitesOfFinding(trace, site) - 1;
  if (others > 0)
    rows.push([
      "finding",
      "leak " +
        trace.finding[site] +
        ", with " +
        plural(others, "other site", "other sites") +
        " that leak in step",
    ]);
  if (trace.verdict[site] === 0 && trace.began[site] > 0)
    rows.push(["began after", formatDuration(trace.began[site])]);
  if ((trace.flags[site] & FLAG_FREED_AT_END) !== 0)
    rows.push(["freed when the program ended", "most of the leaked bytes"]);
  if (trace.leakShare[site] > 0)
    rows.push(["share of its caller's leak", formatShare(trace.leakShare[site])]);
  if (trace.recordLonger[site] > 0)
    rows.push(["undecided", "record " + formatDuration(trace.recordLonger[site]) + " longer"]);
  if (trace.change[site] > 0) {
    const was = trace.change[site] === 1 ? "" : ", was " + formatRate(trace.was[site]);
    rows.push(["against the other recording", CHANGES[trace.change[site]] + was]);
  }
  if (!view.isWhole && !Number.isNaN(figures.grew[site])) {
    rows.push(
      ["in the range: grew", formatGrowth(figures.grew[site])],
      [
        "in the range: allocated",
        formatBytes(figures.allocated[site]) + ", " + plural(figures.allocs[site], "time", "times"),
      ],
      [
        "in the range: freed",
        formatBytes(figures.freed[site]) + ", " + plural(figures.frees[site], "time", "times"),
      ],
      ["allocated in it, alive at its end", formatKept(figures.keptLow[site], figures.keptHigh[site])],
    );
  }
  return el(
    "dl",
    { class: "figures" },
    ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

/** The number of sites in the finding of this site. @param {Trace} trace @param {number} site */
function sitesOfFinding(trace, site) {
  const finding = trace.finding[site];
  return finding === 0 ? 0 : trace.finding.filter((other) => other === finding).length;
}

/** @param {View} view @param {number} site */
function bigCurve(view, site) {
  const { trace } = view;
  const curve = trace.curveOf(site);
  const isCoarse = !trace.hasCounters(site);
  const [width, height] = [520, 120];
  const end_s = isCoarse ? curve.length - 1 : trace.at_s[trace.end];
  const x = (/** @type {number} */ i) => (width * (isCoarse ? i : trace.at_s[i])) / (end_s || 1);
  let highest = 1;
  for (const bytes of curve) highest = Math.max(highest, bytes);
  const y = (/** @type {number} */ i) => height - 2 - ((height - 6) * curve[i]) / highest;
  const missing = (/** @type {number} */ i) => !isCoarse && trace.missing[i] > 0;
  const [from, to] = [
    (width * view.from_s) / (trace.at_s[trace.end] || 1),
    (width * view.to_s) / (trace.at_s[trace.end] || 1),
  ];
  const label =
    "Live bytes from " +
    formatBytes(curve[0] ?? 0) +
    " to " +
    formatBytes(curve[curve.length - 1] ?? 0) +
    ", at most " +
    formatBytes(highest);
  return el(
    "div",
    { class: "curve" },
    svg(
      "svg",
      {
        viewBox: "0 0 " + width + " " + height,
        role: "img",
        "aria-label": label,
        preserveAspectRatio: "none",
      },
      view.isWhole
        ? null
        : svg("rect", { class: "inside", x: from, y: 0, width: Math.max(1, to - from), height }),
      svg("path", { class: "line live", d: linePath(curve.length, x, y, missing) }),
    ),
    el(
      "p",
      { class: "note" },
      label + (isCoarse ? "; drawn coarsely, since the page has no room for its counters" : "") + ".",
    ),
  );
}

/** @param {Trace} trace @param {number} site */
function ages(trace, site) {
  const first = trace.epochsFrom[site];
  const count = trace.epochs[site];
  let most = 1;
  for (let i = first; i < first + count; i++) most = Math.max(most, trace.epochBytes[i]);
  const bars = [];
  const [width, height] = [520, 70];
  const [begin_s, end_s] = [trace.epochFrom[first], trace.epochTo[first + count - 1]];
  const x = (/** @type {number} */ seconds) => (width * (seconds - begin_s)) / (end_s - begin_s || 1);
  for (let i = 0; i < count; i++) {
    const bytes = trace.epochBytes[first + i];
    const tall = ((height - 2) * bytes) / most;
    const [from, to] = [x(trace.epochFrom[first + i]), x(trace.epochTo[first + i])];
    bars.push(
      svg(
        "rect",
        { class: "bar", x: from, y: height - tall, width: Math.max(0.7, to - from - 1), height: tall },
        svg(
          "title",
          {},
          "allocated from " +
            formatDuration(trace.epochFrom[first + i]) +
            " to " +
            formatDuration(trace.epochTo[first + i]) +
            ": " +
            formatBytes(bytes) +
            " in " +
            plural(trace.epochCount[first + i], "allocation", "allocations") +
            " survive",
        ),
      ),
    );
  }
  const oldest = trace.epochBytes[first];
  const label =
    "What survives, by when it was allocated: from " +
    formatDuration(begin_s) +
    " to " +
    formatDuration(end_s) +
    "; " +
    formatBytes(oldest) +
    " from the first of " +
    count +
    " epochs.";
  return el(
    "div",
    { class: "curve" },
    svg(
      "svg",
      {
        viewBox: "0 0 " + width + " " + height,
        role: "img",
        "aria-label": label,
        preserveAspectRatio: "none",
      },
      ...bars,
    ),
    el("p", { class: "note" }, label),
  );
}

/** @param {Trace} trace @param {Frames} frames @param {number} site */
function stackList(trace, frames, site) {
  const stack = trace.stackOf(site);
  const items = Array.from(stack, (frame) => el("li", { title: visible(frames.moduleOf(frame)) },
    nameOf(frames.nameOf(frame)), " ", nameOf(frames.placeOf(frame) || frames.moduleOf(frame), "place"),
    frames.isInlined(frame) ? el("em", {}, " inlined") : null));
  const notes = [];
  if ((trace.flags[site] & 1) !== 0) notes.push("The stack goes on, but was not walked further.");
  if (trace.kind[site] === 0 && stack.length > 0)
    notes.push("Only the caller was recorded here: edleak-record --watch records full stacks.");
  if (stack.length === 0) notes.push("The input has no address of it.");
  return el(
    "div",
    {},
    el("ol", { class: "stack" }, ...items),
    notes.length > 0 ? el("p", { class: "note" }, notes.join(" ")) : null,
  );
}

/** @param {Trace} trace @param {number} site @returns {number[]} */
function stacksBelow(trace, site) {
  const stacks = [];
  for (let other = 0; other < trace.sites; other++) if (trace.parent[other] === site) stacks.push(other);
  return stacks
    .sort((a, b) => trace.leakedHere[b] - trace.leakedHere[a] || trace.liveBytes[b] - trace.liveBytes[a])
    .slice(0, 50);
}

/** @param {View} view @param {number[]} stacks */
function stackButtons(view, stacks) {
  const { trace } = view;
  return el("ul", { class: "plainlist" }, ...stacks.map((stack) => {
    const button = el("button", { type: "button", class: "link" }, "stack " + visible(trace.ids[stack]));
    button.addEventListener("click", () => view.select(stack));
    const leaked = trace.leakedHere[stack] > 0 ? formatBytes(trace.leakedHere[stack]) + " leaked, " : "";
    return el("li", {}, button, " " + leaked + formatBytes(trace.liveBytes[stack]) + " live");
  }));
}
