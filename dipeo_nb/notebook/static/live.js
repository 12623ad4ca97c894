// The live view of a run. Kernel → page: traits, at most 20 times a second. Page → kernel: custom messages only
// (a trait may never arrive while a cell runs on ipykernel 7.4). All text goes in by textContent; the only markup is the
// drawing, which the kernel has escaped.
const SIGNS = { pending: "", running: "running", completed: "completed", failed: "failed", skipped: "skipped",
  maxiter_reached: "completed", aborted: "aborted", interrupted: "interrupted" };

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function seconds(value) {
  const whole = Math.max(0, value);
  return whole < 60 ? `${whole.toFixed(1)} s` : `${Math.floor(whole / 60)} min ${Math.floor(whole % 60)} s`;
}

function render({ model, el }) {
  const status = element("span", { class: "dipeo-status", role: "status", "aria-live": "polite" });
  const clock = element("span", { class: "dipeo-clock" });
  const stop = element("button", { type: "button", class: "dipeo-stop", "data-lm-suppress-shortcuts": "true" }, "Stop");
  const bar = element("div", { class: "dipeo-bar" }, status, clock, stop);
  const drawing = element("div", { class: "dipeo-drawing" });
  const heading = element("span", { class: "dipeo-who" });
  const text = element("pre", { class: "dipeo-text", tabindex: "0", "aria-label": "Text of the selected node", "data-lm-suppress-shortcuts": "true" });
  const summary = element("summary", { "data-lm-suppress-shortcuts": "true" }, "Events");
  const log = element("pre", { class: "dipeo-log", tabindex: "0", "aria-label": "Events of the run", "data-lm-suppress-shortcuts": "true" });
  const question = element("p", { class: "dipeo-prompt" });
  const field = element("input", { type: "text", autocomplete: "off", "aria-label": "Your answer", "data-lm-suppress-shortcuts": "true" });
  const send = element("button", { type: "submit", "data-lm-suppress-shortcuts": "true" }, "Send");
  const form = element("form", { class: "dipeo-form" }, question, element("div", {}, field, send));
  form.hidden = true;
  const root = element("section", { class: "dipeo-view", "aria-label": "Run of a diagram" },
    bar, form, drawing, element("div", { class: "dipeo-output" }, heading, text), element("details", {}, summary, log));

  let asked = null;
  let base = 0, since = performance.now();

  function nodes() { return drawing.querySelectorAll("[data-node]"); }

  function drawStatus() {
    const run = model.get("run");
    const running = run.status === "running" || run.status === "pending";
    const words = `${run.status}${run.cost ? `, ${run.cost}` : ""}`;
    if (status.textContent !== words) status.textContent = words;
    root.dataset.status = run.status;
    stop.disabled = !running;
    base = run.elapsed; since = performance.now();
    for (const node of nodes()) {
      const look = run.nodes[node.dataset.node];
      if (!look) continue;
      if (node.dataset.status !== look[0]) {
        node.dataset.status = look[0];
        const name = node.querySelector("title");
        if (name) name.textContent = `${name.textContent.split(", ").slice(0, 2).join(", ")}, ${SIGNS[look[0]] || look[0]}`;
      }
      const count = node.querySelector(".count");
      const times = look[1] > 1 ? `×${look[1]}` : "";
      if (count && count.textContent !== times) count.textContent = times;
    }
    const wanted = run.question;
    if ((wanted && wanted.request_id) !== asked) {
      asked = wanted ? wanted.request_id : null;
      form.hidden = !wanted;
      if (wanted) {
        question.textContent = wanted.prompt;
        field.value = "";
        field.placeholder = wanted.default || "";
        send.disabled = field.disabled = false;
        field.focus({ preventScroll: true });
      }
    }
  }

  function drawText() {
    const shown = model.get("text");
    heading.textContent = shown.label || "";
    for (const node of nodes()) node.setAttribute("aria-pressed", String(node.dataset.node === shown.node));
    if (text.textContent === shown.text) return;
    const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 30;
    text.textContent = shown.text;
    if (atEnd) text.scrollTop = text.scrollHeight;
  }

  function drawLog() {
    const lines = model.get("log");
    summary.textContent = `Events (${lines.total})`;
    log.textContent = lines.text;
    log.scrollTop = log.scrollHeight;
  }

  function drawPicture() { drawing.innerHTML = model.get("svg"); drawStatus(); drawText(); }

  function select(node) { model.send({ type: "select", node: node.dataset.node }); }

  drawing.addEventListener("click", (event) => {
    const node = event.target.closest("[data-node]");
    if (node) select(node);
  });
  drawing.addEventListener("keydown", (event) => {
    const all = [...nodes()];
    const at = all.indexOf(document.activeElement);
    if (at < 0) return;
    if (event.key === "Enter" || event.key === " ") { select(all[at]); event.preventDefault(); }
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) { all[(at + step + all.length) % all.length].focus(); event.preventDefault(); }
  });
  stop.addEventListener("click", () => { stop.disabled = true; model.send({ type: "stop" }); });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!asked) return;
    send.disabled = field.disabled = true;
    model.send({ type: "answer", request_id: asked, text: field.value });
  });
  // Lab's single-key commands (x cuts the cell) must not see what is typed here; Tab and Ctrl/Cmd keys pass.
  root.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey || event.key === "Tab" || (event.shiftKey && event.key === "Enter"))) event.stopPropagation();
  });

  const ticking = setInterval(() => {
    const run = model.get("run");
    const going = run.status === "running";
    clock.textContent = seconds(base + (going ? (performance.now() - since) / 1000 : 0));
  }, 100);

  const handlers = { "change:run": drawStatus, "change:text": drawText, "change:log": drawLog, "change:svg": drawPicture };
  for (const [name, handler] of Object.entries(handlers)) model.on(name, handler);
  el.appendChild(root);
  drawPicture();
  drawLog();
  return () => {
    clearInterval(ticking);
    for (const [name, handler] of Object.entries(handlers)) model.off(name, handler);
  };
}

export default { render };
