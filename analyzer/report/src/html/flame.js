// The flame graph shows the callers of allocations. The user chooses the weight, and whether the tree begins
// with main or with the allocation.

const ROW_HEIGHT = 22;
/** A frame that is narrower than this is not drawn, because nobody could see it. */
const LEAST_WIDTH = 0.75;

class Flame {
  /** @param {View} view @param {Frames} frames */
  constructor(view, frames) {
    this.view = view;
    this.frames = frames;
    this.weight = view.trace.leakedHere.some((bytes) => bytes > 0) ? "leaked" : "live";
    this.isFromMain = true;
    this.isIcicle = true;
    /** @type {string[]} */
    this.path = [];
    this.search = el("input", {
      type: "search",
      placeholder: "highlight a function",
      "aria-label": "Highlight frames of the flame graph",
    });
    this.holder = el("div", { class: "chart flamebox" });
    this.said = el("p", { class: "note", "aria-live": "polite" });
    this.crumbs = el("p", { class: "crumbs" });
    this.tip = el("div", { class: "tip", role: "presentation", hidden: true });
    document.body.append(this.tip);
    this.search.addEventListener("input", oncePerFrame(() => this.draw()));
    const weights = WEIGHTS.filter(([value]) => view.trace.header.has_turnover || !value.startsWith("alloc"));
    bodyOf("flame").replaceChildren(
      el(
        "div",
        { class: "tools" },
        choice(
          "Weight",
          weights.map(([value, text]) => [value, text]),
          this.weight,
          (value) => this.change(() => (this.weight = value)),
        ),
        choice(
          "Direction",
          [
            ["main", "from main"],
            ["allocation", "from the allocation"],
          ],
          "main",
          (value) => this.change(() => (this.isFromMain = value === "main")),
        ),
        choice(
          "Shape",
          [
            ["icicle", "icicle"],
            ["flame", "flame"],
          ],
          "icicle",
          (value) => this.change(() => (this.isIcicle = value === "icicle"), true),
        ),
        this.search,
      ),
      this.crumbs,
      this.holder,
      this.said,
    );
    this.change(() => undefined);
    onResize(this.holder, () => this.draw());
    view.onRange.push(() => this.change(() => undefined, true));
  }

  /** @param {() => void} change @param {boolean} [keepsZoom] */
  change(change, keepsZoom) {
    change();
    if (keepsZoom !== true) this.path = [];
    this.root = flameTree(this.view, this.frames, this.weight, this.isFromMain);
    this.draw();
  }

  /**
   * The frame that fills the width of the chart: the last frame of the zoom path that still exists.
   * @returns {FlameNode | undefined}
   */
  zoomed() {
    let node = this.root;
    for (const key of this.path) {
      const child = node?.children.get(key);
      if (child === undefined) break;
      node = child;
    }
    return node;
  }

  /** @param {FlameNode} node */
  zoom(node) {
    const path = [];
    for (let each = node; each.parent !== null; each = each.parent)
      path.unshift(each.name + (each.isInlined ? "\u0000inlined" : ""));
    this.path = path;
    this.draw();
    const first = this.holder.querySelector("g[tabindex]");
    if (first instanceof SVGElement) first.focus({ preventScroll: true });
  }

  draw() {
    const { root, view } = this;
    const top = this.zoomed();
    if (root === undefined || top === undefined) return;
    const [, text, meaning] = WEIGHTS.find(([value]) => value === this.weight) ?? WEIGHTS[0];
    this.tip.hidden = true;
    if (root.total === 0) {
      this.crumbs.replaceChildren();
      this.holder.replaceChildren(
        el(
          "p",
          { class: "empty" },
          "Nothing to show by “" + text + "”" + (view.isWhole ? "." : " in this range."),
        ),
      );
      this.said.textContent = "";
      return;
    }
    const width = Math.max(280, this.holder.clientWidth || 900);
    const isHit = this.search.value.trim() === "" ? null : patternOf(this.search.value);
    /** @type {SVGGElement[]} */
    const drawn = [];
    let depth = 0;
    let hits = 0;
    const place = (
      /** @type {FlameNode} */ node,
      /** @type {number} */ x,
      /** @type {number} */ row,
      /** @type {boolean} */ isInHit,
    ) => {
      const wide = (width * node.total) / top.total;
      if (wide < LEAST_WIDTH) return;
      const isOwnHit = isHit !== null && isHit(node.name);
      if (isOwnHit && !isInHit) hits += node.total;
      depth = Math.max(depth, row);
      drawn.push(this.box(node, x, row, wide, isHit === null ? "" : isOwnHit ? " hit" : " miss"));
      let at = x;
      const children = [...node.children.values()].sort((a, b) => b.total - a.total);
      for (const child of children) {
        place(child, at, row + 1, isInHit || isOwnHit);
        at += (width * child.total) / top.total;
      }
    };
    place(top, 0, 0, false);
    const height = (depth + 1) * ROW_HEIGHT;
    for (const group of drawn) {
      const row = Number(group.dataset.depth);
      const y = this.isIcicle ? row * ROW_HEIGHT : height - (row + 1) * ROW_HEIGHT;
      group.setAttribute("transform", "translate(" + group.dataset.x + " " + y + ")");
    }
    const graph = svg(
      "svg",
      {
        width,
        height,
        viewBox: "0 0 " + width + " " + height,
        role: "group",
        "aria-label": "Flame graph by " + meaning,
      },
      ...drawn,
    );
    drawn[0]?.setAttribute("tabindex", "0");
    graph.addEventListener("keydown", (event) => this.key(event));
    this.holder.replaceChildren(graph);
    this.showCrumbs(top);
    const found =
      isHit === null ? "" : " Highlighted: " + this.format(hits) + ", " + formatShare(hits / top.total) + ".";
    this.said.textContent =
      this.format(root.total) +
      " in all: " +
      meaning +
      "." +
      found +
      this.leftOut() +
      (drawn.some((group) => group.classList.contains("inlined"))
        ? " ◦ marks a function that was inlined into its caller."
        : "") +
      " Click or Enter zooms, Escape goes back out; arrow keys move.";
  }

