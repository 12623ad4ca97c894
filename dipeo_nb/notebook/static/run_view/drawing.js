// The drawing of the diagram, as Python made it. Stroke tells the state, fill the selection, a ring outside the focus.
import { look } from "./fold.js";
import { tr } from "./strings.js";
import { count, focusedIn, followPointer, h, howFar, icon, mark, put, seconds, tokens, word } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const GLYPHS = {
  waiting: "M-2.6 1V-2.6M-.9-.2V-4M.9-.2V-4M2.6 0V-2.8M-2.6 1C-2.6 3.6-1.4 4.4.2 4.4S2.6 3.4 2.6 1V0", retrying: "M3.6-1.2A3.8 3.8 0 1 0 3.4 1.8M4-3.8V-.9H1.1",
  queued: "M-2.8-4H2.8M-2.8 4H2.8M-2.2-4C-2.2-1.4 2.2 1.4 2.2 4M2.2-4C2.2-1.400-2.200 1.400-2.200 4",
};
const READABLE = 9.5 / 13; // labels are 13 px: they do not get smaller than 9.5 unless someone wants all of it
const MOST = 1.1, OVERVIEW = 0.6, MAP_NODES = 40, MAP_WIDTH = 132, MAP_HEIGHT = 110;
const LEAST = 0.22; // of a large diagram, nodes are never smaller than that unless someone wants all of it
const TEXT_X = 36; // where the texts of a node begin
const STEP = 60; // pixels by which a key moves the drawing
const FRESH_S = 1.5; // what has just been done is seen as such
const FIT = "M1 4V1h3M8 1h3v3M11 8v3H8M4 11H1V8";

const shape = (tag, attributes) => { const el = document.createElementNS(SVG, tag); for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v); return el; };
const between = (low, x, high) => Math.min(Math.max(x, low), Math.max(low, high));

