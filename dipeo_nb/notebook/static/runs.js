// The run history as a live table. Page → kernel: {type: "query" | "open" | "diff" | "delete", id, …}; kernel → page: the answer
// with the same id. The kernel keeps the list: the page has the rows of one page only. All text goes in by textContent; the one
// markup is the static form of a run or of a difference, which the kernel has escaped.

const COLUMNS = [
  ["status", "State", true], ["started", "Started", true], ["duration", "Took", true], ["tokens", "Tokens", false],
  ["cost", "Cost", false], ["diagram", "Diagram", true], ["model", "Model", false], ["inputs", "Inputs", false], ["note", "Note", false],
];
const SIGNS = { completed: "✓", failed: "✗", running: "▶", aborted: "■", interrupted: "!", paused: "‖" };
const NUMBERS = new Set(["duration", "tokens", "cost"]);
const ROWS = 25;

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function ago(seconds) {
  const past = Date.now() / 1000 - seconds;
  if (past < 60) return "just now";
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return new Date(seconds * 1000).toISOString().slice(0, 10);
}

const TEXTS = {
  status: (run) => `${SIGNS[run.status] ?? "?"} ${run.status}`,
  started: (run) => ago(run.started_at),
  duration: (run) => (run.duration_s == null ? "" : `${run.duration_s.toFixed(1)} s`),
  tokens: (run) => (run.tokens == null ? "" : run.tokens.toLocaleString("en")),
  cost: (run) => (run.cost_usd == null ? "" : `$${run.cost_usd.toPrecision(2)}`),
};

function render({ model, el }) {
  const QUIET = { "data-lm-suppress-shortcuts": "true" };
  const query = { text: "", status: "", sort: "started", descending: true, offset: 0, limit: ROWS };
  const chosen = new Set();
  const waiting = new Map();
  let total = 0, number = 0, timer = 0, sure = "";

  const find = element("input", { type: "search", placeholder: "Search names, inputs, answers, notes", "aria-label": "Search runs", ...QUIET });
  const state = element("select", { "aria-label": "State", ...QUIET }, element("option", { value: "" }, "all states"),
    ...Object.keys(SIGNS).map((name) => element("option", { value: name }, name)));
  const button = (text) => element("button", { type: "button", ...QUIET }, text);
  const open = button("Open"), compare = button("Compare"), remove = button("Delete");
  const bar = element("div", { class: "dipeo-runs-bar" }, find, state, open, compare, remove);
  const head = element("tr", {}), body = element("tbody", {});
  head.append(element("th", { scope: "col" }, element("span", { class: "dipeo-hidden" }, "chosen")));
  const sorts = new Map();
  for (const [name, title, sortable] of COLUMNS) {
    const cell = element("th", { scope: "col", class: NUMBERS.has(name) ? "dipeo-number" : "" });
    if (sortable) {
      const by = button(title);
      by.addEventListener("click", () => {
        query.descending = query.sort === name ? !query.descending : true;
        query.sort = name;
        query.offset = 0;
        ask();
      });
      cell.append(by);
      sorts.set(name, cell);
    } else cell.textContent = title;
    head.append(cell);
  }
  const table = element("table", {}, element("thead", {}, head), body);
  const back = button("◂ Newer"), on = button("Older ▸");
  const place = element("span", { role: "status" });
  const foot = element("div", { class: "dipeo-runs-bar" }, back, on, place);
  const shown = element("section", { "aria-label": "Opened run", hidden: "" });
  el.classList.add("dipeo-runs");
  el.append(bar, element("div", { class: "dipeo-runs-table" }, table), foot, shown);

  function send(message, answered) {
    number += 1;
    waiting.set(number, answered);
    model.send({ ...message, id: number });
    const own = number;
    setTimeout(() => { if (waiting.delete(own)) place.textContent = "The kernel does not answer: run the cell again."; }, 8000);
  }
  function received(message) {
    const answered = waiting.get(message?.id);
    if (!answered) return;
    waiting.delete(message.id);
    if (message.error) place.textContent = message.error;
    else answered(message);
  }
  function ask() {
    const asked = { ...query };
    send({ type: "query", query: asked }, (message) => {
      if (asked.text === query.text && asked.offset === query.offset) draw(message);
    });
  }
  function draw(message) {
    total = message.total;
    const focused = body.contains(document.activeElement) ? document.activeElement.value : null;
    body.replaceChildren(...message.runs.map((run) => {
      const box = element("input", { type: "checkbox", value: run.run_id, "aria-label": `${run.diagram}, ${run.short_id}`, ...QUIET });
      box.checked = chosen.has(run.run_id);
      box.addEventListener("change", () => { chosen[box.checked ? "add" : "delete"](run.run_id); buttons(); });
      const row = element("tr", {}, element("td", {}, box));
      for (const [name] of COLUMNS) {
        const cell = element("td", { class: NUMBERS.has(name) ? "dipeo-number" : "", dir: "auto" }, (TEXTS[name] ?? ((one) => one[name] ?? ""))(run));
        if (name === "started") cell.title = new Date(run.started_at * 1000).toString();
        if (name === "status") cell.dataset.status = run.status;
        if (name === "diagram") cell.title = run.run_id;
        row.append(cell);
      }
      row.addEventListener("dblclick", () => openRun(run.run_id));
      if (run.run_id === focused) queueMicrotask(() => box.focus());
      return row;
    }));
    for (const [name, cell] of sorts) {
      if (name === query.sort) cell.setAttribute("aria-sort", query.descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    const last = Math.min(query.offset + message.runs.length, total);
    place.textContent = total ? `${query.offset + 1} to ${last} of ${total.toLocaleString("en")}` : "no runs";
    buttons();
  }
  function buttons() {
    sure = "";
    remove.textContent = chosen.size ? `Delete ${chosen.size}` : "Delete";
    open.disabled = chosen.size !== 1;
    compare.disabled = chosen.size < 2;
    remove.disabled = !chosen.size;
    back.disabled = query.offset === 0;
    on.disabled = query.offset + ROWS >= total;
  }
  function show(message) {
    shown.innerHTML = message.html;
    const close = button("Close");
    close.addEventListener("click", () => { shown.hidden = true; shown.replaceChildren(); find.focus(); });
    shown.prepend(close);
    shown.hidden = false;
    close.focus();
  }
  function openRun(id) { send({ type: "open", runs: [id] }, show); }

  find.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { query.text = find.value; query.offset = 0; ask(); }, 250);
  });
  state.addEventListener("change", () => { query.status = state.value; query.offset = 0; ask(); });
  open.addEventListener("click", () => openRun([...chosen][0]));
  compare.addEventListener("click", () => send({ type: "diff", runs: [...chosen] }, show));
  remove.addEventListener("click", () => {
    const which = [...chosen].join();
    if (sure !== which) { // asked once more, in place: a dialog of the browser would stop the page
      sure = which;
      remove.textContent = `Delete ${chosen.size} for good?`;
      return;
    }
    send({ type: "delete", runs: [...chosen] }, () => { chosen.clear(); ask(); });
  });
  back.addEventListener("click", () => { query.offset = Math.max(0, query.offset - ROWS); ask(); });
  on.addEventListener("click", () => { query.offset += ROWS; ask(); });
  model.on("msg:custom", received);
  ask();
  return () => { clearTimeout(timer); model.off("msg:custom", received); };
}

export default { render };
