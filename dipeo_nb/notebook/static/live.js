// The live view of a run. Kernel → page: traits, at most 20 times a second. Page → kernel: custom messages only
// (a trait may never arrive while a cell runs on ipykernel 7.4). All text goes in by textContent; the only markup is the
// drawing, which the kernel has escaped. Light DOM on purpose: in a shadow root Lab would take typed letters as commands.

const SILENCE_MS = 6000; // the kernel speaks once a second while a run goes on; silence means that it is gone or blocked
const PATIENCE_MS = 3000; // a kernel without subshells takes Stop in only when its cell has ended
const READABLE = 11 / 13; // a drawing scrolls instead of shrinking further: its labels, of 13 pixels, keep 11
const OVERVIEW_NODES = 40; // with more nodes than this a drawing starts as an overview, to be zoomed into
const MAP_WIDTH = 150;

const WORDS = { maxiter_reached: "completed, all runs used", aborted: "stopped", "": "" };
const word = (status) => WORDS[status] ?? status;

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function duration(seconds) {
  const value = Math.max(0, seconds);
  return value < 60 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
}

function render({ model, el }) {
  const QUIET = { "data-lm-suppress-shortcuts": "true" }; // Lab's own way to leave the keys of an element alone

  const name = element("span", { class: "dipeo-name" });
  const status = element("span", { class: "dipeo-status", role: "status", "aria-live": "polite" });
  const clock = element("span", { class: "dipeo-clock" });
  const spent = element("span", { class: "dipeo-spent" });
  const stop = element("button", { type: "button", class: "dipeo-stop", ...QUIET }, "Stop");
  const bar = element("div", { class: "dipeo-bar" }, name, status, clock, spent, stop);

  const asker = element("span", { class: "dipeo-asker" });
  const prompt = element("label", { class: "dipeo-prompt" });
  const field = element("input", { type: "text", autocomplete: "off", ...QUIET });
  const send = element("button", { type: "submit", ...QUIET }, "Send");
  const fields = element("div", { class: "dipeo-fields" }, field, send);
  const note = element("p", { class: "dipeo-note" });
  const form = element("form", { class: "dipeo-form", "aria-label": "Question of the run" }, asker, prompt, fields, note);
  field.id = `dipeo-answer-${Math.random().toString(36).slice(2)}`;
  prompt.htmlFor = field.id;
  form.hidden = true;

  const map = element("canvas", { class: "dipeo-map", "aria-hidden": "true", width: MAP_WIDTH });
  const zoomButton = (name, sign) => element("button", { type: "button", "aria-label": name, title: name, ...QUIET }, sign);
  const [out, whole, full, into] = [["Zoom out", "−"], ["Show all", "Fit"], ["Actual size", "100 %"], ["Zoom in", "+"]].map((b) => zoomButton(...b));
  const zooms = element("div", { class: "dipeo-zooms", role: "group", "aria-label": "Zoom" }, out, whole, full, into);
  const drawing = element("div", { class: "dipeo-drawing", role: "group", "aria-label": "Diagram; arrow keys move between nodes" });

  const stage = element("div", { class: "dipeo-stage" }, drawing, map, zooms);

  const who = element("span", { class: "dipeo-who" });
  const follow = element("button", { type: "button", class: "dipeo-follow", ...QUIET }, "Follow the run");
  const text = element("pre", { class: "dipeo-text", tabindex: "0", "aria-label": "Text of the selected node", "data-empty": "No text yet", ...QUIET });
  const output = element("div", { class: "dipeo-output" }, element("div", { class: "dipeo-head" }, who, follow), text);

  const summary = element("summary", QUIET, "Events");
  const rows = element("tbody");
  const table = element("table", { class: "dipeo-rows" },
    element("thead", {}, element("tr", {}, ...["#", "time", "event", "node", ""].map((h) => element("th", { scope: "col" }, h)))), rows);
  const log = element("div", { class: "dipeo-log", tabindex: "0", role: "region", "aria-label": "Events of the run", ...QUIET }, table);
  const details = element("details", { class: "dipeo-events" }, summary, log);

  const root = element("section", { class: "dipeo-view", "aria-label": "Run of a diagram" }, bar, form, stage, output, details);

  let nodes = []; // {element, id, words (of the drawing), runs (its text)}
  let asked = null;
  let shown = { seconds: 0, at: performance.now() };
  let heard = performance.now();
  let lastRow = 0;
  let stopped = null; // when Stop was pressed
  let [svg, size, large, chosen, mapping] = [null, { w: 1, h: 1 }, false, "fit", 0];
  let drag = null; // where the drawing was taken hold of

  const going = () => ["running", "pending"].includes(model.get("run").status);
  const elapsed = () => shown.seconds + (model.get("run").status === "running" ? (performance.now() - shown.at) / 1000 : 0);

  function drawPicture() {
    drawing.innerHTML = model.get("svg");
    nodes = [...drawing.querySelectorAll("[data-node]")].map((node) => ({
      element: node, id: node.dataset.node, words: node.getAttribute("aria-label") || "",
      title: node.querySelector("title"), runs: node.querySelector(".dp-runs text"),
    }));
    nodes.forEach((node, i) => node.element.setAttribute("tabindex", i ? "-1" : "0")); // one stop for Tab, arrows inside
    measure();
    drawRun();
    drawText();
  }

  // Zoom: "fit" follows the width of the page (a small drawing) or shows all of a large one; else a number.

  function measure() {
    svg = drawing.querySelector("svg");
    if (!svg) return;
    size = { w: Number(svg.getAttribute("width")), h: Number(svg.getAttribute("height")) };
    for (const node of nodes) {
      const [x, y] = node.element.transform.baseVal.numberOfItems ? [node.element.transform.baseVal[0].matrix.e, node.element.transform.baseVal[0].matrix.f] : [0, 0];
      const box = node.element.querySelector(".dp-box").getBBox();
      node.place = { x, y, w: box.width, h: box.height };
    }
    large = nodes.length > OVERVIEW_NODES;
    stage.toggleAttribute("data-large", large);
    zoom("fit");
  }

  const least = () => Math.min(1, drawing.clientWidth / size.w, parseFloat(getComputedStyle(drawing).maxHeight) / size.h || 1);
  const scale = () => svg.getBoundingClientRect().width / size.w;

  // The point (x, y) of the pane, in pixels from its corner, stays where it is.
  function zoom(wanted, x = drawing.clientWidth / 2, y = drawing.clientHeight / 2) {
    if (!svg || !drawing.clientWidth) return;
    const before = scale() || 1;
    const spot = [(drawing.scrollLeft + x) / before, (drawing.scrollTop + y) / before];
    chosen = wanted === "fit" ? "fit" : Math.min(2, Math.max(least(), wanted));
    if (chosen === "fit" && !large) {
      svg.style.minWidth = `${Math.round(size.w * READABLE)}px`;
      svg.style.width = svg.style.maxWidth = "";
    } else {
      svg.style.minWidth = "0";
      svg.style.maxWidth = "none";
      svg.style.width = `${size.w * (chosen === "fit" ? least() : chosen)}px`;
    }
    const now = scale();
    drawing.scrollLeft = spot[0] * now - x;
    drawing.scrollTop = spot[1] * now - y;
    drawing.toggleAttribute("data-overview", now < 0.55);
    stage.toggleAttribute("data-partly", now > least() * 1.01);
    put(full, large ? `${Math.round(now * 100)} %` : "100 %");
    out.disabled = now <= least() * 1.01;
    into.disabled = now >= 1.99;
    drawMap();
  }

  function drawMap() {
    if (!large || mapping || !stage.hasAttribute("data-partly")) return;
    mapping = requestAnimationFrame(() => {
      mapping = 0;
      const share = MAP_WIDTH / size.w;
      map.height = Math.min(Math.round(size.h * share), 220);
      const [sx, sy] = [share, map.height / size.h];
      const pen = map.getContext("2d");
      const colours = new Map();
      for (const node of nodes) {
        const state = node.element.dataset.status;
        if (!colours.has(state)) colours.set(state, getComputedStyle(node.element.querySelector(".dp-box")).stroke);
        pen.fillStyle = colours.get(state);
        pen.fillRect(node.place.x * sx, node.place.y * sy, Math.max(2, node.place.w * sx), Math.max(1.5, node.place.h * sy));
      }
      const now = scale();
      pen.strokeStyle = getComputedStyle(root).getPropertyValue("--dipeo-frame") || "#2563eb";
      pen.lineWidth = 1.5;
      pen.strokeRect((drawing.scrollLeft / now) * sx + 1, (drawing.scrollTop / now) * sy + 1,
        Math.min(map.width - 2, (drawing.clientWidth / now) * sx - 2), Math.min(map.height - 2, (drawing.clientHeight / now) * sy - 2));
    });
  }

  function goTo(event) {
    const frame = map.getBoundingClientRect();
    const now = scale();
    drawing.scrollLeft = ((event.clientX - frame.left) / frame.width) * size.w * now - drawing.clientWidth / 2;
    drawing.scrollTop = ((event.clientY - frame.top) / frame.height) * size.h * now - drawing.clientHeight / 2;
  }

  function drawRun() {
    const run = model.get("run");
    heard = performance.now();
    put(name, run.model ? `${run.name} · ${run.model}` : run.name);
    put(status, run.status);
    put(spent, run.spent);
    root.dataset.status = run.status;
    stop.disabled = !going() || (stopped !== null && performance.now() - stopped < PATIENCE_MS);
    // The page's own clock goes on between two messages; it is set only when it is wrong.
    if (run.status !== "running" || Math.abs(run.elapsed - elapsed()) > 1.5) shown = { seconds: run.elapsed, at: performance.now() };
    for (const node of nodes) {
      const [state, count] = run.nodes[node.id] || ["", 0];
      const data = node.element.dataset;
      if (data.status === state && data.runs === String(count)) continue;
      data.status = state;
      data.runs = String(count);
      if (node.runs) put(node.runs, `×${count}`);
      const said = [node.words, word(state), count ? `${count} run${count > 1 ? "s" : ""}` : ""].filter(Boolean).join(", ");
      node.element.setAttribute("aria-label", said);
      if (node.title) put(node.title, said);
    }
    drawMap();
    drawQuestion(run.question);
  }

  function drawQuestion(question) {
    form.hidden = !question;
    if (!question) { asked = null; return; }
    fields.hidden = question.elsewhere;
    put(asker, question.label);
    put(prompt, question.prompt);
    put(note, question.elsewhere ? "Answer in the box below the cell that waits for the run." : left(question));
    if (question.id === asked) return;
    asked = question.id;
    field.value = "";
    field.placeholder = question.default ?? "";
    send.disabled = field.disabled = false;
    // Never take the keyboard away from somebody who types elsewhere.
    if (!question.elsewhere && (document.activeElement === document.body || root.contains(document.activeElement))) field.focus({ preventScroll: true });
  }

  function left(question) {
    const otherwise = question.default == null ? "then the run fails" : `then “${question.default}” is the answer`;
    if (question.deadline == null) return "";
    return `${Math.max(0, Math.ceil(question.deadline - Date.now() / 1000))} s left, ${otherwise}.`;
  }

  function drawText() {
    const now = model.get("text");
    put(who, now.label);
    follow.hidden = !now.chosen;
    for (const node of nodes) {
      const on = node.id === now.node;
      if (on && !node.element.hasAttribute("data-selected")) reveal(node.element);
      node.element.toggleAttribute("data-selected", on);
      node.element.setAttribute("aria-pressed", String(on));
    }
    if (text.textContent === now.text) return;
    const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 30;
    // Tokens that follow are appended, so that a selection of the text survives them.
    if (text.firstChild && now.text.startsWith(text.textContent)) text.firstChild.appendData(now.text.slice(text.textContent.length));
    else text.textContent = now.text;
    if (atEnd) text.scrollTop = text.scrollHeight;
  }

  // Scrolls the drawing, never the page.
  function reveal(node) {
    const [inner, outer] = [node.getBoundingClientRect(), drawing.getBoundingClientRect()];
    const missing = (from, to, low, high) => (from < low ? from - low - 20 : to > high ? to - high + 20 : 0);
    drawing.scrollLeft += missing(inner.left, inner.right, outer.left, outer.right);
    drawing.scrollTop += missing(inner.top, inner.bottom, outer.top, outer.bottom);
  }

  function drawLog() {
    const now = model.get("log");
    const hidden = now.total - now.rows.length;
    put(summary, `Events (${now.total}${hidden > 0 ? `, the last ${now.rows.length} shown` : ""})`);
    if (!details.open) return; // drawn when it is opened
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
    for (const row of now.rows) {
      if (row[0] <= lastRow) continue;
      rows.append(element("tr", {}, ...row.map((cell) => element("td", {}, String(cell)))));
      lastRow = row[0];
    }
    while (rows.children.length > now.rows.length) rows.firstChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  function select(id) { model.send({ type: "select", node: id }); }
  function nodeAt(target) { return nodes.find((node) => node.element === target.closest("[data-node]")); }

  drawing.addEventListener("click", (event) => {
    const node = nodeAt(event.target);
    if (!node || drag?.moved) return;
    select(node.id);
    if (drawing.hasAttribute("data-overview")) {
      const pane = drawing.getBoundingClientRect();
      zoom(1, event.clientX - pane.left, event.clientY - pane.top);
      reveal(node.element);
    }
  });
  drawing.addEventListener("pointerdown", (event) => {
    drag = event.button || event.pointerType === "touch" ? null : { x: event.clientX, y: event.clientY, left: drawing.scrollLeft, top: drawing.scrollTop, moved: false };
  });
  drawing.addEventListener("pointermove", (event) => {
    if (!drag || !event.buttons) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < 5) return;
    if (!drag.moved) drawing.setPointerCapture(event.pointerId);
    drag.moved = true;
    drawing.scrollLeft = drag.left - dx;
    drawing.scrollTop = drag.top - dy;
  });
  drawing.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const pane = drawing.getBoundingClientRect();
    zoom(scale() * Math.exp(-event.deltaY / 300), event.clientX - pane.left, event.clientY - pane.top);
  }, { passive: false });
  drawing.addEventListener("scroll", drawMap, { passive: true });
  map.addEventListener("pointerdown", (event) => { map.setPointerCapture(event.pointerId); goTo(event); });
  map.addEventListener("pointermove", (event) => { if (event.buttons) goTo(event); });
  out.addEventListener("click", () => zoom(scale() / 1.3));
  into.addEventListener("click", () => zoom(scale() * 1.3));
  whole.addEventListener("click", () => zoom("fit"));
  full.addEventListener("click", () => zoom(1));
  drawing.addEventListener("keydown", (event) => {
    const at = nodes.indexOf(nodeAt(event.target));
    if (at < 0) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" || event.key === " ") select(nodes[at].id);
    else if (event.key === "Escape") select(null);
    else if (event.key === "+" || event.key === "-") zoom(scale() * (event.key === "+" ? 1.3 : 1 / 1.3));
    else if (event.key === "0") zoom("fit");
    else if (step) {
      const next = nodes[(at + step + nodes.length) % nodes.length].element;
      nodes[at].element.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus({ preventScroll: true });
      reveal(next);
    } else return;
    event.preventDefault();
  });
  follow.addEventListener("click", () => select(null));
  details.addEventListener("toggle", drawLog);
  stop.addEventListener("click", () => {
    stopped = performance.now();
    stop.disabled = true;
    model.send({ type: "stop" });
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!asked) return;
    send.disabled = field.disabled = true;
    model.send({ type: "answer", id: asked, text: field.value || field.placeholder });
  });
  // Lab's single-key commands (x cuts the cell) must not see what is typed here; Tab and Ctrl/Cmd keys pass.
  root.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey || event.key === "Tab" || (event.shiftKey && event.key === "Enter"))) event.stopPropagation();
  });

  const ticking = setInterval(() => {
    const silent = going() && performance.now() - heard > SILENCE_MS;
    const deaf = going() && stopped !== null && performance.now() - stopped > PATIENCE_MS;
    root.toggleAttribute("data-silent", silent || deaf);
    if (silent) put(clock, "no answer from the kernel");
    else if (deaf) put(clock, `${duration(elapsed())}: the kernel is busy, interrupt it (■ in the toolbar) to stop the run`);
    else put(clock, duration(elapsed()));
    const question = model.get("run").question;
    if (question && !question.elsewhere) put(note, left(question));
  }, 100);

  const handlers = { "change:run": drawRun, "change:text": drawText, "change:log": drawLog, "change:svg": drawPicture };
  for (const [event, handler] of Object.entries(handlers)) model.on(event, handler);
  shown = { seconds: model.get("run").elapsed, at: performance.now() };
  drawPicture();
  drawLog();
  el.appendChild(root);
  // Nothing has a size before it is on the page; later the page may become wider or narrower.
  const resized = new ResizeObserver(() => {
    if (!svg || !drawing.clientWidth) return;
    if (chosen === "fit") zoom("fit");
    else drawMap();
  });
  resized.observe(stage);
  measure();
  model.send({ type: "hello" }); // heard by a busy kernel, it means that clicks get through

  return () => {
    resized.disconnect();
    cancelAnimationFrame(mapping);
    clearInterval(ticking);
    for (const [event, handler] of Object.entries(handlers)) model.off(event, handler);
  };
}

export default { render };
