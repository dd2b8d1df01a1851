// The table of sites. The user can sort it by any column and filter it by name or verdict. A click on a row
// opens its details.

/**
 * @typedef {{key: string, title: string, hint: string, isText?: boolean,
 *   value: (site: number) => number | string, show: (site: number) => string,
 *   needsTurnover?: boolean}} Column
 */

/** Number of rows that the table shows at first, and that each request for more rows adds. */
const FIRST_ROWS = 500;

class Sites {
  /** @param {View} view @param {Frames} frames */
  constructor(view, frames) {
    this.view = view;
    this.trace = view.trace;
    this.frames = frames;
    this.columns = this.columnsOf();
    this.ranks = this.ranksOf();
    this.sortKey = "verdict";
    this.isDescending = false;
    this.most = FIRST_ROWS;
    this.verdict = "all";
    this.body = bodyOf("sites");
    const filter = byId("filter");
    if (!(filter instanceof HTMLInputElement)) throw new Error("#filter is no input");
    this.filter = filter;
    this.build();
    this.update();
    view.onRange.push(() => this.update());
    view.onSelect.push(() => this.showSelected());
    addEventListener("beforeprint", () => this.spread());
    addEventListener("afterprint", () => this.update());
  }

  /** A printed page cannot scroll, so every curve is drawn. The list of leaks has reasons and stacks. */
  spread() {
    for (const cell of this.rows?.querySelectorAll("td.curve:empty") ?? []) {
      cell.append(sparkline(this.trace, Number(cell.getAttribute("data-row"))));
    }
  }

  /** The place of each site in the first order: verdict, rate, then size. @returns {Float64Array} */
  ranksOf() {
    const { verdict, rate, leakedHere, peakBytes, sites } = this.trace;
    const order = Array.from({ length: sites }, (_, site) => site);
    order.sort(
      (a, b) =>
        verdict[a] - verdict[b] ||
        rate[b] - rate[a] ||
        leakedHere[b] - leakedHere[a] ||
        peakBytes[b] - peakBytes[a] ||
        a - b,
    );
    const ranks = new Float64Array(sites);
    order.forEach((site, rank) => (ranks[site] = rank));
    return ranks;
  }

  /** @returns {Column[]} */
  columnsOf() {
    const { trace, view } = this;
    const figure =
      (/** @type {"grew" | "live" | "freed" | "keptLow"} */ name) => (/** @type {number} */ site) =>
        view.figures[name][site];
    const orDash = (/** @type {number} */ value, /** @type {(n: number) => string} */ format) =>
      Number.isNaN(value) ? "–" : format(value);
    /** @type {Column[]} */
    const columns = [
      {
        key: "verdict", title: "Verdict", hint: "leaks first, by falling rate, then by size",
        value: (site) => this.ranks[site], show: (site) => this.verdictText(site),
      },
      {
        key: "name",
        title: "Site",
        hint: "function, file and module",
        isText: true,
        value: (site) => trace.nameOf(site).toLowerCase(),
        show: (site) => trace.nameOf(site),
      },
      {
        key: "leaked",
        title: "Leaked",
        hint: "bytes leaked over the record",
        value: (site) => trace.leakBytes[site],
        show: (site) => (trace.verdict[site] === 0 ? formatBytes(trace.leakBytes[site]) : ""),
      },
      {
        key: "rate",
        title: "Rate",
        hint: "bytes leaked per second since the leak began",
        value: (site) => trace.rate[site],
        show: (site) => (trace.rate[site] > 0 ? formatRate(trace.rate[site]) : ""),
      },
      {
        key: "grew",
        title: "Grew",
        hint: "live bytes at the end of the range less those at its start: exact",
        value: figure("grew"),
        show: (site) => orDash(view.figures.grew[site], formatGrowth),
      },
      {
        key: "kept",
        title: "New and alive",
        hint: "allocated in the range and alive at its end: least and most",
        needsTurnover: true,
        value: figure("keptLow"),
        show: (site) => formatKept(view.figures.keptLow[site], view.figures.keptHigh[site]),
      },
      {
        key: "live",
        title: "Live",
        hint: "live bytes at the end of the range: exact",
        value: (site) => this.liveOf(site),
        show: (site) => orDash(this.liveOf(site), formatBytes),
      },
      {
        key: "peak",
        title: "Peak",
        hint: "the most that was ever live, over all slices",
        value: (site) => trace.peakBytes[site],
        show: (site) => formatBytes(trace.peakBytes[site]),
      },
      {
        key: "churn",
        title: "Churn",
        hint: "bytes freed in the range: exact",
        needsTurnover: true,
        value: figure("freed"),
        show: (site) => orDash(view.figures.freed[site], formatBytes),
      },
    ];
    if (trace.change.length > 0) {
      columns.splice(1, 0, {
        key: "change",
        title: "Change",
        hint: "against the other recording: new, faster, the same, slower",
        isText: true,
        value: (site) => [9, 0, 1, 3, 2][trace.change[site]],
        show: (site) => {
          const word = CHANGES[trace.change[site]];
          return trace.change[site] > 1 ? word + ", was " + formatRate(trace.was[site]) : word;
        },
      });
    }
    return columns.filter((column) => column.needsTurnover !== true || trace.header.has_turnover);
  }

