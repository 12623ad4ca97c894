// The event log: closed it is one line, open a table with filters and payloads; beside it the running text for screen readers.
import { STRINGS, tr } from "./strings.js";
import { count, focusedIn, h, line, mark, put, seconds, textOf, tokens, unmarked, word } from "./words.js";

const KINDS = [["", tr("log.all")], ["node_", tr("log.nodes")], ["node_output", tr("log.outputs")], ["error", tr("log.failures")], ["interactive", tr("log.questions")], ["execution_log", tr("log.lines")], ["run_note", tr("log.notes")]];
const SAID_AT_ONCE = 5, SAID_KEPT = 40;
const ROW = 24; // pixels; only rows in sight are elements

/** An event in one line of words. @param {import("./fold.js").Row} row @param {(id: string) => string} label */
export function said([, type, , id, p], label) {
  const who = id === null ? tr("log.run") : label(id), run = p.run > 1 ? ` ${tr("log.turn", { run: p.run })}` : "";
  switch (type) {
    case "node_output": {
      const text = line(unmarked(textOf(p.text)), 120);
      if (p.kind === "tool") return p.step === "call" ? `${tr("log.calls", { who })} ${text} ${line(textOf(p.data?.arguments), 80)}` : `${tr("log.returned", { who, tool: p.data?.name ?? tr("log.tool") })}: ${text}`;
      if (p.kind === "run") return `${tr("log.begins", { who, run: p.data?.diagram ?? tr("log.child") })}${p.data?.index ? `, ${tr("log.item", { n: p.data.index + 1 })}` : ""}`;
      if (p.kind === "usage") return tr("log.paid", { who });
      return `${who} ${STRINGS[`does.${p.kind}`] ?? p.kind}${text ? `: ${text}` : ""}`;
    }
    case "node_waiting": return tr("log.waits", { who }) + run;
    case "node_started": return tr("log.starts", { who }) + run + (p.attempt > 1 ? `, ${tr("log.attempt", { n: p.attempt })}` : "");
    case "node_completed": {
      if (p.status === "maxiter_reached") return tr("log.used", { who });
      const usage = p.meta?.usage, spent = usage ? (usage.input ?? 0) + (usage.output ?? 0) : 0;
      return [tr("log.done", { who }) + run, p.meta?.branch && `→ ${p.meta.branch.replace("cond", "")}`, p.duration_ms > 9 && seconds(p.duration_ms / 1000), spent && `${tokens(spent)} ${tr("tok")}`].filter(Boolean).join(" · ");
    }
    case "node_error": return `${tr("log.fails", { who })}${run}: ${line(textOf(p.error?.message), 200)}`;
    case "execution_error": return `${who} ${word(p.status ?? "failed")}: ${line(textOf(p.error?.message), 200)}`;
    case "execution_started": return tr("resumed" in p ? "log.resumed" : "log.starts", { who });
    case "execution_completed": return tr("log.done", { who });
    case "execution_log": return `${id === null ? "" : `${who}: `}${line(textOf(p.message), 200)}`;
    case "interactive_prompt": return `${tr("log.asks", { who })}: ${line(unmarked(textOf(p.prompt)), 200)}`;
    case "interactive_response": return `${tr("log.answered", { who })}: ${line(textOf(p.answer), 200)}`;
    case "left_out": return tr("log.left", { from: p.from.toLocaleString("en") });
    case "run_note": return `${tr("note")}: ${line(textOf(p.text), 200)}`;
    default: return `${who} ${type.replaceAll("_", " ")}`;
  }
}

/** The rows of the log as lines: pieces of one text that come one after the other from a node are one line. */
export class Lines {
  all = [];
  #rows = 0;
  #open = new Map(); // node → its line that is being continued

