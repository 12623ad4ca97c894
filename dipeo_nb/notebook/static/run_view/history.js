// The history of runs as a table: sorted, filtered, searched, a page of rows at a time. A run opens below it, in its own view, as many as one
// likes; two that are chosen are compared there.
import { createComparison } from "./comparison.js";
import { tr } from "./strings.js";
import { count, focusedIn, h, line, mark, money, put, seconds, tokens, word } from "./words.js";

const COLUMNS = ["diagram", "status", "started", "duration", "tokens", "cost", "model", "inputs", "note"];
const SORTED = new Set(["status", "started", "duration", "diagram"]), NUMBERS = new Set(["duration", "tokens", "cost"]);
const STATES = ["completed", "failed", "running", "aborted", "interrupted", "paused"];
const ROWS = 25, TYPING_MS = 250, REFRESH_MS = 2000; // while a run that is shown goes on, its row is asked for again, and what could not be answered

function ago(at) {
  const past = Date.now() / 1000 - at;
  if (past < 60) return tr("history.now");
  if (past < 3600) return tr("history.minutes", { n: Math.floor(past / 60) });
  if (past < 86400) return tr("history.hours", { n: Math.floor(past / 3600) });
  return new Date(at * 1000).toISOString().slice(0, 10);
}
const CELL = {
  status: (run) => word(run.status),
  started: (run) => ago(run.started_at),
  duration: (run) => (run.duration_s == null ? "" : seconds(run.duration_s)),
  tokens: (run) => (run.tokens == null ? "" : tokens(run.tokens)),
  cost: (run) => (run.cost_usd == null ? "" : money(run.cost_usd)),
};

/** @typedef {{query(query: Object): Promise<{total: number, runs: Object[]}>, compared(before: string, after: string): Promise<Object>, remove(runs: string[]): Promise<any>,
 *   open(run: string, place: HTMLElement, opened: (run: string) => void): Promise<{close(): void, focus?(): void}>}} Host `open` shows a run in `place`. */

