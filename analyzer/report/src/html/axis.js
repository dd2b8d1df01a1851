// Scales, ticks and colours of the charts.

/**
 * Colours of the stacked sites. Colour-blind people can tell these colours apart (after Okabe and Ito). The
 * values are in page.css.
 */
const SERIES_COLORS = ["s1", "s2", "s3", "s4", "s5", "s6", "s7"];

/**
 * Round numbers of bytes between 0 and `highest`: a power of two times 1, 2 or 5.
 * @param {number} highest @param {number} most @returns {number[]}
 */
function byteTicks(highest, most) {
  if (!(highest > 0)) return [0];
  let unit = 1;
  while (highest / unit >= 1000) unit *= 1024;
  const rough = highest / unit / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const nice = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough) ?? rough;
  const step = Math.max(nice * unit, unit === 1 ? 1 : 0);
  const ticks = [];
  for (let tick = 0; tick <= highest * 1.0001; tick += step) ticks.push(tick);
  return ticks;
}

/**
 * About six powers of two between `lowest` and `highest`.
 * @param {number} lowest @param {number} highest @returns {number[]}
 */
function logTicks(lowest, highest) {
  const step = Math.max(1, Math.ceil(Math.log2(highest / lowest) / 6));
  const ticks = [];
  for (let power = Math.ceil(Math.log2(lowest)); 2 ** power <= highest; power += step) ticks.push(2 ** power);
  return ticks.length > 1 ? ticks : [lowest, highest];
}

/** @param {number} end_s @param {number} most @returns {number[]} */
function timeTicks(end_s, most) {
  const steps = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
    3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000,
  ];
  const step = steps.find((seconds) => end_s / seconds <= most) ?? end_s / most;
  const ticks = [];
  for (let i = 0; i * step <= end_s * 1.0001; i++) ticks.push(i * step);
  return ticks;
}

/**
 * A scale from values to pixels.
 * @param {boolean} isLog @param {number} lowest of a logarithmic scale @param {number} highest
 * @param {number} from @param {number} to @returns {(value: number) => number}
 */
function scaleOf(isLog, lowest, highest, from, to) {
  if (!isLog) return (value) => from + ((to - from) * value) / (highest || 1);
  const [low, high] = [Math.log(lowest), Math.log(Math.max(highest, lowest * 2))];
  return (value) =>
    from + (to - from) * Math.max(0, (Math.log(Math.max(value, lowest)) - low) / (high - low));
}

/** A path through (x, y), broken at missing instants. @param {number} count @param {(i: number) => number} x
 * @param {(i: number) => number} y @param {(i: number) => boolean} isMissing @returns {string} */
function linePath(count, x, y, isMissing) {
  let path = "";
  let isBroken = true;
  for (let i = 0; i < count; i++) {
    if (isMissing(i)) {
      isBroken = true;
      continue;
    }
    path += (isBroken ? "M" : "L") + x(i).toFixed(1) + " " + y(i).toFixed(1);
    isBroken = false;
  }
  return path;
}

/** A small curve of a site. @param {Trace} trace @param {number} site */
function sparkline(trace, site) {
  const curve = trace.curveOf(site);
  const [width, height] = [110, 26];
  const buckets = Math.min(55, curve.length);
  let highest = 1;
  for (const bytes of curve) highest = Math.max(highest, bytes);
  let path = "";
  for (let i = 0; i < buckets; i++) {
    let most = 0;
    const end = Math.floor(((i + 1) * curve.length) / buckets);
    for (let j = Math.floor((i * curve.length) / buckets); j < end; j++) most = Math.max(most, curve[j]);
    const x = (width * i) / Math.max(1, buckets - 1);
    path +=
      (i === 0 ? "M" : "L") + x.toFixed(1) + " " + (height - 1 - ((height - 3) * most) / highest).toFixed(1);
  }
  const area = path === "" ? "" : path + "L" + width + " " + height + "L0 " + height + "Z";
  return svg(
    "svg",
    { class: "spark", viewBox: "0 0 " + width + " " + height, "aria-hidden": "true", focusable: "false" },
    svg("path", { class: "area", d: area }),
    svg("path", { d: path }),
  );
}
