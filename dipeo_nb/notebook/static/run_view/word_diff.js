// What has changed between two texts, word by word.
import { h } from "./words.js";

const MOST_PAIRS = 4_000_000; // pairs of words that are compared

/** @returns {["same"|"out"|"in", string][]} @param {string} before @param {string} after */
export function wordDiff(before, after) {
  let a = before.split(/(?<=\s)(?=\S)/), b = after.split(/(?<=\s)(?=\S)/), head = 0, tail = 0;
  const equal = (x, y) => x.trim() === y.trim();
  while (head < a.length && head < b.length && equal(a[head], b[head])) head++;
  while (tail < a.length - head && tail < b.length - head && equal(a[a.length - 1 - tail], b[b.length - 1 - tail])) tail++;
  const out = [], add = (kind, words) => { if (words.length) { if (out.at(-1)?.[0] === kind) out.at(-1)[1] += words.join(""); else out.push([kind, words.join("")]); } };
  const end = b.slice(b.length - tail);
  add("same", b.slice(0, head));
  a = a.slice(head, a.length - tail);
  b = b.slice(head, b.length - tail);
  if (a.length * b.length > MOST_PAIRS) { add("out", a); add("in", b); } else {
    const wide = b.length + 1, longest = new Uint16Array((a.length + 1) * wide);
    for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) {
      longest[i * wide + j] = equal(a[i], b[j]) ? longest[(i + 1) * wide + j + 1] + 1 : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
    }
    for (let i = 0, j = 0; i < a.length || j < b.length;) {
      if (i < a.length && j < b.length && equal(a[i], b[j])) { add("same", [b[j]]); i++; j++; }
      else if (i < a.length && (j >= b.length || longest[(i + 1) * wide + j] >= longest[i * wide + j + 1])) add("out", [a[i++]]);
      else add("in", [b[j++]]);
    }
  }
  add("same", end);
  return out;
}

/** Both texts as one: what is gone struck through, what is new underlined. */
export const diffed = (before, after) => h("div", { class: "dp-words", dir: "auto" }, wordDiff(before, after).map(([kind, text]) => (kind === "same" ? text : h(kind === "in" ? "ins" : "del", {}, text))));
