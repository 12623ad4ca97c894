// What the tabs of a node's panel show of one turn.
import { lastTurn, turnOf } from "./fold.js";
import { Growing } from "./growing.js";
import { markdown } from "./markdown.js";
import { tr } from "./strings.js";
import { count, h, isCut, line, mark, money, put, seconds, textOf, tokens, unmarked } from "./words.js";
import { diffed } from "./word_diff.js";

const WHOLE_MS = 10_000; // until a whole value that has not come can be asked for again

/** The names of the tabs for a type of node. */
export const tabsOf = (kind) => (kind === "person_job" ? ["answer", "prompt", "memory", "inputs", "calls", "log"] : kind === "code_job" ? ["output", "code", "inputs", "log"] : ["output", "inputs", "calls", "log"]);

const none = (text) => h("p", { class: "dp-none" }, text);
const note = (...text) => h("p", { class: "dp-note" }, text);
const chip = (text, role) => h("span", { class: "dp-chip", "data-role": role }, text);
const row = (name, ...value) => h("div", { class: "dp-row" }, h("dt", {}, name), h("dd", { dir: "auto" }, value));
const facts = (...rows) => h("dl", { class: "dp-facts" }, rows.filter(Boolean));
const verbatim = (text, title = tr("value.verbatim")) => h("pre", { class: "dp-out", tabindex: "0", role: "group", "aria-label": title }, text);

/** A message: who, what is known of it, what it says. */
const message = (role, about, content, more = {}) => h("div", { class: "dp-msg", ...more }, h("div", { class: "dp-msg-head" }, chip(tr(`role.${role}`), role), about), content);
const passage = (text) => h("p", { class: "dp-said", dir: "auto" }, text);

/** What is shown of a value that came without its end, and how to get the rest. */
function rest(view, value, seq) {
  if (!isCut(value) || seq === null) return null;
  return h("p", { class: "dp-note" }, `${tr("rest.more", { n: tokens(value.$cut - value.text.length) })} `, view.can("body") ? h("button", { type: "button", class: "dp-link", onclick: (e) => { e.target.disabled = true; setTimeout(() => { e.target.disabled = false; }, WHOLE_MS); view.body(seq); } }, tr("rest.all")) : null);
}

/** A value as it is read best. */
function valued(view, value, seq) {
  if (value === undefined || value === null || value === "") return [none(value === "" ? tr("value.empty") : tr("value.none"))];
  return [typeof value === "string" || isCut(value) ? markdown(isCut(value) ? `${value.text}…` : value) : verbatim(textOf(value)), rest(view, value, seq)];
}

export function problem(error) {
  return h("div", { class: "dp-problem" }, h("b", {}, error.type || tr("problem.error")), h("p", { dir: "auto" }, textOf(error.message)), error.hint && h("p", { class: "dp-dim", dir: "auto" }, textOf(error.hint)),
    error.traceback && h("details", { class: "dp-fold" }, h("summary", {}, tr("problem.traceback")), verbatim(textOf(error.traceback))));
}

/** What was sent in a turn: one thing, or one for each item of a batch. */
const sentOf = (at) => [...at.sent.values()];
const memoryOf = (at) => at.meta.memory ?? sentOf(at)[0]?.memory ?? null;

/** The answer of a turn as text: what has been streamed, or what it is when it came at once. */
function answerOf(at) {
  if (at.text) return at.text;
  if (at.output === undefined || at.output === null) return "";
  return typeof at.output === "string" ? at.output : isCut(at.output) ? `${at.output.text}…` : `\`\`\`json\n${textOf(at.output)}\n\`\`\``;
}

/** What a model thought, folded unless it is all there is so far; whoever opens or closes it has it so for as long as the turn is shown. */
export class Thought {
  #words = h("summary"); #text = new Growing(h("p", { dir: "auto" })); #of = null; #meant = false;
  #el = h("details", { class: "dp-fold", ontoggle: () => { this.#touched ||= this.#el.open !== this.#meant; } }, this.#words, this.#text.el);
  #touched = false;

