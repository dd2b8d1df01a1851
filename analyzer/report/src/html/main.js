// Opens the data, and replaces the static parts of the page by interactive parts.

/** @param {string} text */
function notice(text) {
  const notice = byId("notice");
  notice.textContent = text;
  notice.hidden = text === "";
}

/** The changes from the first recording to the second. @param {Columns} columns @param {View} view */
function showGone(columns, view) {
  const { gone } = view.trace.header;
  if (columns.header.traces.length !== 2 || gone.length === 0) return;
  bodyOf("sites").append(
    el("h3", {}, "Leaks of the other recording that this recording does not have"),
    el(
      "ul",
      { class: "plainlist" },
      ...gone.map((leak) => el("li", {}, nameOf(leak.name), ", was " + formatRate(leak.was))),
    ),
  );
}

/**
 * The index of the recording to show. If the address of the page names a recording, this recording is shown;
 * otherwise the last recording. @param {number} count @returns {number}
 */
function chosenTrace(count) {
  const chosen = Number(/^#recording-(\d+)$/.exec(location.hash)?.[1] ?? count);
  return chosen >= 1 && chosen <= count ? chosen - 1 : count - 1;
}

/**
 * Buttons to choose a recording. When the user chooses another recording, the page is built again.
 * @param {Columns} columns @param {number} shown
 */
function showChoice(columns, shown) {
  const { traces } = columns.header;
  if (traces.length < 2) return;
  const names = traces.map((trace, i) => trace.source || "recording " + (i + 1));
  const options = /** @type {[string, string][]} */ (names.map((name, i) => [String(i + 1), visible(name)]));
  document.querySelector("header")?.append(el("p", { id: "recordings", class: "tools" }, "Recording ",
    choice("Recording", options, String(shown + 1), (value) => {
      location.hash = "recording-" + value;
      location.reload();
    })));
}

/**
 * Shows the verdict and the leaks of a recording that the static page does not show.
 * @param {TraceHeader} header @param {number} index
 */
function showHeadline(header, index) {
  const section = byId("headline");
  const { mark, verdict, answers, missed } = header.headline;
  section.className = mark;
  const heading = section.querySelector("h2");
  if (heading !== null) heading.replaceChildren(...sentence(verdict));
  section
    .querySelector("dl")
    ?.replaceChildren(
      ...answers.flatMap(([question, pieces]) => [
        el("dt", {}, question),
        el("dd", {}, ...pieces.flatMap(([piece, isName]) => (isName ? [nameOf(piece)] : sentence(piece)))),
      ]),
    );
  byId("missed").replaceChildren(
    el("h3", {}, "What was missed?"),
    missed.length === 0
      ? el("p", {}, "Nothing.")
      : el("ul", {}, ...missed.map((line) => el("li", {}, ...sentence(line)))),
  );
  const meta = document.querySelector(".meta");
  if (meta !== null) meta.textContent = visible(header.recorded);
  for (const body of document.querySelectorAll("[data-recording]")) {
    if (!(body instanceof HTMLElement) || body.parentElement === null) continue;
    body.hidden = body.dataset.recording !== String(index);
    if (!body.hidden) body.parentElement.hidden = body.childElementCount === 0;
  }
}

/**
 * Builds the parts for one recording: the upper parts at once, and the lower parts when the returned function
 * is called.
 * @param {Columns} columns @param {Frames} frames @param {number} index
 */
function show(columns, frames, index) {
  const trace = new Trace(columns, index);
  const view = new View(trace);
  const isComparison = columns.header.traces.length === 2;
  new Timeline(view, isComparison && index === 1 ? new Trace(columns, 0) : null);
  showRange(view);
  new Sites(view, frames);
  showGone(columns, view);
  return () => {
    new Scatter(view);
    new Flame(view, frames);
  };
}

async function main() {
  if (document.getElementById("data") === null) return;
  if (typeof DecompressionStream === "undefined") {
    notice(
      "This browser cannot open the data in the page (it has no DecompressionStream): " +
        "the verdict and the leaks are shown without it.",
    );
    return;
  }
  try {
    const columns = await openData();
    const { traces } = columns.header;
    if (traces.length === 0) return;
    const shown = chosenTrace(traces.length);
    showChoice(columns, shown);
    if (shown !== traces.length - 1) showHeadline(traces[shown], shown);
    notice("");
    byId("nothing").hidden = !traces[shown].is_empty;
    byId("evidence").hidden = traces[shown].is_empty;
    for (const id of ["sites", "scatter", "flame"]) byId(id).hidden = false;
    const showRest = traces[shown].is_empty ? () => undefined : show(columns, new Frames(columns), shown);
    // A large page should react to the user before its lower half is drawn.
    document.documentElement.dataset.usable = Math.round(performance.now()).toString();
    await new Promise((done) => setTimeout(done));
    showRest();
    document.documentElement.dataset.ready = "true";
  } catch (error) {
    notice(
      "The data in the page cannot be shown (" +
        (error instanceof Error ? error.message : String(error)) +
        "): the verdict and the leaks are complete.",
    );
    throw error;
  }
}

void main();
