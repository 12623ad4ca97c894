// Lanes of what each node did when. The same surface is the track of the cursor.
import { look } from "./fold.js";
import { tr } from "./strings.js";
import { focusedIn, followPointer, h, line, mark, put, seconds, textOf, word } from "./words.js";

const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];
const NOTICEABLE_S = 0.02; // nodes that take less have no lane
const SEEN = 5; // lanes for which there is room
const CLOSE = 1 / 180; // of the axis: shorter pieces that are nearer to each other than that become one

/** What the axis spans: all of a run that is over; else it grows in steps, so that it does not move all the time. */
const spanOf = (end, over) => (over ? Math.max(end, 0.05) : STEPS.find((x) => x > end * 1.05) ?? end * 1.2);

/** Parts of a turn: waiting for a place, before the first word, at work, retries, a person's turn, calls of tools, failure. */
function parts(turn, end) {
  const stop = turn.end ?? end, found = [];
  const cached = turn.meta.reused || turn.meta.saved_usd != null;
  if (turn.first !== null) found.push(["think", turn.start, Math.min(turn.first, stop)], [cached ? "cached" : "work", turn.first, stop]);
  else found.push([cached ? "cached" : "work", turn.start, stop]);
  for (const r of turn.retries) found.push(["retry", r.at, Math.min(r.at + r.wait, stop)]);
  for (const w of turn.waits) found.push([w.why === "place" ? "queue" : "wait", w.from, w.to ?? end]);
  for (const c of turn.calls) found.push(["tool", c.at, c.end ?? end]);
  if (turn.status === "failed") found.push(["fail", stop, stop]);
  return found;
}
/** What would not be told apart becomes one. */
function joined(pieces, wide) {
  const found = [];
  for (const piece of pieces) {
    const [kind, from, to] = piece, last = found.at(-1), plain = kind === "think" || kind === "work";
    if (last?.[4] && plain && to - from < wide * CLOSE && from - last[2] < wide * CLOSE) { last[2] = Math.max(last[2], to); last[0] = "work"; last[5] += 1; }
    else found.push([...piece, plain && to - from < wide * CLOSE, 1]);
  }
  return found;
}