  /**
   * The live bytes at the end of the range. If the range ends with the record, these are the live bytes of
   * the newest slice, as in every report.
   * @param {number} site
   */
  liveOf(site) {
    return this.view.to === this.trace.end ? this.trace.liveBytes[site] : this.view.figures.live[site];
  }

  /** @param {number} site */
  verdictText(site) {
    const word = VERDICTS[this.trace.verdict[site]];
    const isSuspect = this.trace.confidence[site] === 1;
    return isSuspect ? "suspect" : word === "no-leak" ? "no leak" : word;
  }

  build() {
    const tools = this.filter.closest(".tools");
    if (tools instanceof HTMLElement) {
      tools.hidden = false;
      const counts = [0, 0, 0];
      for (const verdict of this.trace.verdict) counts[verdict]++;
      tools.append(
        choice("Verdict", [
          ["all", "all " + formatCount(this.trace.sites)],
          ["0", plural(counts[0], "leak", "leaks")],
          ["1", formatCount(counts[1]) + " undecided"],
          ["2", formatCount(counts[2]) + " no leak"],
        ], "all", (value) => {
          this.verdict = value;
          this.most = FIRST_ROWS;
          this.update();
        }),
      );
    }
    this.filter.setAttribute("placeholder", "function, file or module: pars*json, ^main$");
    this.filter.title =
      "As in suppressions: sought anywhere, * stands for anything, ^ and $ tie to start and end. " +
      "A verdict or a class finds its sites: " +
      [...FILTER_WORDS].join(", ");
    this.filter.addEventListener(
      "input",
      oncePerFrame(() => {
        this.most = FIRST_ROWS;
        this.update();
      }),
    );
    const head = el("tr");
    for (const [i, column] of this.columns.entries()) {
      if (column.key === "leaked") head.append(el("th", { scope: "col", class: "curve" }, "Curve"));
      const button = el("button", { type: "button", title: column.hint }, column.title);
      button.addEventListener("click", () => this.sortBy(column));
      head.append(
        el(
          "th",
          { scope: "col", class: column.isText || i < 1 ? "" : "figure", "data-key": column.key },
          button,
        ),
      );
    }
    this.head = head;
    this.rows = el("tbody");
    this.status = el("p", { class: "note", role: "status" });
    this.more = el("button", { type: "button", class: "more" }, "Show more");
    this.more.addEventListener("click", () => {
      this.most += 2000;
      this.update();
    });
    const table = el(
      "table",
      {},
      el("caption", { class: "hidden" }, "Sites. A row opens to reasons, ages and stacks."),
      el("thead", {}, head),
      this.rows,
    );
    this.body.replaceChildren(el("div", { class: "tablebox" }, table), this.more, this.status);
  }

  /** @param {Column} column */
  sortBy(column) {
    if (this.sortKey === column.key) this.isDescending = !this.isDescending;
    else this.isDescending = column.key !== "verdict" && column.key !== "change" && !column.isText;
    this.sortKey = column.key;
    this.update();
  }

