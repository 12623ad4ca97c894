// Numbers and small helpers for the DOM.
import { STRINGS, tr } from "./strings.js";

/** Name of a status. @param {string} status */
export const word = (status) => STRINGS[`status.${status}`] ?? status;

/** An element. Texts become text nodes: nothing that a model or a diagram says is ever parsed as HTML.
 * @param {string} tag @param {Object<string, any>} [props] @param {...any} children @returns {any} */
export function h(tag, props, ...children) {
  const el = document.createElement(tag);
  // Before `dir`: with it, each child would have the direction of all that is there worked out again.
  el.append(...children.flat(Infinity).filter((c) => c != null && c !== false));
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value == null || value === false) continue;
    if (name === "style") el.style.cssText = value; // an attribute would need more of the page's policy
    else if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else el.setAttribute(name, value === true ? "" : String(value));
  }
  return el;
}

/** A shape of lines or areas, on a grid of `size`. @param {string} path */
export function icon(path, size = 12, name = "dp-ic") {
  const NS = "http://www.w3.org/2000/svg", svg = document.createElementNS(NS, "svg"), shape = document.createElementNS(NS, "path");
  svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
  svg.setAttribute("class", name);
  svg.setAttribute("aria-hidden", "true");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

/** Follows the pointer until it is let go. @param {(e: PointerEvent) => void} move @param {(e: PointerEvent) => void} [done] */
export function followPointer(move, done) {
  const end = (e) => {
    removeEventListener("pointermove", move);
    removeEventListener("pointerup", end);
    removeEventListener("pointercancel", end);
    done?.(e);
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", end);
  addEventListener("pointercancel", end);
}

/** What has the focus in the tree that `el` is in: of a shadow root, the document knows only its host. @param {Node} el */
export const focusedIn = (el) => el.getRootNode().activeElement ?? null;

/** Writes only what differs, so that nothing flickers and selections stay. */
export function put(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

/** Sets an attribute only when it differs; null removes it. */
export function mark(el, name, value) {
  if (value == null || value === false) { if (el.hasAttribute(name)) el.removeAttribute(name); return; }
  const text = value === true ? "" : String(value);
  if (el.getAttribute(name) !== text) el.setAttribute(name, text);
}

/** @param {number} s */
export function seconds(s) {
  if (s < 0.0005) return "0 s";
  if (s < 0.0995) return `${Math.round(s * 1000)} ms`;
  if (s < 59.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s), two = (n) => String(n).padStart(2, "0");
  return whole < 3600 ? `${Math.floor(whole / 60)}:${two(whole % 60)} min` : `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)} h`;
}

/** @param {number} n */
export const tokens = (n) => (n < 10000 ? n.toLocaleString("en") : n < 999950 ? `${(n / 1000).toFixed(1)}k` : n < 999.95e6 ? `${(n / 1e6).toFixed(1)}M` : `${(n / 1e9).toFixed(1)}B`);

/** A sum of money; `least` decimals, more for small ones. @param {number|null|undefined} usd */
export const money = (usd) => (usd == null ? "–" : usd === 0 ? "$0" : usd < 0.000005 ? "<$0.00001" : usd < 0.01 ? `$${usd.toFixed(5)}` : `$${usd.toFixed(usd < 100 ? 3 : 2)}`);

/** How much is done: "3 of 10", "40 of 93 MB". @param {{done: number, total: number, bytes: boolean}} share */
export function howFar({ done, total, bytes }) {
  if (!bytes) return tr("of", { done, total });
  const [size, unit, digits] = total < 1e9 ? [1e6, "MB", 0] : [1e9, "GB", 1];
  return `${tr("of", { done: (done / size).toFixed(digits), total: (total / size).toFixed(digits) })} ${unit}`;
}

/** "1 event", "2 events". @param {number} n @param {string} what the end of a key */
export const count = (n, what) => tr(`${n === 1 ? "one" : "many"}.${what}`, { n: n.toLocaleString("en") });

/** Whether a value came without its end. */
export const isCut = (value) => value !== null && typeof value === "object" && typeof value.$cut === "number";

/** A value as text: text as it is, what was cut with an ellipsis, all else as JSON. @param {any} value */
export function textOf(value) {
  if (typeof value === "string") return value;
  if (value == null) return "";
  if (isCut(value)) return `${value.text}…`;
  return JSON.stringify(value, (_, inner) => (isCut(inner) ? `${inner.text}…` : inner), 2);
}

/** Markdown without its marks of emphasis, for lines and for comparing words. @param {string} text */
export const unmarked = (text) => text.replace(/\*\*|`/g, "");

/** The first line of a text, at most `limit` characters. */
export function line(text, limit = 160) {
  const flat = text.slice(0, limit * 4).replace(/\s+/g, " ").trim();
  return flat.length > limit ? `${flat.slice(0, limit - 1)}…` : flat;
}