export function timeline(view) {
  const lanes = h("div", { class: "dp-lanes" }), scroller = h("div", { class: "dp-lane-box", role: "group", "aria-label": tr("timeline.lanes") }, lanes), ticks = h("div", { class: "dp-ticks", "aria-hidden": "true" });
  const cursor = h("div", { class: "dp-cursor", role: "slider", tabindex: "0", "aria-label": tr("timeline.cursor"), "aria-valuemin": "0" }), flags = h("div", { class: "dp-flags" });
  const over = h("div", { class: "dp-over" }, flags, cursor);
  const el = h("div", { class: "dp-timeline", role: "group", "aria-label": tr("timeline.label") }, scroller, ticks, over);
  const rows = new Map();
  let wide = 1, spacious = true, scale = "", noted = null, scaled = 0, lastSelected = null;

  const seek = (e) => { const b = over.getBoundingClientRect(); view.seekTime(((e.clientX - b.left) / Math.max(1, b.width)) * wide); };
  el.addEventListener("pointerdown", (e) => {
    if (e.button !== 0 || e.target.closest("button")) return;
    e.preventDefault();
    cursor.focus({ preventScroll: true });
    seek(e);
    followPointer(seek);
  });
  cursor.addEventListener("keydown", (e) => {
    const act = { ArrowLeft: () => view.step(-1), ArrowRight: () => view.step(1), ArrowDown: () => view.step(-1), ArrowUp: () => view.step(1), PageUp: () => view.step(10), PageDown: () => view.step(-10), Home: () => view.start(), End: () => view.follow() }[e.key];
    if (!act || e.ctrlKey || e.metaKey || e.altKey) return;
    act();
    e.preventDefault();
    e.stopPropagation();
  });

  function update({ s, newest, t, end, selected, past, live, log }) {
    wide = spanOf(end, newest.ended !== null || !live);
    const share = (x) => `${Math.min(100, (x / wide) * 100).toFixed(3)}%`;
    for (const id of newest.nodes.keys()) {
      const n = newest.nodes.get(id), long = n.waiting !== null || n.turns.some((x) => (x.end ?? end) - x.start > NOTICEABLE_S || x.waits.length);
      if (long && !rows.has(id)) {
        const name = h("button", { type: "button", class: "dp-lane-name", tabindex: "-1", onclick: () => view.select(id) }), track = h("div", { class: "dp-track" });
        rows.set(id, { el: h("div", { class: "dp-lane" }, name, track), name, track, key: "" });
        const order = newest.order.filter((other) => rows.has(other));
        lanes.append(rows.get(id).el);
        for (const other of order) lanes.append(rows.get(other).el);
      }
      const r = rows.get(id);
      if (!r) continue;
      put(r.name, view.label(newest, id));
      mark(r.el, "data-selected", id === selected);
      const last = n.turns.at(-1), open = last?.end === null || n.waiting !== null;
      const key = `${wide} ${n.turns.length} ${open ? end.toFixed(1) : ""} ${last ? `${last.end} ${last.first} ${last.retries.length} ${last.waits.length} ${last.calls.length} ${last.meta.saved_usd}` : ""}`;
      if (r.key === key) continue;
      r.key = key;
      const pieces = n.turns.flatMap((turn) => parts(turn, end).map(([kind, from, to]) => [kind, from, to, turn]));
      if (n.waiting !== null && last?.end !== null) pieces.push(["queue", n.waiting, end, { run: n.runs + 1 }]);
      r.track.replaceChildren(...joined(pieces, wide).map(([kind, from, to, turn, , times]) => h("i", { class: `dp-seg dp-seg-${kind}`, style: `left:${share(from)};width:${share(to - from)}`, title: times > 2 ? tr("lane.several", { node: view.label(newest, id) }) : tr("lane.piece", { node: view.label(newest, id), run: turn.run, what: tr(`lane.${kind}`), time: seconds(to - from) }) })),
        ...(last?.end === null && newest.status === "running" ? [h("i", { class: "dp-seg dp-seg-now", style: `left:${share(last.start)};width:${share(end - last.start)}` })] : []));
    }
    if (lastSelected !== selected && rows.has(selected)) {
      lastSelected = selected;
      const r = rows.get(selected).el, top = r.offsetTop;
      if (top < scroller.scrollTop || top + 18 > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top - 36;
    }
    mark(el, "data-empty", rows.size === 0);
    mark(scroller, "tabindex", rows.size > SEEN ? "0" : null); // who has no pointer scrolls it with the arrow keys
    const shown = `${wide} ${spacious}`;
    if (scale !== shown) {
      scale = shown;
      const most = spacious ? 8 : 4, step = STEPS.find((x) => wide / x <= most) ?? wide / most, marks = [];
      for (let i = 0; i * step <= wide * 0.96; i++) marks.push(h("span", { style: `left:${share(i * step)}` }, i === 0 ? "0" : axis(i * step)));
      ticks.replaceChildren(...marks);
    }
    if (noted !== newest.notes || scaled !== wide) {
      [noted, scaled] = [newest.notes, wide];
      flags.replaceChildren(...noted.map((n) => {
        const [from, to] = [n.first, n.last].map((seq) => log.times[Math.max(0, log.positionOf(seq) - 1)] ?? 0), text = textOf(n.text);
        return h("button", { type: "button", class: "dp-flag", style: `left:${share(from)};width:${share(to - from)}`, "aria-label": `${tr("note")}: ${line(text)}`, title: text, onclick: () => view.seek(n.last) });
      }));
    }
    over.style.setProperty("--at", share(t));
    over.style.setProperty("--head", share(end));
    mark(over, "data-past", past);
    mark(cursor, "aria-valuemax", end.toFixed(1));
    mark(cursor, "aria-valuenow", t.toFixed(1));
    const busy = [...s.nodes.keys()].filter((id) => s.nodes.get(id).status === "running");
    const spoken = `${tr("timeline.at", { time: t.toFixed(1), seq: s.seq })}${busy.length ? `: ${busy.slice(0, 4).map((id) => `${view.label(s, id)} ${word(look(s, id, t))}`).join(", ")}${busy.length > 4 ? ` ${tr("timeline.more", { n: busy.length - 4 })}` : ""}` : ""}`;
    if (focusedIn(cursor) !== cursor || past || s.status !== "running") mark(cursor, "aria-valuetext", spoken); // live, it would be read ten times a second
  }
  const resized = new ResizeObserver(() => { if (spacious !== over.clientWidth > 420) { spacious = !spacious; view.draw(); } });
  resized.observe(over);
  return { el, update, focus: () => cursor.focus(), dispose: () => resized.disconnect() };
}

const axis = (x) => (x < 1 ? `${Math.round(x * 1000)} ms` : x < 60 ? `${+x.toFixed(1)} s` : x < 3600 ? `${+(x / 60).toFixed(1)} min` : `${+(x / 3600).toFixed(1)} h`);