  /** The filtered sites, in order. @returns {number[]} */
  listed() {
    const { trace } = this;
    /** @type {number[]} */
    const sites = [];
    const isWanted = this.filterOf();
    for (let site = 0; site < trace.sites; site++) {
      if (this.verdict !== "all" && trace.verdict[site] !== Number(this.verdict)) continue;
      if (isWanted(site)) sites.push(site);
    }
    const column = this.columns.find((each) => each.key === this.sortKey) ?? this.columns[0];
    const keys = sites.map((site) => column.value(site));
    const sign = this.isDescending ? -1 : 1;
    const order = sites.map((_, i) => i);
    order.sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      if (Number.isNaN(x) || Number.isNaN(y))
        return Number(Number.isNaN(x)) - Number(Number.isNaN(y)) || a - b;
      return x < y ? -sign : x > y ? sign : a - b;
    });
    return order.map((i) => sites[i]);
  }

  /** @returns {(site: number) => boolean} */
  filterOf() {
    const { trace, frames } = this;
    const text = this.filter.value.trim();
    if (text === "") return () => true;
    if (FILTER_WORDS.has(text)) {
      return (site) =>
        text === VERDICTS[trace.verdict[site]] ||
        text === trace.text(trace.klass[site]) ||
        text === trace.text(trace.standing[site]) ||
        text === ["", "suspect", "strict"][trace.confidence[site]] ||
        (trace.change.length > 0 && text === CHANGES[trace.change[site]]);
    }
    const matches = patternOf(text);
    // Each name is matched only once, because most names occur in many stacks.
    const names = trace.columns.header.names.map((name) => matches(name));
    const hit = (/** @type {number} */ number) => number > 0 && names[number - 1];
    const frameHits = Array.from(
      frames.name,
      (name, frame) => hit(name) || hit(frames.file[frame]) || hit(frames.module[frame]),
    );
    return (site) => hit(trace.name[site]) || trace.stackOf(site).some((frame) => frameHits[frame]);
  }

  update() {
    const sites = this.listed();
    for (const cell of this.head?.children ?? []) {
      const isSorted = cell.getAttribute("data-key") === this.sortKey;
      if (isSorted) cell.setAttribute("aria-sort", this.isDescending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    const shown = sites.slice(0, this.most);
    const { selected } = this.view;
    if (selected !== null && sites.includes(selected) && !shown.includes(selected)) shown.unshift(selected);
    this.sparks?.disconnect();
    this.sparks = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        this.sparks?.unobserve(entry.target);
        entry.target.append(sparkline(this.trace, Number(entry.target.getAttribute("data-row"))));
      }
    }, { rootMargin: "200px" });
    this.rows?.replaceChildren(...shown.map((site) => this.row(site)));
    if (selected !== null) this.open(selected);
    if (this.more !== undefined) this.more.hidden = sites.length <= this.most;
    if (this.status !== undefined) this.status.textContent = this.statusText(sites.length);
  }

  /** @param {number} listed */
  statusText(listed) {
    const { trace, view } = this;
    const parts = [
      plural(listed, "site", "sites") +
        " of " +
        formatCount(trace.sites) +
        (listed > this.most ? ", " + formatCount(this.most) + " shown" : "") +
        ".",
    ];
    const { others_sites, unlisted_sites, other_sites } = trace.header;
    if (others_sites > 0) {
      parts.push(
        "The page has no room for the counters of " +
          plural(others_sites, "site", "sites") +
          ": their rows have the figures of the whole record, and in a range they are summed up.",
      );
      if (!view.isWhole) {
        const { others } = sumsOf(view);
        parts.push(
          "Together they " +
            grewBy(others.live1 - others.live0) +
            " in the range, to " +
            formatBytes(others.live1) +
            ".",
        );
      }
    }
    if (unlisted_sites > 0)
      parts.push(plural(unlisted_sites, "further site is", "further sites are") + " in the totals only.");
    if (other_sites > 0)
      parts.push(
        plural(other_sites, "site", "sites") +
          " of mapped memory or pools " +
          (other_sites === 1 ? "is" : "are") +
          " not in this table and not in its totals.",
      );
    return parts.join(" ");
  }

  /** @param {number} site @returns {HTMLTableRowElement} */
  row(site) {
    const { trace } = this;
    const row = el("tr", { "data-site": trace.ids[site], "data-row": site });
    for (const column of this.columns) {
      if (column.key === "leaked") {
        const cell = el("td", { class: "curve", "data-row": site });
        this.sparks?.observe(cell);
        row.append(cell);
      }
      row.append(this.cell(column, site));
    }
    row.addEventListener("click", (event) => {
      if (
        event.target instanceof Element &&
        event.target.closest("button, a") === null &&
        getSelection()?.isCollapsed !== false
      )
        this.toggle(site);
    });
    return row;
  }

  /** @param {Column} column @param {number} site */
  cell(column, site) {
    const { trace } = this;
    if (column.key === "verdict") {
      const kind = VERDICTS[trace.verdict[site]];
      const klass = trace.text(trace.klass[site]);
      return el(
        "td",
        { "data-key": "verdict" },
        el("span", { class: "verdict " + kind }, this.verdictText(site)),
        trace.verdict[site] === 0 ? el("span", { class: "class" }, klass + this.standingOf(site)) : null,
      );
    }
    if (column.key === "name") {
      const button = el(
        "button",
        {
          type: "button",
          class: "open",
          "aria-expanded": "false",
          title: visible(trace.nameOf(site)).slice(0, 2000),
        },
        el("bdi", { class: "name" }, shortName(trace.nameOf(site), 90)),
      );
      button.addEventListener("click", () => this.toggle(site));
      const place = visible(trace.placeOf(site));
      const module = visible(trace.text(trace.module[site]));
      return el("td", { "data-key": "name", class: "site" }, button,
        trace.kind[site] === 1 ? el("span", { class: "tag" }, "stack") : null,
        el(
          "div",
          { class: "place" },
          place === "" ? null : el("bdi", { title: place }, shortPath(place)),
          place === "" || module === "" ? null : " in ",
          module === "" ? null : el("bdi", { title: module }, baseName(module)),
        ),
      );
    }
    const value = column.value(site);
    return el(
      "td",
      {
        class: column.isText ? "change" : "figure",
        "data-key": column.key,
        "data-title": column.title,
        "data-value": Number.isNaN(value) ? null : value,
      },
      column.show(site),
    );
  }

  /** The reason why a leak fails nothing. @param {number} site */
  standingOf(site) {
    const standing = this.trace.text(this.trace.standing[site]);
    return STANDINGS.has(standing) ? ", " + standing : "";
  }

  /** @param {number} site */
  toggle(site) {
    this.view.select(this.view.selected === site ? null : site);
  }

  /** @param {number} site */
  rowOf(site) {
    return this.rows?.querySelector('tr[data-site][data-row="' + site + '"]') ?? null;
  }

  showSelected() {
    this.rows?.querySelectorAll("tr.opened").forEach((row) => row.remove());
    this.rows?.querySelectorAll("tr.selected").forEach((row) => {
      row.classList.remove("selected");
      row.querySelector(".open")?.setAttribute("aria-expanded", "false");
    });
    const { selected } = this.view;
    if (selected === null) return;
    if (this.rowOf(selected) === null) {
      this.rows?.prepend(this.row(selected));
      if (this.status !== undefined) this.status.textContent += " The first row is the selected site.";
    }
    this.open(selected);
    this.rowOf(selected)?.nextElementSibling?.scrollIntoView({ block: "nearest" });
    this.rowOf(selected)?.scrollIntoView({ block: "nearest" });
  }

  /** @param {number} site */
  open(site) {
    const row = this.rowOf(site);
    if (row === null) return;
    row.classList.add("selected");
    row.querySelector(".open")?.setAttribute("aria-expanded", "true");
    const cell = el("td", { colspan: this.columns.length + 1 }, siteDetails(this.view, this.frames, site));
    row.after(el("tr", { class: "opened" }, cell));
  }
}
