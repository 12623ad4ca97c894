// The run view: a cursor over the log of a run, and one `draw` that shows every part the state at the cursor.
import { bar } from "./bar.js";
import { look } from "./fold.js";
import { Recording } from "./recording.js";
import { h, mark } from "./words.js";

const DRIFT_S = 0.3; // the clock of the page is put right when it is off by more

/** @typedef {{run_id: string, name: string, model: string|null, svg: string, nodes: Object<string, {label: string, type: string, person: string|null, prompt: string|null}>,
 *   ids: Object<string, string>, budget: number|null, live: boolean, theme: "light"|"dark"|null, can: string[]}} Head */

/** Builds the view of a run inside `root`.
 * @param {HTMLElement} root
 * @param {{head: Head, host: {send(message: Object): void}}} options `host.send` takes what the view asks of whoever shows it. */
export function createRunView(root, { head, host }) {
  const log = new Recording();
  let live = head.live, gone = false, stopping = false;
  let clock = { at: 0, since: performance.now() }; // seconds of live time, as last heard
  let cursor = null; // null: at the end; else {position, t}
  let selected = null, chosen = false;
  let frame = 0;

  const running = () => live && !gone && log.stateAt(log.count).status === "running";
  const headTime = () => (running() ? Math.max(log.end, clock.at + (performance.now() - clock.since) / 1000) : log.end);

  const view = {
    head,
    can: (what) => head.can.includes(what),
    send: (message) => host.send(message),
    models: () => (head.model ? [head.model] : []),
    menu: null,
    stop() { stopping = true; host.send({ type: "stop" }); draw(); },
    seek(seq) { const position = log.positionOf(seq); cursor = position >= log.count ? null : { position, t: log.times[position - 1] ?? 0 }; draw(); },
    follow() { cursor = null; draw(); },
  };

  const parts = [bar(view)];
  const el = h("section", { class: "dp-run", "aria-label": `Run of ${head.name}`, "data-lm-suppress-shortcuts": "true", "data-theme": head.theme }, parts.map((p) => p.el));
  root.append(el);

  function pick(s, t) {
    const by = (status) => s.order.findLast((id) => look(s, id, t) === status);
    return by("failed") ?? by("waiting") ?? by("running") ?? by("retrying") ?? s.order.findLast((id) => s.nodes.get(id)?.text) ?? s.order.at(-1) ?? Object.keys(head.nodes)[0] ?? null;
  }

  function draw() {
    frame = 0;
    const newest = log.stateAt(log.count), end = headTime(), s = cursor ? log.stateAt(cursor.position) : newest, t = cursor ? cursor.t : end;
    if (!chosen) selected = pick(s, t);
    const shown = { s, newest, t, end, log, past: cursor !== null, live, gone, stopping, selected };
    for (const part of parts) part.update(shown);
    mark(el, "data-status", s.status);
    mark(el, "data-gone", gone && newest.status === "running");
    if (running()) schedule();
  }
  function schedule() { frame ||= requestAnimationFrame(draw); }

  schedule();
  return {
    push(rows) {
      log.push(rows);
      schedule();
    },
    now(seconds) {
      gone = false;
      if (Math.abs(headTime() - seconds) > DRIFT_S) clock = { at: seconds, since: performance.now() };
      schedule();
    },
    gone() { clock = { at: headTime(), since: performance.now() }; gone = true; schedule(); },
    ended() { live = false; schedule(); },
    dispose() { cancelAnimationFrame(frame); el.remove(); },
  };
}
