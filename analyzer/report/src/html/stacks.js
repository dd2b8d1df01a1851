// Merges stacks into a tree. The weight of a frame is the weight of all stacks that contain it.

/**
 * @typedef {{name: string, frame: number, total: number, own: number, isInlined: boolean,
 *   children: Map<string, FlameNode>, parent: FlameNode | null, site: number}} FlameNode
 */

/** @type {[string, string, string][]} value, text, meaning of the weight */
const WEIGHTS = [
  ["leaked", "leaked", "leaked bytes of the whole record"],
  ["grew", "grew", "growth of live bytes in the range"],
  ["live", "live", "live bytes at the end of the range"],
  ["peak", "at the peak", "live bytes when the process held most"],
  ["allocated", "allocated", "bytes allocated in the range"],
  ["allocs", "allocations", "allocations in the range"],
];

/** @param {View} view @param {string} weight @returns {(site: number) => number} */
function weightOf(view, weight) {
  const { trace, figures } = view;
  const figure = (/** @type {Float64Array} */ values) => (/** @type {number} */ site) =>
    Math.max(0, values[site] || 0);
  switch (weight) {
    case "leaked": return (site) => trace.leakedHere[site];
    case "grew": return figure(figures.grew);
    case "live": return view.to === trace.end ? figure(trace.liveBytes) : figure(figures.live);
    case "peak": return figure(trace.bytesAtPeak);
    case "allocated": return view.isWhole ? figure(trace.allocatedBytes) : figure(figures.allocated);
    default: return view.isWhole ? figure(trace.allocs) : figure(figures.allocs);
  }
}

/** @param {string} name @param {number} frame @param {FlameNode | null} parent @returns {FlameNode} */
function flameNode(name, frame, parent) {
  return { name, frame, total: 0, own: 0, isInlined: false, children: new Map(), parent, site: -1 };
}

/**
 * @param {View} view @param {Frames} frames @param {string} weight
 * @param {boolean} isFromMain the outermost frame is the root's child; else the innermost
 * @returns {FlameNode}
 */
function flameTree(view, frames, weight, isFromMain) {
  const { trace } = view;
  const root = flameNode("all", -1, null);
  const of = weightOf(view, weight);
  for (let site = 0; site < trace.sites; site++) {
    const bytes = of(site);
    if (!(bytes > 0)) continue;
    const stack = Array.from(trace.stackOf(site));
    if (isFromMain) stack.reverse();
    let node = root;
    node.total += bytes;
    // For a caller that was not watched, only its innermost function is known.
    if (isFromMain && trace.kind[site] !== 1) node = step(node, "(stack not recorded)", -1, bytes, false);
    if (stack.length === 0) node = step(node, trace.nameOf(site), -1, bytes, false);
    for (const frame of stack) node = step(node, frames.nameOf(frame), frame, bytes, frames.isInlined(frame));
    node.own += bytes;
    node.site = site;
  }
  return root;
}

/**
 * @param {FlameNode} node @param {string} name @param {number} frame @param {number} bytes
 * @param {boolean} isInlined
 */
function step(node, name, frame, bytes, isInlined) {
  const key = name + (isInlined ? "\u0000inlined" : "");
  let child = node.children.get(key);
  if (child === undefined) {
    child = flameNode(name, frame, node);
    child.isInlined = isInlined;
    node.children.set(key, child);
  }
  child.total += bytes;
  return child;
}
