// A text that grows, as it was written. It stands in pieces, of which the browser lays out only the last one anew.
import { h } from "./words.js";

const LENGTH = 4000; // characters of a piece

/** Where the piece that begins at `from` ends: behind a line, a word, else anywhere. */
function endOf(text, from) {
  const most = from + LENGTH;
  if (text.length <= most) return text.length;
  for (const mark of ["\n", " "]) {
    const at = text.lastIndexOf(mark, most);
    if (at > from) return at + 1;
  }
  return most;
}

export class Growing {
  #text = "";
  #from = 0; // where the last piece begins

  /** @param {HTMLElement} el holds the text and nothing else */
  constructor(el) { this.el = el; }

  /** @param {string} text */
  show(text) {
    if (text === this.#text) return this;
    if (!text.startsWith(this.#text)) {
      this.el.replaceChildren();
      this.#text = "";
      this.#from = 0;
    }
    let known = this.#text.length, last = this.el.lastElementChild;
    for (;;) {
      const end = endOf(text, this.#from);
      if (!last) { last = this.el.appendChild(h("span", { class: "dp-piece" }, "")); known = this.#from; }
      if (end > known) last.append(text.slice(known, end));
      else if (end < known) last.textContent = text.slice(this.#from, end); // more has come, and so it ends with a line
      last.normalize();
      if (end === text.length) break;
      this.#from = end;
      last = null;
    }
    this.#text = text;
    return this;
  }
}
