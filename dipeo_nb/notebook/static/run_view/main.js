// The run view: a cursor over the log of a run, and one `draw` that shows every part the state at the cursor. Live, replayed, saved and
// shared are the same: the end of the log is just one more place where the cursor can stand.
import { bar } from "./bar.js";
import { createComparison } from "./comparison.js";
import { drawing } from "./drawing.js";
import { look } from "./fold.js";
import { keys } from "./keys.js";
import { eventLog } from "./log.js";
import { menu } from "./menu.js";
import { noteDialog } from "./note.js";
import { notice } from "./notice.js";
import { panel } from "./panel.js";
import { question } from "./question.js";
import { Recording } from "./recording.js";
import { againSheet, copyText, othersSheet, textSheet } from "./sheets.js";
import { tr } from "./strings.js";
import { timeline } from "./timeline.js";
import { transport } from "./transport.js";
import { focusedIn, h, mark, put, textOf } from "./words.js";

const DRIFT_S = 0.3; // the clock of the page is put right when it is off by more
const SAID_MS = 5000; // what has been done stands so long
const TICK_MS = 100; // between two draws when only the clock goes on
const NEWS_MS = 150; // and while events arrive, each of which is drawn when it comes
const UNSEEN_MS = 1000; // of a view that is out of sight
const STOPPED_MS = 10_000; // until a run that goes on can be stopped again: what was sent may have been lost
const REST = 8; // times as long as a draw took, the next one waits: a view leaves the page to others, whatever it has to show

/** @typedef {{run_id: string, name: string, model: string|null, svg: string, nodes: Object<string, {label: string, type: string, person: string|null, prompt: string|null}>,
 *   ids: Object<string, string>, budget: number|null, live: boolean, theme: "light"|"dark"|null, can: string[]}} Head
 *   `ids`: id in the drawing → id of the node; `can`: what `host` takes, which may change. */
/** @typedef {{push(rows: import("./fold.js").Row[]): void, now(seconds: number): void, gone(): void, ended(): void, seek(seq: number): void, focus(): void, dispose(): void}} RunView */

let made = 0;

/** Builds the view of a run inside `root`.
 * @param {HTMLElement} root
 * @param {{head: Head, host: {send(message: Object): void, ask?: (order: {what: string}) => Promise<any>},
 *   outer?: {name: string, place: string, go(by: number): void, close(): void}}} options `outer`: the node in whose place this view stands, and which of
 *   its runs this is.
 * @returns {RunView} */