/** @param {HTMLElement} root @param {Host} host @param {string|null} [theme] */
export function createHistory(root, host, theme = null) {
  const query = { text: "", status: "", sort: "started", descending: true, offset: 0, limit: ROWS };
  const chosen = new Set(), opened = new Map(); // ids; what is open below: key → {el, close}
  let total = 0, runs = [], typing = 0, again = 0, sure = "", asked = 0, over = false;

  const find = h("input", { type: "search", class: "dp-field", placeholder: tr("history.placeholder"), "aria-label": tr("history.find") });
  const state = h("select", { class: "dp-field", "aria-label": tr("history.state") }, h("option", { value: "" }, tr("history.states")), STATES.map((name) => h("option", { value: name }, word(name))));
  const button = (text, act) => h("button", { type: "button", class: "dp-btn", onclick: act }, text);
  const open = button(tr("history.open"), () => { for (const id of chosen) openRun(id); }), compare = button(tr("history.compare"), () => compareRuns(...inOrder())), remove = button(tr("history.delete"), () => removeRuns());
  const newer = button(tr("history.newer"), () => turnTo(query.offset - ROWS)), older = button(tr("history.older"), () => turnTo(query.offset + ROWS));
  const said = h("span", { role: "status", class: "dp-dim" }), wrong = h("span", { role: "alert", class: "dp-bad" });
  const heads = new Map(COLUMNS.map((name) => [name, h("th", { scope: "col", class: NUMBERS.has(name) ? "dp-num" : null }, SORTED.has(name) ? h("button", { type: "button", onclick: () => sortBy(name) }, tr(`column.${name}`)) : tr(`column.${name}`))]));
  const body = h("tbody"), table = h("div", { class: "dp-history-rows", tabindex: "0", role: "group", "aria-label": tr("history.label") }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "dp-sr" }, tr("history.chosen"))), [...heads.values()])), body));
  const el = h("section", { class: "dp-run dp-history", "aria-label": tr("history.label"), "data-lm-suppress-shortcuts": "true", "data-theme": theme },
    h("div", { class: "dp-history-bar" }, find, state, open, compare, remove), table, h("div", { class: "dp-history-bar" }, newer, older, said, wrong));
  const below = h("div", { class: "dp-opened" });
  root.append(el, below);

  /** What comes of `asking`; null when it fails, which is said then. */
  async function tried(asking) {
    try {
      const found = await asking();
      put(wrong, "");
      return found;
    } catch (error) {
      put(wrong, error.message);
      return null;
    }
  }
  async function ask() {
    clearTimeout(again);
    const number = ++asked, found = await tried(() => host.query({ ...query }));
    if (over || number !== asked) return; // another question has been asked since
    if (found) { [total, runs] = [found.total, found.runs]; draw(); }
    if (!found || runs.some((run) => run.status === "running" || run.status === "pending")) again = setTimeout(ask, REFRESH_MS);
  }
  function draw() {
    const held = focusedIn(body), focused = body.contains(held) ? [held.closest("tr").dataset.run, held.dataset.part] : null;
    body.replaceChildren(...runs.map((run) => {
      const named = `${line(run.diagram, 60)}, ${run.short_id}`, box = h("input", { type: "checkbox", "data-part": "box", "aria-label": named, onchange: () => { chosen[box.checked ? "add" : "delete"](run.run_id); buttons(); } });
      box.checked = chosen.has(run.run_id);
      return h("tr", { "data-run": run.run_id, "data-status": run.status, ondblclick: () => openRun(run.run_id), onmousedown: (e) => { if (e.detail > 1) e.preventDefault(); } }, h("td", {}, box), COLUMNS.map((name) => {
        const text = (CELL[name] ?? ((one) => one[name] ?? ""))(run);
        if (name === "diagram") return h("td", {}, h("button", { type: "button", class: "dp-link dp-clip", "data-part": "open", dir: "auto", title: run.run_id, "aria-label": tr("history.open.run", { name: named }), onclick: () => openRun(run.run_id) }, text));
        return h("td", { class: NUMBERS.has(name) ? "dp-num" : "dp-clip", dir: NUMBERS.has(name) ? null : "auto", title: name === "started" ? new Date(run.started_at * 1000).toString() : text.length > 20 ? text : null }, text);
      }));
    }));
    if (focused) partOf(...focused)?.focus({ preventScroll: true });
    for (const [name, cell] of heads) mark(cell, "aria-sort", name === query.sort ? (query.descending ? "descending" : "ascending") : null);
    put(said, total ? tr("history.rows", { first: query.offset + 1, last: Math.min(query.offset + runs.length, total), total: total.toLocaleString("en") }) : tr("history.none"));
    buttons();
  }
  /** What stands in the row of a run now: rows are made anew. */
  const partOf = (id, part) => [...body.querySelectorAll(`[data-part="${part}"]`)].find((one) => one.closest("tr").dataset.run === id);
  function buttons() {
    sure = "";
    put(remove, chosen.size ? tr("history.delete.some", { runs: count(chosen.size, "run") }) : tr("history.delete"));
    open.disabled = remove.disabled = !chosen.size;
    compare.disabled = chosen.size !== 2;
    newer.disabled = query.offset === 0;
    older.disabled = query.offset + ROWS >= total;
  }
  function turnTo(offset) { query.offset = Math.max(0, offset); ask(); }
  function sortBy(name) { query.descending = query.sort === name ? !query.descending : true; query.sort = name; turnTo(0); }
  /** The two that are chosen, the older one first. */
  function inOrder() {
    const began = (id) => runs.find((run) => run.run_id === id)?.started_at ?? 0;
    return [...chosen].sort((a, b) => began(a) - began(b));
  }

  /** A place below the table with a button that closes it; null when it is open already, and then has the focus. */
  function room(key, label, before) {
    const known = opened.get(key);
    if (known) { known.el.querySelector("button").focus(); return null; }
    const place = h("div", { class: "dipeo-place" }), shut = h("button", { type: "button", class: "dp-tool", "aria-label": tr("history.close", { name: label }), title: tr("history.close", { name: label }), onclick: () => { close(); (before() ?? find).focus(); } }, "✕");
    const entry = { el: h("div", { class: "dp-opened-one" }, h("div", { class: "dp-run dp-opened-bar", "data-theme": theme, "data-lm-suppress-shortcuts": "true" }, h("span", { class: "dp-clip", dir: "auto" }, label), shut), place), place, shown: null };
    const close = () => { opened.delete(key); entry.shown?.close(); entry.el.remove(); };
    entry.close = close;
    opened.set(key, entry);
    below.append(entry.el);
    shut.focus({ preventScroll: true });
    entry.el.scrollIntoView({ block: "nearest" });
    return entry;
  }
  async function openRun(id) {
    const run = runs.find((one) => one.run_id === id), entry = room(id, run ? `${line(run.diagram, 60)} · ${run.short_id}` : id, () => partOf(id, "open"));
    if (!entry) return;
    const shown = await tried(() => host.open(id, entry.place, openRun));
    if (!shown) entry.close();
    else if (opened.get(id) === entry) entry.shown = shown;
    else shown.close();
  }
  async function compareRuns(before, after) {
    const facts = await tried(() => host.compared(before, after)), entry = facts && room(`${before} ${after}`, tr("compare.label", { name: facts.names[1] }), () => compare);
    if (!entry) return;
    const comparison = createComparison(entry.place, { facts, theme, back: tr("history.back"), close: () => { entry.close(); compare.focus(); } });
    entry.shown = { close: () => comparison.dispose() };
  }
  async function removeRuns() {
    const which = [...chosen].join();
    if (sure !== which) { // asked once more, in place: a dialog of the browser would stop the page
      sure = which;
      put(remove, tr("history.delete.sure", { runs: count(chosen.size, "run") }));
      return;
    }
    const gone = [...chosen];
    if (await tried(() => host.remove(gone)) === null) { buttons(); return; }
    for (const id of gone) opened.get(id)?.close();
    chosen.clear();
    find.focus();
    ask();
  }

  find.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => { query.text = find.value; turnTo(0); }, TYPING_MS); });
  state.addEventListener("change", () => { query.status = state.value; turnTo(0); });
  el.addEventListener("keydown", (e) => { if (!(e.ctrlKey || e.metaKey || e.altKey || e.key === "Tab")) e.stopPropagation(); }); // Lab's keys of one letter
  ask();
  return { dispose() { over = true; clearTimeout(typing); clearTimeout(again); for (const one of [...opened.values()]) one.close(); el.remove(); below.remove(); } };
}
