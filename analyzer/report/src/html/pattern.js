// The patterns of suppression files. A pattern matches if it occurs anywhere in a name. `*` stands for any
// text, and `^` and `$` match the start and the end of the name.

/**
 * @param {string} text
 * @returns {(name: string) => boolean}
 */
function patternOf(text) {
  text = text.trim().replace(/^leak:/, "").trim();
  const atStart = text.startsWith("^");
  if (atStart) text = text.slice(1);
  const atEnd = text.endsWith("$");
  if (atEnd) text = text.slice(0, -1);
  const pieces = text.split("*");
  const last = pieces[pieces.length - 1];
  const before = pieces.slice(0, -1);
  return (name) => {
    let at = 0;
    for (const [i, piece] of before.entries()) {
      if (i === 0 && atStart) {
        if (!name.startsWith(piece)) return false;
        at = piece.length;
      } else {
        const found = name.indexOf(piece, at);
        if (found < 0) return false;
        at = found + piece.length;
      }
    }
    const rest = name.slice(at);
    if (atStart && before.length === 0) return atEnd ? rest === last : rest.startsWith(last);
    return atEnd ? rest.endsWith(last) : rest.includes(last);
  };
}

/** The reasons why a leak does not fail the gate: baseline, suppression, budget. */
const STANDINGS = new Set(["known", "suppressed", "tolerated"]);

/** Words that filter by verdict or class instead of by name. */
const FILTER_WORDS = new Set([
  "leak", "undecided", "no-leak", "suspect", "strict", "constant", "log", "linear", "exp", "new", "faster",
  "slower", "same",
  ...STANDINGS,
]);