  /** Takes in what is new. @param {import("./recording.js").Recording} log */
  follow(log) {
    if (log.count < this.#rows) { this.all = []; this.#rows = 0; this.#open.clear(); }
    for (; this.#rows < log.count; this.#rows++) {
      const row = log.rows[this.#rows], [seq, type, , id, p] = row, piece = type === "node_output" && (p.kind === "text" || p.kind === "reasoning" || p.kind === "stdout") ? p.kind : null;
      const open = this.#open.get(id);
      if (piece && open?.piece === piece && !p.restart) { open.rows.push(this.#rows); open.to = seq; open.n += p.pieces ?? 1; continue; }
      const made = { seq, to: seq, at: this.#rows, time: log.times[this.#rows], type, id, piece, n: p.pieces ?? 1, rows: piece ? [this.#rows] : null };
      this.all.push(made);
      if (piece) this.#open.set(id, made);
      else this.#open.delete(id);
    }
  }

  /** All the text of a line that stands for pieces. */
  static text(log, one) { return one.rows.map((i) => textOf(log.rows[i][4].text)).join(""); }

  static words(log, one, label) {
    const row = log.rows[one.at];
    if (!one.piece || one.rows.length === 1) return said(row, label);
    let beginning = "";
    for (let i = 0; i < one.rows.length && beginning.length < 140; i++) beginning += textOf(log.rows[one.rows[i]][4].text);
    return `${label(one.id)} ${STRINGS[`does.${one.piece}`]} · ${count(one.n, "piece")}: ${line(unmarked(beginning), 120)}`;
  }
}

export function eventLog(view) {
  const number = h("span", { class: "dp-count" }), last = h("span", { class: "dp-last", dir: "auto" }), lastTime = h("span", { class: "dp-num dp-dim" });
  const kind = h("select", { "aria-label": tr("log.kind") }, KINDS.map(([value, text]) => h("option", { value }, text))), node = h("select", { "aria-label": tr("log.node") }, h("option", { value: "" }, tr("log.everyone")));
  const find = h("input", { type: "search", placeholder: tr("log.placeholder"), "aria-label": tr("log.find") }), found = h("span", { class: "dp-dim dp-num", role: "status" });
  const space = h("div", { class: "dp-space" }), list = h("div", { class: "dp-rows", tabindex: "0", role: "group", "aria-label": tr("log.events") }, space), payload = h("div", { class: "dp-payload", hidden: true });
  const details = h("details", { class: "dp-log" }, h("summary", {}, h("span", { class: "dp-log-name" }, tr("log.title")), number, lastTime, last), h("div", { class: "dp-filters" }, kind, node, find, found), list, payload);
  const spoken = h("div", { class: "dp-sr", role: "log", "aria-live": "polite", "aria-label": tr("log.spoken") });
  const lines = new Lines();
  let shown = [], drawn = "", searched = "", heard = null, opened = null, known = "";

  for (const filter of [kind, node, find]) filter.addEventListener("input", () => view.draw());
  details.addEventListener("toggle", () => view.draw());
  list.addEventListener("scroll", () => paint(true));
  list.addEventListener("keydown", (e) => {
    const within = e.target !== list, page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1), top = Math.ceil(list.scrollTop / ROW), side = { ArrowLeft: "dp-jump", ArrowRight: "dp-what" }[e.key];
    const at = within ? shown.findIndex((one) => String(one.seq) === e.target.dataset.seq) : -1;
    const to = { ArrowDown: within ? at + 1 : top, ArrowUp: within ? at - 1 : top, PageDown: within ? at + page : top + page, PageUp: within ? at - page : top, Home: 0, End: shown.length - 1 }[e.key] ?? (within && side ? at : undefined);
    if (to === undefined || !shown.length || e.ctrlKey || e.metaKey || e.altKey) return;
    goTo(Math.min(Math.max(0, to), shown.length - 1), side ?? (within ? e.target.classList[0] : "dp-what"));
    e.preventDefault();
    e.stopPropagation();
  });
  let current = null;

  function update(frame) {
    const { s, log, newest, position } = frame, label = (id) => view.label(newest, id);
    current = frame;
    lines.follow(log);
    const at = log.rows[position - 1];
    put(number, log.count ? newest.seq.toLocaleString("en") : "");
    put(last, at ? said(at, label) : tr("log.none"));
    put(lastTime, at ? `${log.times[position - 1].toFixed(1)} s` : "");
    speak(frame, label);
    if (!details.open) return;
    const names = [...newest.labels].map(([id, name]) => `${id}\n${name}`).join("\n");
    if (known !== names) { known = names; node.replaceChildren(h("option", { value: "" }, tr("log.everyone")), ...[...newest.labels].map(([id]) => h("option", { value: id }, label(id)))); }
    const key = `${lines.all.length} ${lines.all.at(-1)?.to} ${kind.value} ${node.value} ${find.value}`;
    if (searched !== key) {
      searched = key;
      const wanted = find.value.trim().toLowerCase();
      shown = lines.all.filter((one) => (!kind.value || one.type.includes(kind.value)) && (!node.value || one.id === node.value) && (!wanted || has(log, one, wanted, label)));
      put(found, wanted || kind.value || node.value ? count(shown.length, "event") : "");
      drawn = "";
    }
    paint(false);
  }

  const has = (log, one, wanted, label) => (one.piece ? Lines.text(log, one) : `${Lines.words(log, one, label)} ${JSON.stringify(log.rows[one.at][4])}`).toLowerCase().includes(wanted);

  /** Brings a row into sight, and the focus to one of its buttons: one stop of Tab leads to all of them. */
  function goTo(index, button) {
    if (index * ROW < list.scrollTop) list.scrollTop = index * ROW;
    else if ((index + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (index + 1) * ROW - list.clientHeight;
    paint(true);
    space.querySelector(`.${button}[data-seq="${shown[index].seq}"]`)?.focus({ preventScroll: true });
  }

  /** Only the rows in sight are there. */
  function paint(scrolled) {
    if (!current || !details.open) return;
    const { s, log, newest } = current, label = (id) => view.label(newest, id), now = shown.findLastIndex((one) => one.seq <= s.seq);
    const top = list.scrollTop;
    if (!scrolled && list.dataset.now !== String(now)) {
      list.dataset.now = String(now);
      if (!list.contains(focusedIn(list)) && (now * ROW < top || (now + 1) * ROW > top + list.clientHeight)) list.scrollTop = Math.max(0, now * ROW - list.clientHeight / 2);
    }
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4), past = Math.min(shown.length, first + Math.ceil((list.clientHeight || 208) / ROW) + 8);
    const key = `${searched} ${first} ${past} ${now} ${opened?.seq}`;
    if (drawn === key) return;
    drawn = key;
    space.style.height = `${shown.length * ROW}px`;
    const held = focusedIn(list), focused = list.contains(held) ? `${held.getAttribute("data-seq")} ${held.className}` : null;
    space.replaceChildren(...shown.slice(first, past).map((one, i) => h("div", { class: "dp-event", style: `top:${(first + i) * ROW}px`, "data-type": one.type, "data-now": first + i === now, "data-later": first + i > now },
      h("button", { type: "button", tabindex: "-1", class: "dp-jump dp-num", "data-seq": one.seq, "aria-label": tr("log.go", { seq: one.to }), onclick: () => view.seek(one.to) }, String(one.to)),
      h("button", { type: "button", tabindex: "-1", class: "dp-what", "data-seq": one.seq, "aria-expanded": String(opened === one), onclick: () => open(one) }, h("span", { class: "dp-num dp-dim" }, one.time.toFixed(2)), h("span", { class: "dp-type" }, STRINGS[`event.${one.type}`] ?? one.type.replaceAll("_", " ")), h("span", { class: "dp-clip", dir: "auto" }, Lines.words(log, one, label))))));
    if (focused) ([...space.querySelectorAll("button")].find((b) => `${b.getAttribute("data-seq")} ${b.className}` === focused) ?? list).focus({ preventScroll: true });
  }

  function open(one) {
    opened = opened === one ? null : one;
    payload.hidden = opened === null;
    if (opened) payload.replaceChildren(h("pre", { class: "dp-out", tabindex: "0", role: "group", "aria-label": tr("log.payload") }, one.piece ? Lines.text(current.log, one) : JSON.stringify(current.log.rows[one.at][4], null, 2)));
    paint(true);
  }

  /** Screen readers hear beginnings, ends, questions and failures, never single pieces of text. */
  function speak({ log, live }, label) {
    if (heard === null || !live) { heard = log.count; if (!live) return; }
    if (log.count <= heard || view.quiet === "all") { heard = log.count; return; }
    const news = log.rows.slice(heard, log.count).filter(([, type]) => type !== "node_output" && type !== "execution_log" && (view.quiet !== "some" || /error|interactive|execution/.test(type)));
    heard = log.count;
    spoken.append(...news.slice(-SAID_AT_ONCE).map((row) => h("p", {}, said(row, label))));
    while (spoken.childElementCount > SAID_KEPT) spoken.firstChild.remove();
  }

  function toggle(open_ = !details.open) {
    if (!open_ && details.contains(focusedIn(details))) details.firstChild.focus();
    details.open = open_;
  }
  return {
    el: h("div", {}, details, spoken), update, toggle,
    find() { toggle(true); find.focus(); },
    linesOf: (log, id, from, to, label) => { lines.follow(log); return lines.all.filter((one) => one.id === id && one.to >= from && one.seq < to).slice(-500).map((one) => [one.to, one.time, Lines.words(log, one, label)]); },
  };
}
