// The state of a run after the events up to any one of them. Pure: no page, no clock, no kernel.
// The counterpart of `RunState` in Python; a test holds the two together at every event of many logs.
// A state that was given out never changes: a fold copies what it still shares with one before it writes.
import { textOf } from "./words.js";

/** @typedef {[seq: number, type: string, at: number, node: string|null, payload: any]} Row One event; `at`: seconds since the epoch. */
/** @typedef {{usage: Object<string, number>, known: number|null, complete: boolean, calls: number}} Spent */
/** @typedef {{id: string, name: string, args: any, at: number, end: number|null, result: string|null, bad: boolean}} Call A call of a tool. */
/** @typedef {{run: number, attempt: number, start: number, end: number|null, status: string, inputs: [string, string, number][], text: string,
 *   reasoning: string, first: number|null, pieces: number, sent: Map<string, any>, calls: Call[], retries: {at: number, wait: number, message: string}[],
 *   waits: {from: number, to: number|null, why: string}[], logs: [number, string, string][], output: any, meta: any, error: any, globals: any,
 *   heard: number, seq: number, endSeq: number|null}} Turn
 *   One run of a node. `at`, `start`, `end` …: seconds of live time; `heard`: messages of the conversation when it began. */
/** @typedef {{status: string, runs: number, seconds: number, error: any, output: any, text: string, progress: Map<string, string>, share: any, meta: any,
 *   spent: Spent, retries: number, reused: boolean, children: {run_id: string, index: number, diagram: string}[], paid: any[], pieces: number, estimated: number,
 *   waiting: number|null, asks: number, turns: Turn[], earlier: {turns: number, seconds: number, from: string[]}}} Node
 *   `pieces`: of text since the last call of a model was accounted for, about as many tokens; `estimated`: those of answers that were cut off. `asks`: its open
 *   questions. `earlier`: how many turns were before those, which the page does not have, how long they took, and the nodes that gave them values. */
/** @typedef {{seq: number, at: number, status: string, run_id: string, diagram: string, model: string|null, nodes: Map<string, Node>, labels: Map<string, string>,
 *   order: string[], source: any, variables: any, started: number|null, ended: number|null, seconds: number, error: any, spent: Spent, persons: Map<string, Spent>,
 *   outputs: Map<string, any>, conversation: any[], questions: Map<string, any>, systems: Map<string, string>, notes: any[], parent: string|null, forked: any, resumed: number}} State */

const COUNTS = ["input", "output", "cache_read", "cache_write", "reasoning"];
const PROGRESS_LIMIT = 200;

/** @returns {Spent} */
const nothingSpent = () => ({ usage: {}, known: null, complete: true, calls: 0 });

const NONE_EARLIER = { turns: 0, seconds: 0, from: [] };

/** @returns {Node} */
const newNode = () => ({
  status: "pending", runs: 0, seconds: 0, error: null, output: undefined, text: "", progress: new Map(), share: null, meta: {}, spent: nothingSpent(), retries: 0,
  reused: false, children: [], paid: [], pieces: 0, estimated: 0, waiting: null, asks: 0, turns: [], earlier: NONE_EARLIER,
});

/** @returns {State} */
export const emptyState = () => ({
  seq: 0, at: 0, status: "pending", run_id: "", diagram: "", model: null, nodes: new Map(), labels: new Map(), order: [], source: null, variables: {}, started: null,
  ended: null, seconds: 0, error: null, spent: nothingSpent(), persons: new Map(), outputs: new Map(), conversation: [], questions: new Map(), systems: new Map(), notes: [], parent: null,
  forked: null, resumed: 0,
});

/** Sum of the known counts; null when none is known. @param {Spent} spent @returns {number|null} */
export function totalOf(spent) {
  const known = COUNTS.filter((name) => spent.usage[name] != null);
  return known.length ? known.reduce((sum, name) => sum + spent.usage[name], 0) : null;
}

/** The cost; null without any, and when a part of it is unknown. @param {Spent} spent */
export const costOf = (spent) => (spent.complete ? spent.known : null);

/** @param {Spent} spent */
function withCall(spent, { usage, cost_usd: cost, calls = 1 }) {
  const counts = { ...spent.usage };
  for (const name of COUNTS) if (usage[name] != null) counts[name] = (counts[name] ?? 0) + usage[name];
  return { usage: counts, known: cost == null ? spent.known : (spent.known ?? 0) + cost, complete: spent.complete && cost != null, calls: spent.calls + calls };
}