  /**
   * @param {FlameNode} node @param {number} x @param {number} row @param {number} wide @param {string} mark
   */
  box(node, x, row, wide, mark) {
    const share = this.root === undefined ? 0 : node.total / this.root.total;
    const name = node.parent === null ? "all" : node.name;
    const label =
      visible(name).slice(0, 400) +
      (node.isInlined ? " (inlined)" : "") +
      ": " +
      this.format(node.total) +
      ", " +
      formatShare(share);
    const characters = Math.floor((wide - 8) / 6.6);
    const group = svg(
      "g",
      {
        class: "frame c" + (hashOf(name) % 6) + (node.isInlined && wide >= 6 ? " inlined" : "") + mark,
        role: "button",
        tabindex: -1,
        "aria-label": label,
        "data-depth": row,
        "data-x": x.toFixed(2),
        "data-name": visible(name).slice(0, 400),
        "data-total": node.total,
      },
      svg("rect", { width: Math.max(0.5, wide - 1).toFixed(2), height: ROW_HEIGHT - 1, rx: 2 }),
      characters < 3
        ? null
        : svg(
            "text",
            { x: 4, y: 15 },
            (node.isInlined ? "◦ " : "") + shortName(name, characters - (node.isInlined ? 2 : 0)),
          ),
    );
    group.addEventListener("click", () =>
      this.zoom(node === this.zoomed() && node.parent !== null ? node.parent : node),
    );
    const showTip = (/** @type {number} */ x, /** @type {number} */ y) => {
      const file = node.frame < 0 ? "" : this.frames.placeOf(node.frame) || this.frames.moduleOf(node.frame);
      this.tip.replaceChildren(
        el("bdi", { class: "name" }, visible(name).slice(0, 600)),
        el("div", {}, visible(file)),
        el(
          "div",
          {},
          this.format(node.total) +
            " (" +
            formatShare(share) +
            (node.own > 0 && node.children.size > 0 ? "; itself " + this.format(node.own) : "") +
            ")" +
            (node.isInlined ? ", inlined into its caller" : ""),
        ),
      );
      placeTip(this.tip, x, y);
    };
    group.addEventListener("pointermove", (event) => showTip(event.clientX, event.clientY));
    group.addEventListener("focus", () => {
      const box = group.getBoundingClientRect();
      if (group.matches(":focus-visible")) showTip(Math.max(0, box.left), box.bottom);
    });
    for (const end of ["pointerleave", "blur"]) group.addEventListener(end, () => (this.tip.hidden = true));
    // The keyboard code finds the node of a group in this map, and from the node its siblings and parent.
    flameNodes.set(group, node);
    return group;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const group = event.target;
    if (!(group instanceof SVGGElement)) return;
    const node = flameNodes.get(group);
    if (node === undefined) return;
    const groups = /** @type {SVGGElement[]} */ ([...this.holder.querySelectorAll("g.frame")]);
    const focus = (/** @type {FlameNode | null | undefined} */ other) =>
      groups.find((each) => flameNodes.get(each) === other)?.focus();
    const siblings = groups.filter((each) => each.dataset.depth === group.dataset.depth);
    const at = siblings.indexOf(group);
    const [inward, outward] = this.isIcicle ? ["ArrowDown", "ArrowUp"] : ["ArrowUp", "ArrowDown"];
    if (event.key === "Enter" || event.key === " ") this.zoom(node);
    else if (event.key === "Escape") {
      const top = this.zoomed();
      if (top?.parent) this.zoom(top.parent);
    } else if (event.key === outward) focus(node.parent);
    else if (event.key === inward) focus([...node.children.values()].sort((a, b) => b.total - a.total)[0]);
    else if (event.key === "ArrowRight") siblings[at + 1]?.focus();
    else if (event.key === "ArrowLeft") siblings[at - 1]?.focus();
    else return;
    event.preventDefault();
  }

  /** The text of a note to the user: if a range is chosen, the sites without counters have no weight. */
  leftOut() {
    const { others_sites } = this.view.trace.header;
    if (others_sites === 0 || this.view.isWhole || this.weight === "leaked" || this.weight === "peak")
      return "";
    return " Left out: " + plural(others_sites, "site", "sites") + " whose counters are not in the page.";
  }

  /** @param {FlameNode} top */
  showCrumbs(top) {
    const crumbs = [];
    for (let node = /** @type {FlameNode | null} */ (top); node !== null; node = node.parent) {
      const target = node;
      const button = el(
        "button",
        { type: "button", class: "link" },
        node.parent === null ? "all" : shortName(node.name, 30),
      );
      button.addEventListener("click", () => this.zoom(target));
      crumbs.unshift(button);
      if (node.parent !== null) crumbs.unshift(" › ");
    }
    this.crumbs.replaceChildren(...(top.parent === null ? [] : crumbs));
  }

  /** @param {number} weight */
  format(weight) {
    return this.weight === "allocs" ? plural(weight, "allocation", "allocations") : formatBytes(weight);
  }
}

/** @type {WeakMap<SVGGElement, FlameNode>} */
const flameNodes = new WeakMap();

/** @param {string} text @returns {number} the same colour for the same name, always */
function hashOf(text) {
  let hash = 7;
  for (let i = 0; i < text.length; i++) hash = (hash * 31 + text.charCodeAt(i)) >>> 0;
  return hash;
}
