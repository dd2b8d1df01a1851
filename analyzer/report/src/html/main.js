// Opens the data and puts the live parts in the place of the static ones.

/** @param {string} text */
function notice(text) {
  const notice = byId("notice");
  notice.textContent = text;
  notice.hidden = text === "";
}

/** What one recording gained over the other. @param {Columns} columns @param {View} view */
function showGone(columns, view) {
  const { gone } = view.trace.header;
  if (columns.header.traces.length !== 2 || gone.length === 0) return;
  bodyOf("sites").append(
    el("h3", {}, "Gone: leaks of the recording before that this one has not"),
    el("ul", { class: "plainlist" }, ...gone.map((leak) => el("li", {}, nameOf(leak.name), ", was " + formatRate(leak.was)))),
  );
}

/** The parts that belong to one recording. @param {Columns} columns @param {Frames} frames @param {number} index */
function show(columns, frames, index) {
  const trace = new Trace(columns, index);
  const view = new View(trace);
  const isComparison = columns.header.traces.length === 2;
  new Timeline(view, isComparison && index === 1 ? new Trace(columns, 0) : null);
  showRange(view);
  new Sites(view, frames);
  showGone(columns, view);
  new Scatter(view);
  new Flame(view, frames);
}

async function main() {
  if (document.getElementById("data") === null) return;
  if (typeof DecompressionStream === "undefined") {
    notice("This browser cannot open the data in the page (it has no DecompressionStream): the verdict and the leaks are shown without it.");
    return;
  }
  try {
    const columns = await openData();
    const { traces } = columns.header;
    if (traces.length === 0) return;
    show(columns, new Frames(columns), traces.length - 1);
    notice("");
    document.documentElement.dataset.ready = "true";
  } catch (error) {
    notice("The data in the page cannot be shown (" + (error instanceof Error ? error.message : String(error)) + "): the verdict and the leaks are complete.");
    throw error;
  }
}

void main();