/** Takes events in, and gives out the state after them. */
export class Fold {
  /** @type {State} */
  #state;
  #own = new Set(); // what was made since a state was last given out, and so may be written
  /** @type {Map<string, Map<string, string>>|null} */
  #places = null; // of the open questions, which may be thousands: node → path → id; made when it is needed

  /** @param {State} [from] a state to go on from; it stays as it is */
  constructor(from = emptyState()) { this.#state = from; }

  /** What is being written. */
  get state() { return this.#state; }

  /** The state now. Whoever has it may keep it. @returns {State} */
  give() {
    this.#own.clear();
    return this.#state;
  }

  /** @param {Row} row @param {number} at seconds of live time */
  take(row, at) {
    const s = this.#writable();
    s.seq = row[0];
    s.at = at;
    TAKEN[row[1]]?.(this, s, row, row[4] ?? {}, at);
  }

  /** The run ended without telling: its process is gone. */
  cutOff() {
    const s = this.#writable();
    if (s.status !== "running") return;
    s.status = "interrupted";
    s.ended = s.at;
    for (const id of s.nodes.keys()) {
      const n = this.node(id);
      if (n.status === "running") n.status = "interrupted";
      this.settle(n);
      this.close(n, s.at);
    }
  }

  #writable() {
    if (!this.#own.has(this.#state)) this.#own.add((this.#state = { ...this.#state }));
    return this.#state;
  }

  /** The value of a key of what is writable, itself writable. */
  part(holder, key) {
    let value = holder[key];
    if (this.#own.has(value)) return value;
    value = Array.isArray(value) ? value.slice() : value instanceof Map ? new Map(value) : { ...value };
    this.#own.add(value);
    holder[key] = value;
    return value;
  }

  /** A node, writable; it is made when there is none. @returns {Node} */
  node(id) {
    const nodes = this.part(this.#state, "nodes");
    let n = nodes.get(id);
    if (!n || !this.#own.has(n)) nodes.set(id, (n = n ? { ...n } : newNode()));
    this.#own.add(n);
    return n;
  }

  /** The last turn of a node, writable. @param {Node} n @returns {Turn|null} */
  turn(n) {
    return n.turns.length ? this.part(this.part(n, "turns"), n.turns.length - 1) : null;
  }

  account(n, meta) {
    if (!meta?.usage) return;
    const s = this.#state;
    n.spent = withCall(n.spent, meta);
    s.spent = withCall(s.spent, meta);
    if (meta.person) this.part(s, "persons").set(meta.person, withCall(s.persons.get(meta.person) ?? nothingSpent(), meta));
  }

  /** What a run that was cut off had paid counts. */
  settle(n) {
    for (const call of n.paid) this.account(n, { calls: 1, ...call });
    if (n.paid.length) n.paid = [];
    n.estimated += n.pieces;
    n.pieces = 0;
    n.waiting = null;
  }

  /** The turn in flight ends with its node. */
  close(n, at) {
    if (!n.turns.length || n.turns.at(-1).end !== null) return;
    const t = this.turn(n);
    t.end = at;
    t.status = n.status;
    this.unwait(t, at);
  }

  /** A question takes the place of an earlier one from there: that was not answered in time, and its node tries again. */
  ask(id, question) {
    const s = this.#state, earlier = this.#asked(id).get(pathOf(question));
    this.answered(question.request_id);
    if (earlier !== undefined) this.answered(earlier);
    this.part(s, "questions").set(question.request_id, question);
    const places = this.#asked(id);
    places.set(pathOf(question), question.request_id);
    this.#places.set(id, places);
    if (s.nodes.has(id)) this.node(id).asks = places.size;
  }

  /** A question is over, if it is open. */
  answered(id) {
    const s = this.#state, question = s.questions.get(id);
    if (!question) return;
    const places = this.#asked(question.node_id);
    places.delete(pathOf(question));
    this.part(s, "questions").delete(id);
    if (s.nodes.has(question.node_id)) this.node(question.node_id).asks = places.size;
  }

  /** A node that failed asks no longer. */
  asksNoLonger(id) {
    for (const question of [...this.#asked(id).values()]) this.answered(question);
  }

  /** Nobody asks. */
  noQuestions() {
    this.#places = null;
    if (this.#state.questions.size) this.#state.questions = new Map();
  }

  /** The open questions of a node: path → id. */
  #asked(node) {
    if (!this.#places) {
      this.#places = new Map();
      for (const [id, question] of this.#state.questions) {
        if (!this.#places.has(question.node_id)) this.#places.set(question.node_id, new Map());
        this.#places.get(question.node_id).set(pathOf(question), id);
      }
    }
    return this.#places.get(node) ?? new Map();
  }

  unwait(t, at) {
    const open = t.waits.length - 1;
    if (open >= 0 && t.waits[open].to === null) this.part(this.part(t, "waits"), open).to = at;
  }
}

/** A turn as it begins. @param {number|null} queued since when its node waited for a place @returns {Turn} */
function newTurn(seq, p, at, run, queued, heard) {
  const named = Object.entries(p.inputs ?? {}).map(([name, [from, run]]) => [name, from, run]);
  const inputs = (p.arrived ?? []).length > named.length ? p.arrived.map(([from, run]) => [named.find((i) => i[1] === from)?.[0] ?? "", from, run]) : named;
  return {
    run: p.run ?? run, attempt: p.attempt ?? 1, start: at, end: null, status: "running", inputs, text: "", reasoning: "", first: null, pieces: 0, sent: new Map(),
    calls: [], retries: [], waits: queued === null ? [] : [{ from: queued, to: at, why: "place" }], logs: [], output: undefined, meta: {}, error: null, globals: null, heard, seq, endSeq: null,
  };
}

/** The turn of a node that was the last one when its beginning was left out. @returns {Turn} */
function knownTurn({ last, pieces, runs, text }) {
  const { ended, end, endSeq, status } = last, sent = new Map(last.sent.map(([index, one]) => [index, { ...one, system: one.system ?? null }]));
  return { ...newTurn(last.seq, last.started, last.start, runs, null, last.messages), text: textOf(text), pieces, sent, end, endSeq, status, ...ended };
}

/** The nodes from the outermost run down to the one that asks, by label. */
const pathOf = (question) => (question.path?.length ? question.path : [question.label || question.node_id]).join("\n");

function ends(fold, s, p, at, status) {
  s.status = status;
  s.ended = at;
  s.seconds = (p.total_duration_ms ?? 0) / 1000;
  fold.noQuestions();
  for (const id of s.nodes.keys()) {
    const n = fold.node(id);
    n.asks = 0;
    fold.settle(n);
    if (Object.hasOwn(p.node_status ?? {}, id)) n.status = p.node_status[id];
    fold.close(n, at);
  }
}

const PLACES = new WeakMap(); // of runs in a list of them, which may be thousands: list → id → place

/** The places of runs in a list and in those that it was copied to: one that has an id elsewhere, or not yet, does not count.
 * @param {{run_id: string}[]} children @returns {Map<string, number>} */
function placesIn(children) {
  if (!PLACES.has(children)) PLACES.set(children, new Map(children.map((c, i) => [c.run_id, i])));
  return PLACES.get(children);
}

/** A model that was fetched for a node is there. */
function fetched(n) {
  if (n.share?.bytes) n.share = null;
}

function written(fold, n, p) {
  const t = fold.turn(n);
  n.text = (p.restart ? "" : n.text) + textOf(p.text);
  if (t) t.text = n.text;
}

/** Pieces of text from a model; a row may stand for several. */
function heard(fold, n, p, at) {
  const t = fold.turn(n), pieces = p.pieces ?? 1;
  n.pieces += pieces;
  fetched(n);
  if (!t) return;
  t.pieces += pieces;
  t.first ??= at;
}

/** What pieces of output do, by kind. */
const OUTPUT = {
  text(fold, n, p, at) {
    written(fold, n, p);
    if (p.text) heard(fold, n, p, at);
  },
  stdout: written,
  prompt(fold, n, p) {
    const t = fold.turn(n), s = fold.state, data = p.data ?? {}, person = data.person_id;
    if ("system" in data) fold.part(s, "systems").set(person, data.system);
    if (t) fold.part(t, "sent").set(String(data.index ?? ""), { prompt: p.text, ...data, system: s.systems.get(person) ?? null });
  },
  reasoning(fold, n, p, at) {
    const t = fold.turn(n);
    heard(fold, n, p, at);
    if (!t) return;
    t.reasoning += textOf(p.text);
  },
  tool(fold, n, p, at) {
    const t = fold.turn(n);
    if (!t) return;
    const calls = fold.part(t, "calls"), data = p.data ?? {};
    if (p.step === "call") { calls.push({ id: data.id, name: p.text ?? "", args: data.arguments, at, end: null, result: null, bad: false }); return; }
    const index = calls.findLastIndex((c) => c.id === data.id && c.end === null);
    if (index >= 0) Object.assign(fold.part(calls, index), { end: at, result: p.text ?? "", bad: Boolean(data.is_error) });
  },
  usage(fold, n, p) {
    if (p.background) fold.account(n, { calls: 1, ...p.data });
    else {
      fold.part(n, "paid").push(p.data);
      n.pieces = 0;
    }
  },
  run(fold, n, p) {
    const id = p.data.run_id, places = placesIn(n.children);
    if (n.children[places.get(id)]?.run_id === id) return;
    const children = fold.part(n, "children");
    PLACES.set(children, places.set(id, children.length));
    children.push(p.data);
  },
  progress(fold, n, p) {
    const data = p.data ?? {}, lines = fold.part(n, "progress");
    lines.set(`${data.run_id ?? ""} ${data.node ?? ""}`, p.text ?? "");
    if (lines.size > PROGRESS_LIMIT) lines.delete(lines.keys().next().value);
    if (data.total != null) n.share = { done: data.done ?? 0, total: data.total, bytes: data.unit === "bytes" };
    else fetched(n);
  },
};

/** What events do, by type. */
const TAKEN = {
  execution_started(fold, s, row, p, at) {
    if ("resumed" in p) {
      s.resumed += 1;
      Object.assign(s, { status: "running", ended: null, error: null });
      fold.noQuestions();
      for (const id of s.nodes.keys()) {
        const n = fold.node(id);
        n.asks = 0;
        if (n.status === "running" || n.status === "aborted") n.status = "interrupted";
        fold.settle(n);
        fold.close(n, at);
      }
      return;
    }
    const labels = new Map(Object.entries(p.labels ?? {})), nodes = new Map();
    for (const id of labels.keys()) nodes.set(id, s.nodes.get(id) ?? newNode());
    Object.assign(s, {
      status: "running", started: at, diagram: p.diagram ?? "", model: p.model ?? null, variables: p.variables ?? {}, source: p.source ?? null, parent: p.parent ?? null,
      forked: p.forked_from ?? null, labels, nodes,
    });
  },
  left_out(fold, s, row, p, at) {
    const made = p.nodes.map(([id, { last, ...known }]) => [id, {
      ...newNode(), ...known, text: textOf(known.text), progress: new Map(known.progress), turns: last ? [knownTurn({ ...known, last })] : [],
      children: known.children.map((child, index) => ({ index, diagram: "", ...child })),
    }]);
    const nodes = new Map(made);
    for (const [, question] of p.questions) if (nodes.has(question.node_id)) nodes.get(question.node_id).asks += 1;
    fold.noQuestions();
    Object.assign(s, {
      status: p.status, ended: p.ended ? at : null, seconds: p.seconds, error: p.error, spent: p.spent, order: p.order, conversation: p.conversation, notes: p.notes, resumed: p.resumed,
      nodes, labels: new Map(p.labels), persons: new Map(p.persons), outputs: new Map(p.outputs), questions: new Map(p.questions), systems: new Map(p.systems),
    });
  },
  node_waiting(fold, s, [, , , id], p, at) {
    if (s.nodes.has(id)) fold.node(id).waiting = at;
  },
  node_started(fold, s, [seq, , , id], p, at) {
    if (!s.nodes.has(id) && !s.labels.has(id)) fold.part(s, "labels").set(id, p.label ?? id);
    const n = fold.node(id);
    if (!n.turns.length) fold.part(s, "order").push(id);
    n.status = "running";
    n.text = "";
    n.error = null;
    if (n.progress.size) n.progress = new Map();
    n.share = null;
    const queued = n.waiting;
    n.waiting = null;
    n.estimated += n.pieces;
    n.pieces = 0;
    fold.part(n, "turns").push(newTurn(seq, p, at, n.runs + 1, queued, s.conversation.length));
  },
  node_output(fold, s, [, , , id], p, at) {
    if (s.nodes.has(id) && Object.hasOwn(OUTPUT, p.kind)) OUTPUT[p.kind](fold, fold.node(id), p, at);
  },
  node_completed(fold, s, [seq, , , id], p, at) {
    const n = fold.node(id);
    n.status = p.status ?? "completed";
    if (n.status === "maxiter_reached") return; // nothing ran: the last output was passed on
    const meta = p.meta ?? {};
    n.runs = p.run ?? n.runs + 1;
    n.seconds += (p.duration_ms ?? 0) / 1000;
    n.output = p.output;
    n.meta = meta;
    n.reused = "reused" in meta;
    n.paid = [];
    n.pieces = 0;
    n.retries += meta.retries ?? 0;
    fold.account(n, meta);
    if (meta.messages?.length) fold.part(s, "conversation").push(...meta.messages);
    const t = fold.turn(n);
    if (t) {
      Object.assign(t, { end: at, endSeq: seq, status: n.status, output: p.output, meta, globals: p.globals ?? null });
      fold.unwait(t, at);
    }
    if (p.node_type === "endpoint") fold.part(s, "outputs").set(s.labels.get(id) ?? id, p.output);
  },
  node_error(fold, s, [seq, , , id], p, at) {
    const n = fold.node(id);
    fold.asksNoLonger(id);
    n.status = "failed";
    n.error = p.error ?? null;
    n.runs = p.run ?? n.runs;
    n.seconds += (p.duration_ms ?? 0) / 1000;
    const known = (p.meta?.usage?.output ?? 0) - n.paid.reduce((sum, call) => sum + (call.usage?.output ?? 0), 0);
    if (known <= 0) n.estimated += n.pieces; // else the answer that failed is accounted for
    n.paid = [];
    n.pieces = 0;
    fold.account(n, p.meta);
    const t = fold.turn(n);
    if (!t) return;
    Object.assign(t, { end: at, endSeq: seq, status: "failed", error: p.error ?? null, meta: p.meta ?? {} });
    fold.unwait(t, at);
  },
  execution_log(fold, s, [, , , id], p, at) {
    if (id === null || !s.nodes.has(id)) return;
    const t = fold.turn(fold.node(id)), wait = p.extra_fields?.retry_in_s;
    if (!t) return;
    fold.part(t, "logs").push([at, p.level ?? "", p.message ?? ""]);
    if (typeof wait === "number") fold.part(t, "retries").push({ at, wait, message: p.message ?? "" });
  },
  interactive_prompt(fold, s, [, , , id], p, at) {
    fold.ask(id, { ...p, node_id: id, at });
    const t = s.nodes.has(id) ? fold.turn(fold.node(id)) : null;
    if (t) fold.part(t, "waits").push({ from: at, to: null, why: "person" });
  },
  interactive_response(fold, s, [, , , id], p, at) {
    const asked = s.questions.get(p.request_id)?.node_id ?? id;
    fold.answered(p.request_id);
    const t = s.nodes.has(asked) ? fold.turn(fold.node(asked)) : null;
    if (t) fold.unwait(t, at);
  },
  run_note(fold, s, [seq, , when], p) { fold.part(s, "notes").push({ ...p, at: when, seq }); },
  execution_completed(fold, s, row, p, at) { ends(fold, s, p, at, p.status ?? "completed"); },
  execution_error(fold, s, row, p, at) {
    s.error = p.error ?? null;
    ends(fold, s, p, at, p.status ?? "failed");
  },
};

// Readings of a state that several parts share.

/** The last turn of a node. @param {State} s @returns {Turn|null} */
export const lastTurn = (s, id) => s.nodes.get(id)?.turns.at(-1) ?? null;

/** The turn that ended as a run of a node. @param {State} s @returns {Turn|null} */
export const turnOf = (s, id, run) => s.nodes.get(id)?.turns.findLast((t) => t.run === run) ?? null;

/** What a node shows: its status, or that it waits or tries again, as seen from its last turn. @param {State} s @param {number} now */
export function look(s, id, now) {
  const n = s.nodes.get(id);
  if (!n) return "pending";
  if (n.waiting !== null && n.status !== "running" && s.status === "running") return "queued";
  if (n.status !== "running") return n.status;
  if (n.asks) return "waiting";
  const retry = n.turns.at(-1)?.retries.at(-1);
  return retry && now < retry.at + retry.wait ? "retrying" : "running";
}

/** Tokens that are not accounted for, an estimate: of answers that were cut off, and of those under way. @param {State} s */
export function estimatedTokens(s) {
  let sum = 0;
  for (const n of s.nodes.values()) sum += n.estimated + n.pieces;
  return sum;
}
