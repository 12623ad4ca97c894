// The difference of two runs, in the place of the view of one of them: one drawing, its nodes, and what changed in each, word by word.
import { parsedDrawing } from "./drawing.js";
import { tr } from "./strings.js";
import { h, mark, money, put, seconds, textOf, tokens, word } from "./words.js";
import { diffed } from "./word_diff.js";

const SIGNS = { same: "=", changed: "≠", new: "+", gone: "−" };
const short = (id) => id.replace(/^exec_/, "").slice(0, 8);
const both = ([before, after], write) => (write(before) === write(after) ? write(after) : `${write(before)} → ${write(after)}`);

/** @param {HTMLElement} root @param {{facts: Object, theme: string|null, close(): void, back?: string}} options */
export function createComparison(root, { facts, theme, close, back: words = tr("compare.back") }) {
  const stage = h("div", { class: "dp-stage" }), body = h("div", { class: "dp-body", tabindex: "0", role: "group", "aria-label": tr("compare.node") });
  const heading = h("h2", { class: "dp-head", dir: "auto", tabindex: "-1" }, facts.names[1]);
  const title = h("h3", { class: "dp-who", dir: "auto" }), about = h("span", { class: "dp-about" });
  const drawn = new Map(), rows = new Map();
  const figures = [["compare.status", both(facts.status, word)], ["compare.model", both(facts.model, (x) => x ?? "–")], ["compare.time", both(facts.seconds, seconds)], ["compare.tokens", both(facts.tokens, tokens)], ["compare.cost", both(facts.cost_usd, money)]];
  const list = h("div", { class: "dp-list dp-compared", role: "group", "aria-label": tr("compare.nodes") }, facts.nodes.map((node) => {
    const entry = h("button", { type: "button", class: "dp-entry", onclick: () => choose(node) }, h("b", { class: "dp-sign", "aria-hidden": "true" }, SIGNS[node.kind]), h("span", { class: "dp-clip", dir: "auto" }, node.label), h("span", { class: "dp-dim" }, tr(`compare.${node.kind}`)),
      h("span", { class: "dp-num dp-dim" }, node.kind === "same" ? "" : [both(node.seconds, seconds), node.cost_usd.every((x) => x == null) ? "" : both(node.cost_usd, money)].filter(Boolean).join(" · ")));
    rows.set(node, entry);
    return entry;
  }));
  const back = h("button", { type: "button", class: "dp-link", onclick: () => close() }, words);
  const el = h("section", { class: "dp-run dp-comparison", "aria-label": tr("compare.label", { name: facts.names[1] }), "data-lm-suppress-shortcuts": "true", "data-theme": theme },
    h("nav", { class: "dp-crumb", "aria-label": tr("compare.place") }, back, h("span", { "aria-hidden": "true" }, "▸"), heading, h("span", { class: "dp-num" }, `${short(facts.runs[0])} → ${short(facts.runs[1])}`)),
    h("dl", { class: "dp-versus" }, figures.map(([name, value]) => h("div", {}, h("dt", {}, tr(name)), h("dd", { class: "dp-num" }, value)))),
    h("div", { class: "dp-main" }, h("div", { class: "dp-drawing-pane" }, stage), h("div", { class: "dp-panel", role: "group", "aria-label": tr("compare.node") }, h("div", { class: "dp-panel-head" }, title, about), body)), list);

  el.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.key === "Tab") return;
    e.stopPropagation(); // the notebook's own single keys must not see what is typed here
    if (e.key !== "Escape") return;
    e.preventDefault();
    close();
  });
  const svg = parsedDrawing(facts.svg);
  if (svg) {
    svg.setAttribute("role", "img"); // its nodes are chosen in the list, which says the same in words
    for (const g of svg.querySelectorAll("[data-node]")) {
      const node = facts.nodes.find((one) => one.id === g.getAttribute("data-node"));
      for (const name of ["role", "tabindex", "aria-label"]) g.removeAttribute(name);
      if (!node) continue;
      drawn.set(node, g);
      g.setAttribute("data-diff", node.kind);
      const sub = g.querySelector(".dp-sub");
      mark(g, "data-raised", sub && !sub.textContent);
      if (sub) put(sub, `${SIGNS[node.kind]} ${tr(`compare.${node.kind}`)}`);
      g.addEventListener("click", () => choose(node));
    }
    stage.append(svg);
  } else stage.append(h("p", { class: "dp-none" }, tr("drawing.none")));

  function choose(node) {
    put(title, node.label);
    put(about, [tr(`compare.${node.kind}`), both(node.tokens, (x) => `${tokens(x)} ${tr("tok")}`)].join(" · "));
    for (const [other, entry] of rows) mark(entry, "aria-pressed", String(other === node));
    for (const [other, g] of drawn) mark(g, "data-selected", other === node);
    const fields = node.fields.map(([name, before, after]) => [h("p", { class: "dp-note" }, name), diffed(textOf(before), textOf(after))]);
    const output = node.output[0] === node.output[1] ? [h("p", { class: "dp-none" }, tr(node.output[1] ? "compare.equal" : "compare.nothing"))] : [h("p", { class: "dp-note" }, tr("compare.output")), diffed(...node.output)];
    body.replaceChildren(...fields.flat(), ...output);
    body.scrollTop = 0;
  }

  for (const [names, what] of [[facts.inputs, "compare.input"], [facts.persons, "compare.person"]]) for (const [name, before, after] of names) {
    el.append(h("div", { class: "dp-changed" }, h("span", { class: "dp-dim" }, `${tr(what)} `), h("b", {}, name), h("span", { dir: "auto" }, ` ${before || "–"} → ${after || "–"}`)));
  }
  el.addEventListener("keydown", (e) => {
    if (!(e.ctrlKey || e.metaKey || e.altKey || e.key === "Tab")) e.stopPropagation();
    if (e.key === "Escape") { close(); e.preventDefault(); }
  });
  root.append(el);
  const first = facts.nodes.find((node) => node.kind !== "same") ?? facts.nodes[0];
  if (first) choose(first);
  heading.focus({ preventScroll: true }); // what has come is read out, and Tab leads on into it
  return { dispose() { el.remove(); } };
}
