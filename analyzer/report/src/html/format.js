// Bytes, rates, durations and counts, as analyzer/text/src/units.rs prints them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** @param {number} bytes @returns {string} */
function formatBytes(bytes) {
  let value = Math.abs(bytes);
  let unit = 0;
  while (value >= 999.5 && unit + 1 < UNITS.length) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit > 0 && value < 9.95 ? 1 : 0;
  return (bytes < 0 && value !== 0 ? "−" : "") + value.toFixed(digits) + " " + UNITS[unit];
}

/** @param {number} bytes @returns {string} */
function formatGrowth(bytes) {
  return (bytes > 0 ? "+" : "") + formatBytes(bytes);
}

/** Growth in words. @param {number} bytes @returns {string} */
function grewBy(bytes) {
  return bytes === 0
    ? "did not grow"
    : (bytes > 0 ? "grew by " : "shrank by ") + formatBytes(Math.abs(bytes));
}

/** @param {number} bytesPerSecond @returns {string} */
function formatRate(bytesPerSecond) {
  /** @type {[string, number][]} */
  const times = [["s", 1], ["min", 60], ["h", 3600], ["day", 86400]];
  const fallback = bytesPerSecond === 0 ? times[0] : times[3];
  const [unit, seconds] = times.find(([, s]) => Math.abs(bytesPerSecond * s) >= 10) ?? fallback;
  return formatBytes(bytesPerSecond * seconds) + "/" + unit;
}

/** @param {number} seconds @returns {string} */
function formatDuration(seconds) {
  if (seconds < 0.9995) return (seconds * 1e3).toFixed(0) + (seconds === 0 ? " s" : " ms");
  if (seconds < 9.95 && Math.abs(seconds - Math.round(seconds)) >= 0.05) return seconds.toFixed(1) + " s";
  const whole = Math.round(seconds);
  if (whole < 60) return whole + " s";
  const [big, small] = whole < 3600
    ? [[60, "min"], [1, "s"]]
    : whole < 86400 ? [[3600, "h"], [60, "min"]] : [[86400, "d"], [3600, "h"]];
  const major = Math.floor(whole / Number(big[0]));
  const minor = Math.floor((whole % Number(big[0])) / Number(small[0]));
  return major + " " + big[1] + (minor === 0 ? "" : " " + minor + " " + small[1]);
}

/** @param {number} count @returns {string} */
function formatCount(count) {
  return Math.round(count).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number} count @param {string} one @param {string} many @returns {string} */
function plural(count, one, many) {
  return formatCount(count) + " " + (count === 1 ? one : many);
}

/** @param {number} share @returns {string} */
function formatShare(share) {
  const percent = 100 * share;
  return (percent > 0 && percent < 9.95 ? percent.toFixed(1) : percent.toFixed(0)) + " %";
}

/**
 * A name for display. Invisible characters, and characters that change the direction of text, are replaced by
 * their number.
 * @param {string} name @returns {string}
 */
function visible(name) {
  return name.replace(
    /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (c) => "⟨U+" + c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0") + "⟩",
  );
}

/**
 * The text, with the content of its outermost brackets left out. If the last closing bracket has no opening
 * bracket, as in `operator>>`, the text stays unchanged. @param {string} text @param {string} open @param
 * {string} close @returns {string}
 */
function collapsed(text, open, close) {
  let short = "";
  let depth = 0;
  for (const c of text) {
    if (c === close && depth > 0) depth--;
    if (depth === 0) short += c;
    if (c === open) depth++;
  }
  return depth === 0 ? short : text;
}

/**
 * A function's name. If the name is too long, the hash, the template arguments and the parameters are left
 * out. If the name is still too long, its middle is cut out.
 * @param {string} name @param {number} most @returns {string}
 */
function shortName(name, most) {
  let text = visible(name);
  if (text.length > most) text = text.replace(/::h[0-9a-f]{16}$/, "");
  if (text.length > most) text = collapsed(text, "<", ">");
  // If the stack is missing, the name is a text in brackets, which must not be collapsed.
  if (text.length > most && !text.startsWith("(")) text = collapsed(text, "(", ")");
  const tail = Math.floor(most / 3);
  return text.length > most
    ? text.slice(0, Math.max(1, most - 1 - tail)) + "…" + text.slice(text.length - tail)
    : text;
}

/** A path, or its end from a directory on if it is long. @param {string} path */
function shortPath(path) {
  if (path.length <= 48) return path;
  const from = path.indexOf("/", path.length - 47);
  return "…" + path.slice(from < 0 ? path.length - 47 : from);
}

/** @param {string} path @returns {string} */
function baseName(path) {
  return path.slice(path.lastIndexOf("/") + 1) || path;
}
