// A run of `dipeo-nb serve`: its events as they come over HTTP. The token is in the address when the page is opened, and then no longer.
import { createRunView } from "./main.js";
import { tr } from "./strings.js";
import { h } from "./words.js";

const AGAIN_MS = 1000; // until a stream that broke off is asked for again
const SILENT_TRIES = 5; // in a row, after which the server counts as gone
const BATCH_MS = 50;

const given = new URLSearchParams(location.search).get("token") ?? sessionStorage.getItem("dipeo-token") ?? "";
const here = location.pathname.replace(/\/page$/, "");

async function asked(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { Authorization: `Bearer ${given}`, ...options.headers } });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw Object.assign(new Error(told?.error ? `${told.error.message} ${told.error.hint ?? ""}` : tr("serve.answers", { status: answer.status })), { status: answer.status });
}

const post = (path, body) => asked(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const rowOf = (wire) => [wire.metadata.seq, wire.type, Date.parse(wire.timestamp) / 1000, wire.node_id, wire.data];

/** The events of a run after a number, as they come; returns when the stream ends. */
async function stream(path, after, take) {
  const answer = await asked(`${path}/events?after=${after}`);
  if (answer.status === 204) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const frames = (rest + part.value).replaceAll("\r\n", "\n").split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const data = frame.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      if (data) take(rowOf(JSON.parse(data)));
    }
  }
}

async function open(place) {
  sessionStorage.setItem("dipeo-token", given); // of this tab only, for a reload
  history.replaceState(null, "", location.pathname + location.hash);
  const head = await (await asked(`${here}/head`)).json(), began = performance.now();
  const failed = (error) => place.prepend(h("p", { role: "alert" }, error.message));
  const send = (message) => {
    if (message.type === "stop") post(`${here}/stop`, {}).catch(failed);
    else if (message.type === "answer") post(`${here}/answer`, { text: message.text, request_id: message.id }).catch(failed);
  };
  const pathOf = (id) => here.replace(/[^/]+$/, encodeURIComponent(id));
  const child = async (id) => {
    const path = pathOf(id), events = [], inner = await (await asked(`${path}/head`)).json();
    if (inner.live) throw new Error(tr("serve.live"));
    await stream(path, 0, (row) => events.push(row));
    return { head: inner, events };
  };
  const got = async (path, query = {}) => (await asked(`${path}?${new URLSearchParams(query)}`)).json();
  const ask = async ({ what, ...order }) => {
    if (what === "child") return child(order.run);
    if (what === "inputs") return got(`${here}/inputs`);
    if (what === "copy") return got(`${here}/copy`, order);
    if (what === "compare") return got(`${here}/compared`, { with: order.run });
    if (what === "runs") { const { runs } = await got(here.replace(/\/[^/]+$/, ""), { offset: 0, limit: 25 }); return { runs: runs.filter((run) => run.run_id !== head.run_id) }; }
    if (what === "note") { await post(`${here}/notes`, order); if (over) await stream(here, last, take); return {}; }
    const begun = await (await post(`${here}/another`, { ...order, kind: what })).json();
    location.assign(`${pathOf(begun.run_id)}/page`); // Back leads to this one
    return begun;
  };
  const view = createRunView(place, { head, host: { send, ask } });
  let last = 0, waiting = [], timer = 0, tries = 0, over = false;
  const flush = () => { timer = 0; view.push(waiting); waiting = []; if (head.live && tries) view.now(head.now + (performance.now() - began) / 1000); tries = 0; };
  const take = (row) => { last = row[0]; waiting.push(row); timer ||= setTimeout(flush, BATCH_MS); };
  if (head.live) view.now(head.now);
  for (;;) {
    try {
      await stream(here, last, take);
      break;
    } catch (error) {
      if (error.status) throw error;
      if (++tries === SILENT_TRIES) view.gone();
      await new Promise((go) => setTimeout(go, AGAIN_MS));
    }
  }
  clearTimeout(timer);
  flush();
  over = true;
  view.ended();
}

const place = document.getElementById("run");
open(place).catch((error) => place.append(h("p", { role: "alert" }, error.message)));
