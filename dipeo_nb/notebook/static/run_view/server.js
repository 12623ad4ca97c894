// What the pages of `dipeo-nb serve` ask it: the runs, and the events of one as they come over HTTP. The token is in the address when a page is
// opened, and then no longer.
import { createRunView } from "./main.js";
import { tr } from "./strings.js";
import { h } from "./words.js";

const AGAIN_MS = 1000; // until a stream that broke off is asked for again
const SILENT_TRIES = 5; // in a row, after which the server counts as gone
const BATCH_MS = 50;
const SERVER_ERRORS = 500; // from here on a status says that something is away at this moment, as a proxy does while the server starts again

const given = new URLSearchParams(location.search).get("token") ?? sessionStorage.getItem("dipeo-token") ?? "";
/** The address of what this page shows, without a slash at its end. */
export const here = location.pathname.replace(/\/page$/, "");

export async function asked(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { Authorization: `Bearer ${given}`, ...options.headers } });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw Object.assign(new Error(told?.error ? `${told.error.message} ${told.error.hint ?? ""}` : tr("serve.answers", { status: answer.status })), { status: answer.status });
}

export const post = (path, body) => asked(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
export const got = async (path, query = {}) => (await asked(`${path}?${new URLSearchParams(query)}`)).json();

/** The token is for a reload of this tab only. */
export function hideToken() {
  sessionStorage.setItem("dipeo-token", given);
  history.replaceState(null, "", location.pathname + location.hash);
}

const rowOf = (wire) => [wire.metadata.seq, wire.type, Date.parse(wire.timestamp) / 1000, wire.node_id, wire.data];

/** The events of a run after a number, as they come; returns when the stream ends. `reached` is called when the server has answered. */
async function stream(path, after, take, signal, reached = () => {}) {
  const answer = await asked(`${path}/events?after=${after}`, { signal });
  reached();
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

/** Shows a run and follows it to its end. @param {HTMLElement} place @param {string} path @param {(run: string) => void} begun shows a run that was made from it
 * @returns {Promise<{whole: Promise<void>, close(): void}>} `whole`: all of it is there */
export async function shownRun(place, path, begun) {
  const [head, { rows: beginning }] = await Promise.all([got(`${path}/head`), got(`${path}/beginning`)]), began = performance.now(), closing = new AbortController();
  const failed = (error) => place.prepend(h("p", { role: "alert" }, error.message));
  const send = (message) => {
    if (message.type === "stop") post(`${path}/stop`, {}).catch(failed);
    else if (message.type === "answer") post(`${path}/answer`, { text: message.text, request_id: message.id }).catch(failed);
  };
  const pathOf = (id) => path.replace(/[^/]+$/, encodeURIComponent(id));
  const child = async (id) => {
    const inside = pathOf(id), inner = await got(`${inside}/head`);
    if (inner.live) throw new Error(tr("serve.live"));
    const { rows: events } = await got(`${inside}/beginning`);
    await stream(inside, events.at(-1)?.[0] ?? 0, (row) => events.push(row));
    return { head: inner, events };
  };
  const ask = async ({ what, ...order }) => {
    if (what === "child") return child(order.run);
    if (what === "inputs") return got(`${path}/inputs`);
    if (what === "copy") return got(`${path}/copy`, order);
    if (what === "compare") return got(`${path}/compared`, { with: order.run });
    if (what === "runs") { const { runs } = await got(path.replace(/\/[^/]+$/, ""), { offset: 0, limit: 25 }); return { runs: runs.filter((run) => run.run_id !== head.run_id) }; }
    if (what === "note") { await post(`${path}/notes`, order); if (over) await stream(path, last, take); return {}; }
    const made = await (await post(`${path}/another`, { ...order, kind: what })).json();
    begun(made.run_id);
    return made;
  };
  const view = createRunView(place, { head, host: { send, ask } });
  let last = beginning.at(-1)?.[0] ?? 0, waiting = [], timer = 0, tries = 0, over = false;
  const flush = () => { timer = 0; view.push(waiting); waiting = []; };
  const reached = () => { if (tries >= SILENT_TRIES) view.now(head.now + (performance.now() - began) / 1000); tries = 0; }; // a run that waits for an answer says nothing
  const take = (row) => { last = row[0]; waiting.push(row); timer ||= setTimeout(flush, BATCH_MS); };
  view.push(beginning);
  if (head.live) view.now(head.now);
  const follow = async () => {
    for (;;) {
      try {
        await stream(path, last, take, closing.signal, reached);
        if (!(await got(`${path}/head`)).live) break; // else the stream has ended, not the run: a proxy or the server ended it
      } catch (error) {
        if (closing.signal.aborted) return;
        if (error.status < SERVER_ERRORS) throw error;
        if (++tries === SILENT_TRIES) view.gone();
      }
      await new Promise((go) => setTimeout(go, AGAIN_MS));
    }
    clearTimeout(timer);
    flush();
    over = true;
    view.ended();
  };
  return { whole: follow(), close() { closing.abort(); clearTimeout(timer); view.dispose(); } };
}
