// Makes elements of the page. A name only becomes text, because no code of the page parses markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean | null | undefined>} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes ?? {});
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

/**
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean | null | undefined>} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {SVGElementTagNameMap[K]}
 */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  setAttributes(element, attributes ?? {});
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, string | number | boolean | null | undefined>} attributes
 */
function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, String(value));
  }
}

/** @param {string} id @returns {HTMLElement} */
function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error("the page has no #" + id);
  return element;
}

/** The part of a section that the script fills. @param {string} id @returns {HTMLElement} */
function bodyOf(id) {
  const body = byId(id).querySelector(".body");
  if (!(body instanceof HTMLElement)) throw new Error("#" + id + " has no body");
  return body;
}

/** A name, isolated from the direction of the text around it. @param {string} text @param {string} [kind] */
function nameOf(text, kind) {
  return el("bdi", { class: kind ?? "name" }, visible(text));
}

/** A sentence; words between backticks become code. @param {string} text @returns {(Node | string)[]} */
function sentence(text) {
  const parts = visible(text).split("`");
  return parts.length % 2 === 0
    ? [visible(text)]
    : parts.map((part, i) => (i % 2 === 0 ? part : el("code", {}, part)));
}

/**
 * A choice of one option: a row of buttons, of which one is pressed.
 * @param {string} label
 * @param {[string, string][]} options value and text
 * @param {string} chosen
 * @param {(value: string) => void} choose
 */
function choice(label, options, chosen, choose) {
  const group = el("span", { class: "choice", role: "group", "aria-label": label });
  for (const [value, text] of options) {
    const button = el(
      "button",
      { type: "button", "data-value": value, "aria-pressed": String(value === chosen) },
      text,
    );
    button.addEventListener("click", () => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
      choose(value);
    });
    group.append(button);
  }
  return group;
}

/** @param {string} label @param {boolean} on @param {(on: boolean) => void} change @param {string} [mark] */
function checkbox(label, on, change, mark) {
  const input = el("input", { type: "checkbox" });
  input.checked = on;
  input.addEventListener("change", () => change(input.checked));
  return el(
    "label",
    { class: "check" },
    input,
    mark === undefined ? null : el("span", { class: "key " + mark }),
    label,
  );
}

/** Calls `then` at most once per frame. @param {() => void} then @returns {() => void} */
function oncePerFrame(then) {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      then();
    });
  };
}

/** @param {Element} element @param {() => void} then called when the width changes */
function onResize(element, then) {
  let width = element.clientWidth;
  const due = oncePerFrame(then);
  new ResizeObserver(() => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    due();
  }).observe(element);
}

/**
 * Places the tip beside the pointer, inside the window.
 * @param {HTMLElement} tip @param {number} x @param {number} y
 */
function placeTip(tip, x, y) {
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 14 + width > innerWidth ? x - width - 14 : x + 14;
  tip.style.left = Math.max(4, left) + "px";
  tip.style.top = Math.max(4, Math.min(y + 14, innerHeight - height - 4)) + "px";
}
