// Markdown as elements: headings, lists, quotes, tables, code, marks in lines. It never parses HTML, loads nothing from elsewhere, and each
// text is read once from its beginning to its end. Of one that grows, only its last block is read again, and the browser lays out only the
// last piece of that.
import { tr } from "./strings.js";
import { h } from "./words.js";

const SAFE_LINK = /^(?:https?:|mailto:)/i, INLINE_IMAGE = /^data:image\/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+$/;
const MARKED = new Set("\\`*_~[!<h");
const FENCE = /^ {0,3}(```+|~~~+) *([\w+#.-]*)/, HEADING = /^ {0,3}(#{1,6}) +(.*)/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +|$)/, QUOTE = /^ {0,3}>/;
const PIECE = 4000, PIECE_LINES = 40; // characters of a paragraph, lines of code: what is longer is several elements

/** A line of three or more dashes, stars or underscores. */
function isRule(text) {
  if (text.length > 200) return false;
  const marks = text.replaceAll(" ", "");
  return marks.length > 2 && "-*_".includes(marks[0]) && marks === marks[0].repeat(marks.length);
}
/** What stands below the head of a table. */
const isDelimiters = (text) => text.includes("-") && text.includes("|") && /^[ :|-]+$/.test(text);

/** The marks within a line of text, as nodes. @param {string} text */
export function inline(text, depth = 0) {
  const out = [];
  let plain = "", i = 0, links = text.includes("](");
  const flush = () => { if (plain) out.push(plain); plain = ""; };
  const add = (node, end) => { flush(); out.push(node); i = end; };
  while (i < text.length) {
    const c = text[i];
    if (!MARKED.has(c)) {
      const from = i++;
      while (i < text.length && !MARKED.has(text[i])) i++;
      plain += text.slice(from, i);
      continue;
    }
    if (c === "\\" && i + 1 < text.length && /[\\`*_~[\]!<>#|.(){}+-]/.test(text[i + 1])) { plain += text[i + 1]; i += 2; continue; }
    if (c === "`") {
      let ticks = 1;
      while (text[i + ticks] === "`") ticks++;
      const end = text.indexOf("`".repeat(ticks), i + ticks);
      if (end > 0) { add(h("code", {}, unpadded(text.slice(i + ticks, end))), end + ticks); continue; }
      plain += "`".repeat(ticks); i += ticks; continue;
    }
    if ((c === "*" || c === "_" || c === "~") && depth < 6) {
      const double = text[i + 1] === c, mark = double ? c + c : c;
      if (!(c === "~" && !double) && !(c === "_" && /\w/.test(text[i - 1] ?? "")) && /\S/.test(text[i + mark.length] ?? "")) {
        const end = closing(text, mark, i + mark.length);
        if (end > 0) { add(h(c === "~" ? "del" : double ? "strong" : "em", {}, inline(text.slice(i + mark.length, end), depth + 1)), end + mark.length); continue; }
      }
      plain += mark; i += mark.length; continue;
    }
    if (links && (c === "[" || (c === "!" && text[i + 1] === "["))) {
      const from = c === "!" ? i + 2 : i + 1, close = text.indexOf("](", from), end = close > 0 ? text.indexOf(")", close) : -1;
      links = close > 0; // else there is none behind either
      if (end > 0 && close - from < 1000 && end - close < 500_000) {
        const said = text.slice(from, close), target = text.slice(close + 2, end).trim().split(/ +"/)[0];
        if (c === "!" && INLINE_IMAGE.test(target)) { add(h("img", { src: target, alt: said }), end + 1); continue; }
        if (SAFE_LINK.test(target)) { add(link(target, said || target), end + 1); continue; }
      }
    }
    if (c === "<" || c === "h") {
      const found = c === "<" ? /^<(https?:[^\s<>]{1,2000})>/.exec(text.slice(i, i + 2010)) : !/\w/.test(text[i - 1] ?? "") && /^https?:\/\/[^\s<>"'`)\]]{1,2000}/.exec(text.slice(i, i + 2010));
      if (found) { const url = found[1] ?? found[0].replace(/[.,;:!?]+$/, ""); add(link(url, url), i + (found[1] ? found[0].length : url.length)); continue; }
    }
    plain += c; i++;
  }
  flush();
  return out;
}

const unpadded = (code) => (code.length > 2 && code.startsWith(" ") && code.endsWith(" ") && code.trim() ? code.slice(1, -1) : code);
const link = (target, said) => h("a", { href: target, rel: "noopener noreferrer", target: "_blank" }, said);

/** Where a mark of emphasis ends: behind a letter, and not within a word for `_`. */
function closing(text, mark, from) {
  for (let at = text.indexOf(mark, from), tries = 0; at > 0 && tries < 20; at = text.indexOf(mark, at + 1), tries++) {
    if (mark.length === 1 && (text[at + 1] === mark || text[at - 1] === mark)) { at++; continue; }
    if (/\s/.test(text[at - 1]) || (mark[0] === "_" && /\w/.test(text[at + mark.length] ?? ""))) continue;
    return at;
  }
  return -1;
}

const cells = (row) => row.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((c) => c.trim().replaceAll("\\|", "|"));

/** Parts of a long line, which end at spaces where there are any. */
function broken(text) {
  const found = [];
  let from = 0;
  while (text.length - from > PIECE) {
    const space = text.lastIndexOf(" ", from + PIECE), to = space > from ? space : from + PIECE;
    found.push(text.slice(from, to));
    from = space > from ? to + 1 : to;
  }
  return [...found, text.slice(from)];
}

/** The blocks of a text: how each begins and ends does not depend on what follows it. Long ones come in pieces.
 * @returns {{kind: string, lines: string[], more?: any, at: number, goes: boolean}[]} `at`: the line with which the block begins; `goes`: whether this is a further piece of it */
function blocks(lines) {
  const found = [];
  let i = 0;
  const add = (kind, at, pieces, more) => pieces.forEach((piece, n) => found.push({ kind, lines: piece, more, at, goes: n > 0 }));
  const past = (while_) => { const from = i++; while (i < lines.length && while_(lines[i])) i++; return from; };
  const take = (kind, while_, more) => { const from = past(while_); add(kind, from, [lines.slice(from, i)], more); };
  while (i < lines.length) {
    const text = lines[i];
    if (!text.trim()) { i++; continue; }
    const fence = FENCE.exec(text);
    if (fence) {
      const from = past((l) => !(l.trimStart().startsWith(fence[1]) && l.trim() === l.trim()[0].repeat(l.trim().length))), pieces = [lines.slice(from + 1, Math.min(i, from + 1 + PIECE_LINES))];
      for (let at = from + 1 + PIECE_LINES; at < i; at += PIECE_LINES) pieces.push(lines.slice(at, Math.min(i, at + PIECE_LINES)));
      add("code", from, pieces, fence[2]);
      i++;
    } else if (HEADING.test(text)) take("heading", () => false);
    else if (isRule(text)) take("rule", () => false);
    else if (QUOTE.test(text)) take("quote", (l) => QUOTE.test(l));
    // A table that has only just begun is one already.
    else if (text.includes("|") && (i + 1 < lines.length ? isDelimiters(lines[i + 1]) : text.trim().startsWith("|"))) take("table", (l) => l.includes("|"));
    else if (ITEM.test(text)) {
      const first = ITEM.exec(text), numbered = (item) => item !== null && /\d/.test(item[2]);
      take("list", (l) => !l.trim() || /^ +\S/.test(l) || (ITEM.test(l) && numbered(ITEM.exec(l)) === numbered(first)), first);
    } else {
      const from = past((l) => l.trim() && !FENCE.test(l) && !HEADING.test(l) && !QUOTE.test(l) && !ITEM.test(l) && !isRule(l)), pieces = [[]];
      let size = 0;
      for (const part of lines.slice(from, i).flatMap((l) => (l.length > PIECE ? broken(l) : l))) {
        if (size && size + part.length > PIECE) { pieces.push([]); size = 0; }
        pieces.at(-1).push(part);
        size += part.length;
      }
      add("text", from, pieces);
    }
  }
  return found;
}

/** @param {{kind: string, lines: string[], more?: any, goes?: boolean}} block @param {number} depth */
function element({ kind, lines, more, goes }, depth) {
  if (kind === "code") return h("pre", { tabindex: "0", role: "group", "aria-label": tr("markdown.code"), "data-lang": more || null }, h("code", {}, lines.join("\n")));
  if (kind === "heading") {
    const [, marks, said] = HEADING.exec(lines[0]);
    return h("p", { class: "dp-h", role: "heading", "aria-level": String(Math.min(6, marks.length + 3)), dir: "auto", "data-level": marks.length }, inline(said.trimEnd().replace(/ #{1,6}$/, "")));
  }
  if (kind === "rule") return h("hr");
  if (kind === "quote") return h("blockquote", { dir: "auto" }, inside(lines.map((l) => l.replace(/^ {0,3}> ?/, "")), depth));
  if (kind === "table") {
    const ends = cells(lines[1] ?? ""), row = (l, tag) => h("tr", {}, cells(l).map((c, k) => h(tag, { class: ends[k]?.endsWith(":") ? (ends[k].startsWith(":") ? "dp-mid" : "dp-right") : null, dir: "auto" }, inline(c))));
    return h("div", { class: "dp-table", tabindex: "0", role: "group", "aria-label": tr("markdown.table") }, h("table", {}, h("thead", {}, row(lines[0], "th")), h("tbody", {}, lines.slice(2).map((l) => row(l, "td")))));
  }
  if (kind === "list") return list(lines, more, depth);
  return h("p", { dir: "auto", class: goes ? "dp-goes" : null }, lines.flatMap((l, k) => [k ? (lines[k - 1].endsWith("  ") || lines[k - 1].endsWith("\\") ? h("br") : "\n") : "", ...inline(l.trim().replace(/\\$/, ""))]));
}

function list(lines, first, depth) {
  const items = [], base = first[1].length, ordered = /\d/.test(first[2]);
  for (const l of lines) {
    const m = ITEM.exec(l);
    if (m && m[1].length <= base + 1) items.push([l.slice(m[0].length)]);
    else items.at(-1).push(l.replace(/^ {1,4}/, ""));
  }
  return h(ordered ? "ol" : "ul", ordered && parseInt(first[2], 10) !== 1 ? { start: parseInt(first[2], 10) } : {}, items.map((item) => {
    const task = /^\[([ xX])\] /.exec(item[0]);
    if (task) item[0] = item[0].slice(4);
    while (item.length > 1 && !item.at(-1).trim()) item.pop();
    const made = inside(item, depth);
    const alone = made.length && made[0].tagName === "P" && !item.some((l) => !l.trim()) ? [...made[0].childNodes, ...made.slice(1)] : made;
    return h("li", { dir: "auto", class: task ? "dp-task" : null }, task && h("span", { role: "img", "aria-label": task[1] === " " ? "open" : "done" }, task[1] === " " ? "☐ " : "☑ "), alone);
  }));
}

/** Puts a block at the end of `box`. A further piece of code goes into the block that it is of. @returns {HTMLElement} */
function laid(box, block, depth) {
  const open = block.goes && block.kind === "code" ? box.lastElementChild : box, el = open === box ? element(block, depth) : h("code", {}, block.lines.join("\n"));
  if (open !== box) open.lastElementChild.append("\n");
  open.append(el);
  return el;
}

/** Takes away what `laid` put there last. */
function unlaid(el) {
  if (el.tagName === "CODE") el.previousElementSibling.lastChild.remove();
  el.remove();
}

function inside(lines, depth) {
  if (depth > 8) return [h("p", {}, lines.join("\n"))];
  const box = h("div", {});
  for (const block of blocks(lines)) laid(box, block, depth + 1);
  return [...box.childNodes];
}

const sourceOf = ({ kind, lines, more, goes }) => `${kind} ${goes} ${kind === "code" ? more : ""} ${lines.join("\n")}`;

/** Shows a text that may grow: only blocks that have changed are made anew, so that a selection in the others stays. */
export class Markdown {
  el = h("div", { class: "dp-md" });
  #made = []; // {source, el} of each piece that is shown
  #text = "";
  #from = 0; // where the last block begins: what stands before it stays as it is
  #kept = 0; // pieces before it
  more = false; // whether there is more to show than was asked for at once
  #caret = h("span", { class: "dp-caret", "aria-hidden": "true" });

  /** @param {string} text @param {boolean} [caret] whether more is on its way @param {number} [most] pieces that are made at once; the next call makes more */
  show(text, caret = false, most = Infinity) {
    this.#caret.remove();
    if (!text.startsWith(this.#text)) this.#from = this.#kept = 0;
    this.#text = text;
    const rest = text.slice(this.#from), lines = rest.replaceAll("\r\n", "\n").split("\n"), wanted = blocks(lines);
    let same = 0;
    for (const source of wanted.map(sourceOf)) {
      if (this.#made[this.#kept + same]?.source !== source) break;
      same++;
    }
    for (const { el } of this.#made.splice(this.#kept + same).reverse()) unlaid(el);
    const shown = wanted.slice(0, same + most);
    this.more = shown.length < wanted.length;
    for (const block of shown.slice(same)) this.#made.push({ source: sourceOf(block), el: laid(this.el, block, 0) });
    const last = shown.findLastIndex((block) => !block.goes && block.at < lines.length - 1); // a line that is not whole may yet belong to the block before
    if (last > 0 && !rest.includes("\r")) {
      for (const line of lines.slice(0, wanted[last].at)) this.#from += line.length + 1;
      this.#kept += last;
    }
    if (caret && !this.more) this.#end().append(this.#caret);
    return this;
  }

  #end() {
    let end = this.el;
    while (end.lastElementChild && /^(DIV|P|UL|OL|LI|BLOCKQUOTE|TABLE|TBODY|TR|TD|TH|PRE|CODE)$/.test(end.lastElementChild.tagName) && (end === this.el || end.lastElementChild === end.lastChild)) end = end.lastElementChild;
    return end;
  }
}

/** A text as elements. @param {string} text */
export const markdown = (text) => new Markdown().show(text).el;