export function createRunView(root, { head, host, outer }) {
  const log = new Recording(), nodes = new Map(Object.entries(head.nodes)), drawn = new Map(Object.entries(head.ids)), number = ++made;
  log.over = !head.live;
  let live = head.live, gone = false, stopping = 0; // when the run was told to stop
  let clock = { at: 0, since: performance.now() }; // seconds of live time, when they were heard
  let cursor = null; // null: at the end; else {position, t}
  let playing = false, rate = 1, played = 0;
  let selected = null, chosen = false, turn = null; // turn: the number of the event with which it began; null: the last one
  let frame = 0, timer = 0, forgetting = 0, inner = null;
  let drawnAt = 0, cost = 0, told = false, seen = true; // when it was drawn and how long that took; whether events came since; whether it is in sight

  const going = () => live && !gone && log.stateAt(log.count).status === "running";
  const endTime = () => (going() ? Math.max(log.end, clock.at + (performance.now() - clock.since) / 1000) : gone ? Math.max(log.end, clock.at) : log.end);
  const source = (s, id) => (s.source?.nodes && Object.hasOwn(s.source.nodes, id) ? s.source.nodes[id] : null);

  const view = {
    head, quiet: "", editing: null, trouble: null,
    can: (what) => (what === "open" ? Boolean(host.ask) : head.can.includes(what) && !gone),
    send: (message) => host.send(message),
    unique: (name) => `dp-${number}-${name}`,
    draw: () => schedule(),
    focus: () => el.querySelector(".dp-body").focus({ preventScroll: true }),
    help: () => keyboard.help(),

    // What is known of nodes.
    idOf: (name) => drawn.get(name) ?? name,
    label: (s, id) => s.labels.get(id) ?? nodes.get(id)?.label ?? String(id),
    kind: (s, id) => nodes.get(id)?.type ?? source(s, id)?.type ?? "",
    personOf(s, id) {
      const name = source(s, id)?.data?.person ?? nodes.get(id)?.person;
      return name == null ? null : Object.values(s.source?.persons ?? {}).find((p) => p.id === name || p.label === name) ?? { id: name, label: name };
    },
    template(s, id, at) {
      const data = source(s, id)?.data ?? {}, own = at?.run === 1 && data.first_only_prompt;
      return textOf(own || (data.default_prompt ?? data.code ?? data.condition ?? data.expression ?? data.prompt ?? nodes.get(id)?.prompt ?? ""));
    },
    about(s, id, at) {
      if (id === null) return "";
      const person = view.personOf(s, id), label = view.label(s, id), model = at?.meta.model ?? [...(at?.sent.values() ?? [])][0]?.model ?? s.model ?? person?.llm_config?.model;
      return person ? [person.label === label ? "" : person.label, model].filter(Boolean).join(" · ") : view.kind(s, id).replaceAll("_", " ");
    },
    models: () => (head.model ? [head.model] : [...new Set(Object.values(log.stateAt(log.count).source?.persons ?? {}).map((p) => p.llm_config?.model).filter(Boolean))]),
    hasCode: () => view.kind(log.stateAt(log.count), selected) === "code_job",
    linesOf: (id, from, to) => parts.log.linesOf(log, id, from, to, (x) => view.label(log.stateAt(log.count), x)),

    // What is looked at.
    select(id, { seq = null, open = false } = {}) {
      const children = log.stateAt(log.count).nodes.get(id)?.children ?? [];
      [selected, chosen, turn, view.editing] = [id, true, seq, null];
      if (open && children.length && view.can("open")) view.open(children[0].run_id);
      schedule();
    },
    release() { if (outer && !chosen) { outer.close(); return; } [chosen, turn, view.editing] = [false, null, null]; schedule(); },
    turnBy(by) {
      const shown = state().nodes.get(selected)?.turns ?? [], next = shown[turnIndex(shown) + by];
      if (next) { chosen = true; turn = next === shown.at(-1) ? null : next.seq; schedule(); }
    },
    tab: (name) => parts.panel.show(name),
    edit(id = selected) {
      if (id !== null && (!view.can("fork") || view.kind(state(), id) !== "person_job" || !turnAt())) return;
      view.editing = id;
      if (id !== null) { chosen = true; turn = turnAt().seq; parts.panel.show("prompt"); } // a turn that begins meanwhile is another one
      cancelAnimationFrame(frame);
      draw(); // at once: what is typed next is for the field
    },
    async open(id, by = 0) {
      const child = await view.tried(() => view.ask("child", { run: id }));
      if (!child || !el.isConnected) return;
      const newest = log.stateAt(log.count), [node, { children: items }] = [...newest.nodes].find(([, n]) => n.children.some((c) => c.run_id === id)) ?? [selected, { children: [] }];
      const index = items.findIndex((c) => c.run_id === id), go = (step) => view.open(items[(index + step + items.length) % items.length].run_id, step);
      const close = () => { closeInner(); parts.drawing.focus(); }, held = root.contains(focusedIn(root));
      inner?.dispose();
      el.hidden = true;
      inner = createRunView(root, { head: { ...child.head, theme: head.theme }, host: { ...host, send: () => {} }, outer: { name: view.label(newest, node), place: items.length > 1 ? tr("of", { done: index + 1, total: items.length }) : "", go, close } });
      inner.push(child.events);
      inner.ended();
      if (held) inner.focus(by);
    },

    // Where the cursor stands.
    seek(seq) { to(log.positionOf(seq)); },
    seekTime(t) { if (t >= endTime()) view.follow(); else { cursor = { position: log.positionAt(Math.max(0, t)), t: Math.max(0, t) }; moved(); } },
    step(by) { const at = cursor ? cursor.position : log.count; to(Math.max(0, at + by)); },
    start() { cursor = { position: 0, t: 0 }; moved(); },
    follow() { cursor = null; moved(); },
    play() {
      playing = !playing;
      if (playing && !cursor) { if (going()) playing = false; else cursor = { position: 0, t: 0 }; }
      played = performance.now();
      turn = null;
      schedule();
    },
    speed(x) { rate = x; schedule(); },

    // What is asked of the one who shows it.
    stop() { stopping = performance.now(); host.send({ type: "stop" }); schedule(); },
    body(seq) { host.send({ type: "body", seq }); },
    ask: (what, more = {}) => host.ask({ what, ...more }),
    /** What comes of `asking`; null when it was refused, which the line below the bar then says.
     * @param {() => Promise<any>} asking @param {((pin: string) => void) | null} [allow] */
    async tried(asking, allow = null) {
      try {
        const found = await asking();
        view.trouble = null;
        return found;
      } catch (error) {
        view.trouble = { error, allow };
        return null;
      } finally {
        schedule();
      }
    },
    /** Begins another run from the turn that is shown. */
    async another(what, more = {}) {
      const id = selected, at = turnAt();
      if (!view.can(what) || !at) return;
      view.say(tr("said.beginning"));
      const found = await view.tried(() => view.ask(what, { node: id, of: at.run, ...more }), (trust) => view.another(what, { ...more, trust }));
      if (found) view.begun(found); else view.say("");
    },
    begun: () => view.say(tr("said.begun")),
    fork: (prompt) => view.another("fork", prompt === undefined ? {} : { prompt }),
    alone: (prompt) => view.another("alone", prompt === undefined ? {} : { prompt }),
    again() { if (view.can("again")) sheets.again.open(); },
    compare() { if (view.can("compare")) sheets.others.open(); },
    async comparedWith(run) {
      const from = focusedIn(el), facts = await view.tried(() => view.ask("compare", { run }));
      if (!facts || !el.isConnected) return;
      inner?.dispose();
      el.hidden = true;
      inner = createComparison(root, { facts, theme: head.theme, close: () => { closeInner(); if (el.contains(from)) from.focus({ preventScroll: true }); else view.focus(); } });
    },
    async copied(as, ofNode = false) {
      const at = turnAt();
      if (!view.can("copy") || (ofNode && !at)) return;
      const found = await view.tried(() => view.ask("copy", { as, ...(ofNode ? { node: selected, of: at.run } : {}) }));
      if (found) sheets.text.open(found.text);
    },
    async copy(what) { await copyText(what); view.say(tr("said.copied")); },
    note() {
      if (!view.can("note") || !log.seq) return;
      const at = cursor ? state().seq : log.seq, shown = turnAt();
      notes.open(Math.max(1, shown?.seq ?? at), cursor || !shown?.endSeq ? at : shown.endSeq);
    },
    /** Says what has been done, for a moment. */
    say(words) {
      put(toast, words);
      clearTimeout(forgetting);
      forgetting = setTimeout(() => put(toast, ""), SAID_MS);
    },
  };

  const closeInner = () => { inner?.dispose(); inner = null; el.hidden = false; schedule(); };
  const state = () => (cursor ? log.stateAt(cursor.position) : log.stateAt(log.count));
  const turnIndex = (turns) => { const at = turn === null ? -1 : turns.findIndex((x) => x.seq === turn); return at < 0 ? turns.length - 1 : at; };
  const turnAt = () => { const turns = state().nodes.get(selected)?.turns ?? []; return turns[turnIndex(turns)] ?? null; };
  function to(position) {
    if (position >= log.count) { view.follow(); return; }
    cursor = { position, t: log.times[position - 1] ?? 0 };
    moved();
  }
  function moved() { playing = false; turn = null; schedule(); }

  const notes = noteDialog(view), sheets = { again: againSheet(view), others: othersSheet(view), text: textSheet(view) };
  const toast = h("div", { class: "dp-toast", role: "status" });
  const more = menu(view);
  const parts = { bar: bar(view, more.el), more, notice: notice(view), drawing: drawing(view), panel: panel(view), question: question(view), timeline: timeline(view), transport: transport(view), log: eventLog(view) };
  const keyboard = keys(view, parts);
  const crumb = outer && h("nav", { class: "dp-crumb", "aria-label": tr("outer.label") }, h("button", { type: "button", class: "dp-link", onclick: () => outer.close() }, outer.name), h("span", { "aria-hidden": "true" }, "▸"), h("b", {}, head.name), outer.place && [
    h("button", { type: "button", class: "dp-tool", "aria-label": tr("outer.before"), title: tr("outer.before"), onclick: () => outer.go(-1) }, "◂"), h("span", { class: "dp-num" }, outer.place), h("button", { type: "button", class: "dp-tool", "aria-label": tr("outer.next"), title: tr("outer.next"), onclick: () => outer.go(1) }, "▸")]);
  const el = h("section", { class: "dp-run", "aria-label": tr("run.label", { name: head.name }), "data-lm-suppress-shortcuts": "true", "data-theme": head.theme },
    crumb, parts.bar.el, parts.notice.el, h("div", { class: "dp-main" }, parts.drawing.el, parts.panel.el), parts.question.el, parts.question.spoken, parts.timeline.el, parts.transport.el, parts.log.el, toast, keyboard.sheet, notes.el, Object.values(sheets).map((one) => one.el));
  el.addEventListener("keydown", keyboard.pressed);
  root.append(el);

  /** Whom to show when nobody was chosen: who failed, asks, works; else who spoke last. */
  function pick(s, t) {
    const last = (status) => s.order.findLast((id) => look(s, id, t) === status);
    const writing = s.order.filter((id) => s.nodes.get(id).status === "running" && s.nodes.get(id).text);
    if (writing.includes(selected)) return selected; // of several at work, the one that is read already
    const asks = [...s.questions.values()].find((q) => s.nodes.has(q.node_id))?.node_id; // whose question stands first
    return last("failed") ?? asks ?? last("waiting") ?? writing[0] ?? last("running") ?? last("retrying") ?? s.order.findLast((id) => s.nodes.get(id).text) ?? s.order.at(-1) ?? nodes.keys().next().value ?? null;
  }

  function draw() {
    frame = 0;
    clearTimeout(timer);
    timer = 0;
    const began = performance.now(), streams = told;
    told = false;
    const newest = log.stateAt(log.count), end = endTime();
    if (playing && cursor) {
      const stamp = performance.now(), t = cursor.t + ((stamp - played) / 1000) * rate;
      played = stamp;
      if (t >= end) { cursor = null; playing = false; } else cursor = { position: log.positionAt(t), t };
    }
    const s = cursor ? log.stateAt(cursor.position) : newest, t = cursor ? cursor.t : end;
    if (!chosen) selected = pick(s, t);
    if (newest.status !== "running" || began - stopping > STOPPED_MS) stopping = 0;
    const shown = { s, newest, t, end, log, position: cursor ? cursor.position : log.count, past: cursor !== null, live, gone, stopping: stopping > 0, playing, rate, selected, chosen, turn: turnIndex(s.nodes.get(selected)?.turns ?? []) };
    const held = el.contains(focusedIn(el));
    for (const part of Object.values(parts)) part.update(shown);
    if (held) hold(focusedIn(el));
    mark(el, "data-status", s.status);
    mark(el, "data-past", cursor !== null);
    mark(el, "data-gone", gone && newest.status === "running");
    parts.panel.settle();
    drawnAt = performance.now();
    cost = drawnAt - began;
    if (playing) timer = setTimeout(schedule, cost);
    else if (going()) timer = setTimeout(schedule, pause(streams ? NEWS_MS : TICK_MS));
  }
  /** What had the focus may have been taken away, switched off or hidden: it then goes to a button beside it, else to the panel. */
  function hold(focused) {
    if (!el.contains(focused)) view.focus();
    else if (focused.disabled || focused.closest("[hidden]")) (focused.parentElement.querySelector(":scope > button:not(:disabled, [hidden])") ?? view).focus();
  }
  const pause = (least) => Math.max(seen ? least : UNSEEN_MS, cost * REST);
  function schedule() { frame ||= requestAnimationFrame(draw); }
  function scheduleNews() {
    told = true;
    const wait = drawnAt + pause(0) - performance.now();
    if (wait <= 0) schedule();
    else timer ||= setTimeout(schedule, wait);
  }
  const sight = new IntersectionObserver((entries) => { seen = entries.at(-1).isIntersecting; if (seen) schedule(); }, { rootMargin: "300px" });
  sight.observe(el);

  schedule();
  return {
    push(rows) {
      log.push(rows);
      scheduleNews();
    },
    now(seconds) {
      gone = false;
      if (Math.abs(endTime() - seconds) > DRIFT_S) clock = { at: seconds, since: performance.now() };
      scheduleNews();
    },
    gone() {
      clock = { at: endTime(), since: performance.now() };
      gone = true;
      schedule();
    },
    ended() {
      live = false;
      log.over = true;
      schedule();
    },
    seek: (seq) => view.seek(seq),
    focus: (by = 0) => (by ? crumb.querySelectorAll(".dp-tool")[by < 0 ? 0 : 1] : view).focus(),
    dispose() {
      inner?.dispose();
      cancelAnimationFrame(frame);
      clearTimeout(timer);
      clearTimeout(forgetting);
      sight.disconnect();
      parts.drawing.dispose();
      parts.timeline.dispose();
      el.remove();
    },
  };
}