/** A drawing as Python wrote it, for this page; null when it is none. @param {string} text @returns {any} */
export function parsedDrawing(text) {
  // Without the attribute for pages that have no style sheet of ours: the policy of our own pages refuses such.
  const parsed = new DOMParser().parseFromString(text.replace(/^(<svg[^>]*?) style="[^"]*"/, "$1"), "image/svg+xml").documentElement;
  if (parsed.localName !== "svg") return null;
  const svg = document.importNode(parsed, true);
  for (const name of ["width", "height"]) svg.removeAttribute(name);
  svg.querySelector("title")?.remove();
  return svg;
}

export function drawing(view) {
  const stage = h("div", { class: "dp-stage" }), level = h("span", { class: "dp-zoom dp-num", "aria-hidden": "true" });
  const tool = (label, face, act) => h("button", { class: "dp-tool", type: "button", "aria-label": label, title: label, onclick: act }, face);
  const tools = h("div", { class: "dp-tools" }, tool(tr("drawing.out"), "−", () => zoom(1 / 1.25)), tool(tr("drawing.fit"), icon(FIT, 12, "dp-ic dp-open"), () => fit(true)), tool(tr("drawing.in"), "+", () => zoom(1.25)), level);
  const map = h("canvas", { class: "dp-map", "aria-hidden": "true", width: MAP_WIDTH, hidden: true });
  const el = h("div", { class: "dp-drawing-pane", role: "group", "aria-label": tr("drawing.label") }, stage, map, tools);
  const nodes = new Map(), arrows = [];
  let svg = null, natural = { x: 0, y: 0, w: 1, h: 1 }, box = { x: 0, y: 0, k: 1 }, auto = true, followed = null, mapped = "";

  function load() {
    svg = parsedDrawing(view.head.svg);
    if (!svg) { stage.append(h("p", { class: "dp-none" }, tr("drawing.none"))); return; }
    for (const g of svg.querySelectorAll("[data-node]")) {
      const [left, top] = (/translate\(([\d.-]+) ([\d.-]+)\)/.exec(g.getAttribute("transform") ?? "") ?? [0, 0, 0]).slice(1).map(Number), outline = g.querySelector(".dp-box");
      const [w, tall] = sizeOf(outline), id = view.idOf(g.getAttribute("data-node")), sub = g.querySelector(".dp-sub"), badge = g.querySelector(".dp-badge");
      g.querySelector("title")?.remove(); // it would be read twice, and hide what the panel says
      for (const text of g.querySelectorAll(".dp-label, .dp-sub")) text.setAttribute("x", String(TEXT_X));
      const seen = [...g.querySelectorAll(".dp-label")].map((text) => text.textContent).join(" ");
      for (const text of [...g.querySelectorAll(".dp-label")].slice(1)) text.textContent = ` ${text.textContent}`; // parts of a name for those who hear it
      g.querySelector(".dp-icon")?.setAttribute("transform", g.querySelector(".dp-icon").getAttribute("transform").replace(/\([\d.]+/, `(${TEXT_X - 24}`));
      for (const [status, d] of Object.entries(GLYPHS)) badge?.append(shape("path", { class: `dp-glyph dp-g-${status}`, d }));
      nodes.set(id, { g, seen, sub, plain: sub?.textContent ?? "", runs: g.querySelector(".dp-runs text"), spoken: "", counted: -1, from: new Set(), x: left, y: top, w, h: tall });
    }
    for (const g of svg.querySelectorAll("[data-arrow]")) arrows.push({ g, from: view.idOf(g.getAttribute("data-source")), to: view.idOf(g.getAttribute("data-target")) });
    stage.append(svg);
    for (const n of nodes.values()) {
      // Inside the box: arrows arrive at its border.
      n.g.querySelector(".dp-runs")?.setAttribute("transform", `translate(${n.w - (n.g.querySelector("path.dp-box") ? 20 : 10)} ${n.g.querySelector(".dp-label").getAttribute("y")})`);
      n.g.querySelector(".dp-runs text")?.setAttribute("y", "0");
      n.g.prepend(shape("rect", { class: "dp-ring", x: -4, y: -4, width: n.w + 8, height: n.h + 8, rx: Math.min(14, n.h / 2 + 4) }));
    }
    natural = bounds();
    el.style.setProperty("--dp-tall", `${Math.round(between(168, natural.h * 0.9 + 24, 300))}px`);
    map.hidden = nodes.size < MAP_NODES;
    rove(nodes.keys().next().value);
  }
  /** The room that the nodes, arrows and their labels take, with a little space around it. */
  function bounds() {
    const boxes = [...nodes.values()].map((n) => [n.x, n.y - 10, n.x + n.w, n.y + n.h]), number = (el, name) => Number(el.getAttribute(name));
    for (const line of svg.querySelectorAll(".dp-arrow .dp-line")) for (const [, x, y] of line.getAttribute("d").matchAll(/[MLQ ](-?[\d.]+) (-?[\d.]+)/g)) boxes.push([+x, +y, +x, +y]);
    for (const tag of svg.querySelectorAll(".dp-tag rect")) boxes.push([number(tag, "x"), number(tag, "y"), number(tag, "x") + number(tag, "width"), number(tag, "y") + number(tag, "height")]);
    if (!boxes.length) return { x: 0, y: 0, w: 200, h: 60 };
    const [x, y, right, bottom] = boxes.reduce((a, c) => [Math.min(a[0], c[0]), Math.min(a[1], c[1]), Math.max(a[2], c[2]), Math.max(a[3], c[3])]);
    return { x: x - 8, y: y - 2, w: right - x + 16, h: bottom - y + 12 };
  }
  /** Width and height of an outline: of a rectangle, or of a shape with its widest place halfway down. */
  function sizeOf(outline) {
    const widest = /L(-?[\d.]+) (-?[\d.]+)/.exec(outline?.getAttribute("d") ?? "");
    return widest ? [Number(widest[1]), Number(widest[2]) * 2] : ["width", "height"].map((name) => Number(outline?.getAttribute(name) ?? 0));
  }

  // Where the drawing stands: `box.k` pixels for one of its own; its point (box.x, box.y) is in the corner.
  let room = { w: 600, h: 240 }; // of the pane; to ask for it at every draw would have the page laid out each time
  const pane = () => room;
  function place() {
    const p = pane();
    svg.setAttribute("viewBox", `${box.x} ${box.y} ${p.w / box.k} ${p.h / box.k}`);
    put(level, `${Math.round(box.k * 100)} %`);
    mark(el, "data-overview", box.k < OVERVIEW);
    mark(el, "data-more-l", box.x > natural.x + 8);
    mark(el, "data-more-r", box.x + p.w / box.k < natural.x + natural.w - 8);
    mapped = "";
  }
  function zoom(factor, at = null) {
    if (!svg) return;
    const p = pane(), [px, py] = at ?? [p.w / 2, p.h / 2], k = between(0.1, box.k * factor, 3);
    box = { k, x: box.x + px / box.k - px / k, y: box.y + py / box.k - py / k };
    auto = false;
    place();
  }
  function fit(whole = false) {
    if (!svg) return;
    const p = pane(), best = Math.min(MOST, p.w / natural.w, p.h / natural.h), k = whole ? best : Math.max(best, nodes.size >= MAP_NODES ? LEAST : READABLE);
    auto = !whole;
    box = { k, x: natural.x - Math.max(0, (p.w / k - natural.w) / 2), y: natural.y - Math.max(0, (p.h / k - natural.h) / 2) };
    place();
    if (!whole) follow(followed);
  }
  function move(dx, dy) {
    if (!svg) return;
    auto = false;
    box = { ...box, x: box.x + (dx * STEP) / box.k, y: box.y + (dy * STEP) / box.k };
    place();
    paintMap();
  }
  /** Keeps a node in sight as long as nobody has moved the drawing. */
  function follow(id, always = false) {
    const n = nodes.get(id), p = pane();
    if (!n || !(auto || always)) return;
    const w = p.w / box.k, tall = p.h / box.k;
    box.x = w < natural.w ? between(natural.x, between(n.x + n.w + 28 - w, box.x, n.x - 28), natural.x + natural.w - w) : between(natural.x + natural.w - w, box.x, natural.x);
    box.y = tall < natural.h ? between(natural.y, between(n.y + n.h + 20 - tall, box.y, n.y - 20), natural.y + natural.h - tall) : between(natural.y + natural.h - tall, box.y, natural.y);
    place();
  }

  function rove(id) { for (const [other, n] of nodes) mark(n.g, "tabindex", other === id ? "0" : "-1"); }
  /** The nearest node in a direction. */
  function toward(id, dx, dy) {
    const from = nodes.get(id);
    let best = null, least = Infinity;
    for (const [other, n] of nodes) {
      const x = n.x + n.w / 2 - from.x - from.w / 2, y = n.y + n.h / 2 - from.y - from.h / 2, along = x * dx + y * dy, off = Math.abs(x * dy) + Math.abs(y * dx);
      if (along > 4 && along + 2.5 * off < least) { least = along + 2.5 * off; best = other; }
    }
    return best;
  }

  el.addEventListener("keydown", (e) => {
    const g = e.target.closest?.("[data-node]"), id = g && view.idOf(g.dataset.node), step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[e.key];
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (step && e.shiftKey) move(...step);
    else if (g && step) {
      const to = toward(id, ...step);
      if (to !== null) { rove(to); nodes.get(to).g.focus({ preventScroll: true }); }
    } else if (g && (e.key === "Enter" || e.key === " ")) view.select(id, { open: e.key === "Enter" });
    else if (e.key === "+" || e.key === "=" || e.key === "-") {
      zoom(e.key === "-" ? 1 / 1.25 : 1.25);
      if (g) follow(id, true);
    }
    else if (e.key === "0") fit(true);
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
  // Who comes to a node by key sees it, wherever the drawing had been moved to; under a pointer it stays.
  stage.addEventListener("focusin", (e) => { const g = e.target.closest("[data-node]"); if (g?.matches(":focus-visible")) follow(view.idOf(g.dataset.node), true); });
  stage.addEventListener("dblclick", (e) => { const g = e.target.closest("[data-node]"); if (g) view.select(view.idOf(g.dataset.node), { open: true }); });
  stage.addEventListener("pointerdown", (e) => {
    if (e.button !== 0 || !svg) return;
    const g = e.target.closest("[data-node]"), from = { x: e.clientX, y: e.clientY, bx: box.x, by: box.y };
    let moved = false;
    const move = (m) => {
      if (!moved && Math.hypot(m.clientX - from.x, m.clientY - from.y) < 4) return;
      moved = true;
      auto = false;
      stage.classList.add("dp-panning");
      box = { ...box, x: from.bx - (m.clientX - from.x) / box.k, y: from.by - (m.clientY - from.y) / box.k };
      place();
      paintMap();
    };
    followPointer(move, (last) => {
      stage.classList.remove("dp-panning");
      if (!moved && g && last.type === "pointerup") { rove(view.idOf(g.dataset.node)); view.select(view.idOf(g.dataset.node)); }
    });
  });
  stage.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && !e.metaKey) return; // the wheel alone scrolls the page
    e.preventDefault();
    const b = stage.getBoundingClientRect();
    zoom(Math.exp(-e.deltaY / 300), [e.clientX - b.left, e.clientY - b.top]);
    paintMap();
  }, { passive: false });
  map.addEventListener("pointerdown", (e) => {
    const b = map.getBoundingClientRect(), p = pane(), share = Math.max(natural.w / b.width, natural.h / b.height);
    auto = false;
    box = { ...box, k: Math.max(box.k, READABLE) };
    box.x = natural.x + (e.clientX - b.left) * share - p.w / box.k / 2;
    box.y = natural.y + (e.clientY - b.top) * share - p.h / box.k / 2;
    place();
    paintMap();
    e.preventDefault();
  });

  /** The whole in small, from `MAP_NODES` nodes on: states as colours, and what of it is in sight. */
  function paintMap() {
    if (map.hidden) return;
    const share = Math.min(MAP_WIDTH / natural.w, MAP_HEIGHT / natural.h), [wide, tall] = [natural.w, natural.h].map((x) => Math.max(24, Math.round(x * share))), p = pane();
    const key = `${Math.round(box.x)} ${Math.round(box.y)} ${box.k} ${[...nodes.values()].map((n) => n.g.dataset.status).join()}`;
    if (mapped === key) return;
    mapped = key;
    if (map.height !== tall) map.height = tall;
    if (map.width !== wide) map.width = wide;
    const pen = map.getContext("2d"), style = getComputedStyle(el), colour = (name) => style.getPropertyValue(name).trim();
    const colours = { running: "--dp-now", retrying: "--dp-now", failed: "--dp-bad", waiting: "--dp-wait-fill", queued: "--dp-wait-fill", completed: "--dp-ink2" };
    map.style.color = colour("--dp-edge");
    pen.clearRect(0, 0, wide, tall);
    for (const n of nodes.values()) {
      map.style.color = colour(colours[n.g.dataset.status] ?? "--dp-edge");
      pen.fillStyle = getComputedStyle(map).color;
      pen.fillRect((n.x - natural.x) * share, (n.y - natural.y) * share, Math.max(2, n.w * share), Math.max(2, n.h * share));
    }
    map.style.color = colour("--dp-ink");
    pen.strokeStyle = getComputedStyle(map).color;
    pen.strokeRect((box.x - natural.x) * share + 0.5, (box.y - natural.y) * share + 0.5, p.w / box.k * share - 1, p.h / box.k * share - 1);
  }

  load();
  const resized = new ResizeObserver(() => {
    if (!svg || !stage.clientWidth) return;
    room = { w: stage.clientWidth, h: stage.clientHeight };
    (auto ? fit() : place());
  });
  resized.observe(stage);

  function update({ s, t, selected }) {
    const active = new Set(), used = new Set();
    for (const [id, n] of nodes) {
      const state = s.nodes.get(id), turn = state?.turns.at(-1), status = look(s, id, t), runs = state ? state.earlier.turns + state.turns.length : 0;
      const fresh = status === "completed" && s.status === "running" && turn && turn.end !== null && t - turn.end < FRESH_S;
      mark(n.g, "data-status", status);
      mark(n.g, "data-fresh", fresh);
      mark(n.g, "data-selected", id === selected);
      mark(n.g, "aria-pressed", String(id === selected));
      mark(n.g, "data-many", runs > 1);
      if (n.runs) put(n.runs, runs > 1 ? ` ×${runs}` : "");
      const said = liveLine(view, s, id, t, status) || n.plain;
      if (n.sub) put(n.sub, said && ` ${said}`);
      mark(n.g, "data-raised", !n.plain && said); // a name that stood alone makes room for the line below
      // What is seen stands first, as those need who speak to their computer; a name is not rewritten under the cursor of a screen reader.
      const whole = view.label(s, id), more = whole === n.seen ? "" : `, ${whole}`;
      const spoken = `${n.seen}${said && ` ${said}`}${runs > 1 ? ` ×${runs}` : ""}${more}, ${word(status)}`;
      if (n.spoken !== spoken && !(n.g === focusedIn(el) && n.status === status)) { n.spoken = spoken; mark(n.g, "aria-label", spoken); }
      n.status = status;
      if (n.counted !== runs) {
        n.counted = runs;
        n.from = new Set([...(state?.earlier.from ?? []), ...(state?.turns ?? []).flatMap((one) => one.inputs.map(([, from]) => from))]);
      }
      for (const from of n.from) used.add(`${from} ${id}`);
      if (turn && (turn.end === null || fresh)) for (const [, from] of turn.inputs) active.add(`${from} ${id}`);
    }
    for (const a of arrows) { mark(a.g, "data-active", active.has(`${a.from} ${a.to}`)); mark(a.g, "data-used", used.has(`${a.from} ${a.to}`)); }
    if (followed !== selected) { followed = selected; if (!el.contains(focusedIn(el))) rove(selected); if (svg) follow(selected); }
    paintMap();
  }
  return { el, update, fit, focus() { nodes.get(followed)?.g.focus({ preventScroll: true }); follow(followed, true); }, dispose: () => resized.disconnect() };
}

/** The one line of a node: what it has taken so far, or how far it is. */
export function liveLine(view, s, id, t, status) {
  const n = s.nodes.get(id), turn = n?.turns.at(-1);
  if (status === "queued") return `${tr("live.waits")} · ${seconds(t - n.waiting)}`;
  if (!turn) return status === "skipped" ? word(status) : "";
  if (status === "waiting") return word(status);
  if (status === "retrying") { const r = turn.retries.at(-1); return tr("live.again", { time: seconds(Math.max(0, r.at + r.wait - t)) }); }
  if (status === "running") {
    const far = n.share ? howFar(n.share) : turn.pieces ? `${tokens(turn.pieces)} ${tr("tok")}` : "";
    return [seconds(t - turn.start), far].filter(Boolean).join(" · ");
  }
  const took = (turn.end ?? t) - turn.start;
  if (status === "failed") return `${word(status)} · ${seconds(took)}`;
  if (status === "aborted" || status === "interrupted") return [turn.pieces ? seconds(took) : `${word("aborted")} · ${seconds(took)}`, turn.pieces ? `~${tokens(turn.pieces)} ${tr("tok")}` : ""].filter(Boolean).join(" · ");
  if (view.kind(s, id) === "condition") return turn.meta.branch ? `→ ${turn.meta.branch.replace("cond", "")}` : "";
  const spent = (n.spent.usage.input ?? 0) + (n.spent.usage.output ?? 0), all = n.turns.reduce((sum, x) => sum + ((x.end ?? t) - x.start), n.earlier.seconds);
  if (n.reused) return tr("taken");
  if (n.children.length > 1) return `${count(n.children.length, "item")} · ${seconds(all)}`;
  return spent ? `${seconds(all)} · ${tokens(spent)} ${tr("tok")}` : all < 0.0095 ? "" : seconds(all);
}