  show(at, open) {
    if (this.#of !== at.seq) [this.#of, this.#touched] = [at.seq, false];
    if (!this.#touched) this.#el.open = this.#meant = open;
    put(this.#words, `${tr("answer.reasoning")} · ${count(at.reasoning.trim().split(/\s+/).length, "word")}`);
    this.#text.show(at.reasoning);
    return this.#el;
  }
}

/** What a node has printed. */
export class Printed {
  #text = new Growing(verbatim(""));

  show(text, title) {
    mark(this.#text.el, "aria-label", title ?? tr("value.verbatim"));
    return this.#text.show(text).el;
  }
}

const BLOCKS = 150; // of an answer that are made in one draw
const streaming = (c) => c.at.end === null && c.status !== "waiting";
const grows = ({ at }) => `${at.text.length} ${at.reasoning.length} ${at.calls.length} ${at.calls.at(-1)?.end} ${at.retries.length} ${at.end} ${isCut(at.output)}`;

/** Each tab: its title, a number beside it, what it depends on, and what it shows. */
export const TABS = {
  answer: {
    title: tr("tab.answer"),
    key: grows,
    show(c) {
      const { at, n, index, status } = c, before = n.turns[index - 1];
      if (c.compare) return [note(tr("turns", { before: before.run, after: at.run })), diffed(unmarked(answerOf(before)), unmarked(answerOf(at)))];
      const answer = answerOf(at), open = streaming(c), retry = at.retries.at(-1), call = at.calls.findLast((x) => x.end === null);
      const thought = at.reasoning && c.thought.show(at, !answer && open);
      const waits = status === "retrying" ? retry.message : call ? tr("answer.calls", { tool: call.name }) : open ? tr("answer.first") : at.error ? null : tr("answer.none");
      return [
        thought, answer ? c.text.show(answer, open, BLOCKS).el : waits && none(waits), answer && call && none(tr("answer.calls", { tool: call.name })), answer && status === "retrying" && none(retry.message),
        !at.text && rest(c.view, at.output, at.endSeq), at.error && problem(at.error),
        (at.status === "aborted" || at.status === "interrupted") && note(tr("answer.cut")),
      ];
    },
  },
  output: {
    title: tr("tab.output"),
    key: (c) => `${grows(c)} ${c.n.children.length} ${[...c.n.progress.values()].join()} ${c.s.questions.size}`,
    show(c) {
      const { view, s, id, at, n, index, kind } = c, before = n.turns[index - 1], asked = [...s.questions.values()].filter((q) => q.node_id === id), last = at === lastTurn(s, id);
      if (c.compare) return [note(tr("turns", { before: before.run, after: at.run })), diffed(textOf(before.output), textOf(at.output))];
      const parts = [];
      if (at.text) parts.push(c.printed.show(at.text, kind === "code_job" || kind === "hook" ? tr("output.printed") : null));
      if (last && n.children.length) parts.push(children(c));
      else if (last) for (const words of n.progress.values()) parts.push(note(words));
      if (last) for (const q of asked) parts.push(note(tr("output.asks")), markdown(textOf(q.prompt)));
      if (at.error) parts.push(problem(at.error));
      else if (at.end === null) { if (!parts.length) parts.push(none(tr("output.none"))); } else if (kind === "condition") {
        parts.push(facts(row(tr("output.way"), (at.meta.branch ?? "").replace("cond", "")), row(tr("output.condition"), view.template(s, id, at)), at.meta.answer && row(tr("tab.answer"), textOf(at.meta.answer))));
      } else if (!at.text || typeof at.output !== "string" || !at.text.includes(at.output)) parts.push(...valued(view, at.output, at.endSeq));
      const meta = at.meta, known = [meta.url && row(tr("output.address"), meta.url), meta.status != null && row(tr("output.status"), String(meta.status)), meta.path && row(tr("output.file"), meta.path), meta.saved_to && row(tr("output.saved"), meta.saved_to), meta.source && row(tr("output.source"), meta.source), meta.reason && row(tr("output.reason"), textOf(meta.reason)), meta.skipped && row(tr("output.skipped"), meta.skipped)];
      if (known.some(Boolean)) parts.push(facts(...known));
      return parts;
    },
  },
  prompt: {
    title: tr("tab.prompt"),
    key: ({ at, n, view }) => `${at.sent.size} ${at.end} ${at.text.length > 0} ${n.turns.length} ${view.editing}`,
    show(c) {
      const { view, s, id, at } = c, all = sentOf(at), parts = [];
      if (view.editing === id) return [c.form(() => fork(c))];
      for (const [i, one] of all.entries()) {
        if (all.length > 1) parts.push(note(tr("prompt.item", { n: one.index + 1, all: all.length })));
        if (one.system && i === 0) parts.push(message("system", null, passage(textOf(one.system))));
        if (one.memory?.ids?.length) parts.push(h("p", { class: "dp-between" }, h("button", { type: "button", class: "dp-link", onclick: () => view.tab("memory") }, tr("prompt.memory", { messages: count(one.memory.ids.length, "message") }))));
        parts.push(message("user", null, passage(marked(c, textOf(one.prompt), one.variables ?? []))), one.variables?.length ? origins(c, one.variables) : null);
      }
      if (!all.length) {
        const system = view.personOf(s, id)?.llm_config?.system_prompt, asked = at.meta.prompt ?? at.meta.messages?.find((m) => m.role === "user")?.content;
        if (system) parts.push(message("system", null, passage(textOf(system))));
        parts.push(message("user", asked === undefined ? tr("prompt.written") : null, passage(textOf(asked ?? view.template(s, id, at)))));
      }
      const answer = answerOf(at);
      if (answer) parts.push(message("assistant", null, passage(line(answer, 200))));
      if (view.can("fork")) parts.push(h("p", { class: "dp-acts" }, h("button", { type: "button", class: "dp-btn", onclick: () => view.edit(id) }, tr("prompt.edit"))));
      return parts;
    },
  },
  memory: {
    title: tr("tab.memory"),
    count: ({ at }) => memoryOf(at)?.ids?.length ?? 0,
    key: ({ at }) => `${at.sent.size} ${at.end}`,
    show({ s, at, view, id }) {
      const m = memoryOf(at), before = s.conversation.slice(0, at.heard);
      if (!m) return [none(at.end === null && !at.sent.size ? tr("memory.later") : tr("memory.none"))];
      const me = at.meta.person_id ?? sentOf(at)[0]?.person_id ?? view.personOf(s, id)?.id, seen = new Set(m.ids ?? []), brought = new Set(m.brought ?? []), rule = textOf(m.view ?? m.criterion);
      const why = (one) => (brought.has(one.id) ? tr("memory.brought") : seen.has(one.id) ? "" : tr("memory.out", { why: m.criterion ? tr("memory.unfit") : one.from_person_id !== me && one.to_person_id !== me ? tr("memory.others", { me }) : rule }));
      return [
        note(h("b", {}, rule || tr("memory.all")), ` · ${tr("memory.seen", { n: seen.size, messages: count(before.length, "message") })}`),
        before.length ? before.map((one) => message(one.from_person_id === me ? "assistant" : one.from_person_id === "system" ? "system" : "user", [` ${one.from_person_id} → ${one.to_person_id} `, h("span", { class: "dp-dim" }, why(one))], markdown(textOf(one.content)), { "data-out": !seen.has(one.id) && !brought.has(one.id) })) : none(tr("memory.nothing")),
      ];
    },
  },
  inputs: {
    title: tr("tab.inputs"),
    count: ({ at }) => at.inputs.length,
    key: ({ at }) => `${at.inputs.length}`,
    show({ s, at, view }) {
      if (!at.inputs.length) {
        const given = Object.entries(s.variables ?? {});
        return given.length && at.seq <= 3 ? [note(tr("inputs.run")), facts(...given.map(([name, value]) => row(name, textOf(value))))] : [none(tr("inputs.none"))];
      }
      return at.inputs.map(([name, from, run]) => {
        const source = turnOf(s, from, run), many = (s.nodes.get(from)?.turns.length ?? 0) > 1, value = source?.output;
        const button = h("button", { type: "button", class: "dp-link", onclick: () => view.select(from, { seq: source?.seq }) }, `${view.label(s, from)}${many ? ` ${tr("turn", { run })}` : ""}`);
        return h("div", { class: "dp-msg" }, h("div", { class: "dp-msg-head" }, h("b", {}, name || tr("inputs.name")), tr("inputs.from"), button), typeof value === "string" || isCut(value) ? passage(textOf(value) || tr("inputs.empty")) : verbatim(textOf(value) || tr("inputs.nothing")), rest(view, value, source?.endSeq ?? null));
      });
    },
  },
  calls: {
    title: tr("tab.calls"),
    count: ({ at, kind }) => at.calls.length + at.retries.length + (at.meta.calls ?? (kind === "person_job" ? 1 : 0)),
    key: ({ at, t }) => `${at.calls.map((x) => x.end)} ${at.retries.length} ${at.end ?? Math.floor(t)} ${at.first} ${at.logs.length}`,
    show({ s, id, at, t, kind, view }) {
      const parts = at.calls.map((x) => call("tool", x.name, x.bad ? "failed" : x.end === null ? "running" : "", x.at - at.start, (x.end ?? t) - x.at, [[tr("calls.arguments"), textOf(x.args)], [tr("calls.result"), x.result === null ? "…" : textOf(x.result)]]));
      for (const r of at.retries) parts.push(call("retry", line(r.message, 200), "", r.at - at.start, r.wait, null));
      const u = at.meta.usage, sent = sentOf(at)[0], model = at.meta.model ?? sent?.model ?? view.personOf(s, id)?.llm_config?.model;
      if (u || kind === "person_job") parts.push(call("model", model ?? "", at.error ? "failed" : at.end === null ? "running" : "", 0, (at.end ?? t) - at.start, [
        (at.meta.calls ?? 1) > 1 && [tr("calls.calls"), String(at.meta.calls)], at.meta.requested_model && [tr("calls.asked"), at.meta.requested_model], [tr("calls.provider"), at.meta.provider ?? "–"],
        [tr("calls.tokens"), u ? [tr("usage", { input: tokens(u.input ?? 0), output: tokens(u.output ?? 0) }), u.cache_read && tr("usage.cached", { n: tokens(u.cache_read) }), u.reasoning && tr("usage.thought", { n: tokens(u.reasoning) })].filter(Boolean).join(" · ") : tr("calls.far", { n: at.pieces })],
        [tr("calls.cost"), money(at.meta.cost_usd)], at.meta.saved_usd != null && [tr("calls.saved"), money(at.meta.saved_usd)], [tr("calls.first"), at.first === null ? "–" : seconds(at.first - at.start)], at.meta.finish_reason && [tr("calls.stopped"), at.meta.finish_reason], ...(at.meta.warnings ?? []).map((w) => [tr("calls.warning"), w]),
      ].filter(Boolean)));
      return parts.length ? parts : [none(tr("calls.none"))];
    },
  },
  code: {
    title: tr("tab.code"),
    key: ({ at }) => `${at.text.length} ${at.end}`,
    show({ view, s, id, at }) {
      const variables = Object.entries(at.meta.variables ?? {});
      return [verbatim(view.template(s, id, at) || tr("code.file")), at.text && [note(tr("code.printed")), verbatim(at.text)], at.meta.stderr && [note(tr("code.errors")), verbatim(textOf(at.meta.stderr))], variables.length > 0 && [note(tr("code.variables")), facts(...variables.map(([name, value]) => row(name, textOf(value))))], at.error && problem(at.error)];
    },
  },
  log: {
    title: tr("tab.log"),
    key: ({ frame }) => `${frame.s.seq}`,
    show({ view, id, at, n, index }) {
      const lines = view.linesOf(id, at.seq, n.turns[index + 1]?.seq ?? Infinity);
      return [h("div", { class: "dp-list" }, lines.map(([seq, time, words]) => h("button", { type: "button", class: "dp-entry", onclick: () => view.seek(seq) }, h("span", { class: "dp-num dp-dim" }, time.toFixed(2)), h("span", { dir: "auto" }, words))))];
    },
  },
};

const call = (what, name, state, after, took, known) => h("details", { class: "dp-fold dp-call", open: known !== null }, h("summary", {}, chip(tr(`call.${what}`), what === "retry" ? "wait" : "user"), h("b", { dir: "auto" }, name), state && h("span", { class: state === "failed" ? "dp-bad" : "dp-dim" }, word(state)), h("span", { class: "dp-num dp-end", title: tr("call.after", { time: seconds(after) }) }, seconds(took))), known && facts(...known.map(([k, v]) => row(k, v))));

/** The runs of sub-diagrams that a node began. */
function children({ view, n, at }) {
  const results = Array.isArray(at.output) ? at.output : at.output?.results ?? [];
  return h("div", { class: "dp-list" }, note([...n.progress.values()].at(-1) ?? count(n.children.length, "run")), n.children.map((c) => {
    const face = [h("b", { class: "dp-num" }, String(c.index + 1)), h("span", {}, c.diagram), h("span", { class: "dp-dim dp-clip", dir: "auto" }, line(textOf(results[c.index]?.output ?? results[c.index]), 80) || c.run_id)];
    return view.can("open") ? h("button", { type: "button", class: "dp-entry", onclick: () => view.open(c.run_id) }, face) : h("div", { class: "dp-entry" }, face);
  }));
}

/** A sent prompt in which what came from variables is marked. Places are counted in characters, not in units of UTF-16. */
function marked({ view, s }, prompt, variables) {
  const placed = variables.filter((v) => v.start != null && v.end != null && v.end > v.start).sort((a, b) => a.start - b.start);
  if (!placed.length) return prompt;
  const chars = /[\ud800-\udbff]/.test(prompt) ? Array.from(prompt) : prompt, text = (from, to) => (typeof chars === "string" ? chars.slice(from, to) : chars.slice(from, to).join(""));
  const out = [];
  let at = 0;
  for (const v of placed) {
    if (v.start < at) continue; // within another one
    out.push(text(at, v.start), h("mark", { title: `${v.tag}: ${origin(view, s, v)}` }, text(v.start, v.end)));
    at = v.end;
  }
  return [...out, text(at)];
}

function origin(view, s, v) {
  if (v.origin === "node") return `${tr("inputs.from")}${view.label(s, v.node)}${(s.nodes.get(v.node)?.turns.length ?? 0) > 1 ? ` ${tr("turn", { run: v.run })}` : ""}`;
  return { input: tr("origin.input"), variable: tr("origin.variable"), code: tr("origin.code"), item: tr("origin.item"), run: tr("origin.run") }[v.origin] ?? tr("origin.template");
}

const origins = ({ view, s }, variables) => h("dl", { class: "dp-facts" }, [...new Map(variables.map((v) => [v.tag, v])).values()].map((v) => row(v.tag, v.origin === "node" ? h("button", { type: "button", class: "dp-link", onclick: () => view.select(v.node, { seq: turnOf(s, v.node, v.run)?.seq }) }, origin(view, s, v)) : origin(view, s, v))));

/** The template of a person, to be changed: the run goes on from its node with it, as a new one. */
function fork({ view, s, id, at, frame }) {
  const field = h("textarea", { class: "dp-field", rows: "4", "aria-label": tr("fork.prompt", { node: view.label(s, id) }), dir: "auto" });
  field.value = textOf(view.template(s, id, at));
  const before = field.value, go = (begin) => { const prompt = field.value === before ? undefined : field.value; view.edit(null); begin(prompt); };
  field.addEventListener("keydown", (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) go(view.fork); else if (e.key === "Escape") view.edit(null); else return; e.preventDefault(); e.stopPropagation(); });
  queueMicrotask(() => field.focus());
  return h("div", { class: "dp-fork" }, field, h("p", { class: "dp-acts" }, h("button", { type: "button", class: "dp-btn dp-primary", onclick: () => go(view.fork) }, tr("prompt.fork")), view.can("alone") && h("button", { type: "button", class: "dp-btn", onclick: () => go(view.alone) }, tr("prompt.alone")), h("button", { type: "button", class: "dp-btn", onclick: () => view.edit(null) }, tr("cancel"))), note([tr("fork.about"), frame.newest.status === "running" && tr("fork.live")].filter(Boolean).join(" ")));
}
