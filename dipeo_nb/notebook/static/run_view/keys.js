// The keyboard of the view, and the sheet that lists it.
import { h } from "./words.js";

const SHEET = [
  ["k, Space", "play or pause"], ["j  ;", "event before, next event"], ["Home  l", "to the start, to the end"], ["1  2  3", "speed 1×, 10×, 100×"], ["← ↑ → ↓", "between nodes (in the drawing)"],
  ["Enter", "choose a node, or open its run"], ["Esc", "show whoever is at work"], ["[  ]", "earlier, later run of the node"], ["d", "compare with the run before"], ["a p m i c o", "Answer, Prompt, Memory, Inputs, Calls or Code, Log"],
  ["+  −  0", "zoom in, out, all of it"], ["g", "to the drawing"], ["t", "to the timeline"], ["e  /", "open the log, find in it"], ["q", "to the question"], ["f  x  y", "edit the prompt and run from the node; run it alone; copy it as Python"], ["n", "write a note"], ["r", "run again with other inputs or another model"], ["v", "compare with another run"], ["?", "this sheet"],
];

/** @param {Object} view @param {Object<string, any>} parts */
export function keys(view, parts) {
  const quiet = h("select", { onchange: (e) => { view.quiet = e.target.value; } }, [["", "beginnings, ends, questions, failures"], ["some", "questions and failures"], ["all", "nothing"]].map(([value, text]) => h("option", { value }, text)));
  const title = view.unique("keys");
  const close = h("button", { type: "button", class: "dp-btn", onclick: () => sheet.close() }, "Close");
  const sheet = h("dialog", { class: "dp-sheet", "aria-labelledby": title }, h("h3", { id: title }, "Keys"), h("dl", {}, SHEET.map(([k, what]) => h("div", {}, h("dt", {}, k.split(/[\s,]+/).map((x) => h("kbd", {}, x))), h("dd", {}, what)))),
    h("label", { class: "dp-quiet" }, "A screen reader is told of ", quiet), close);
  const help = () => { sheet.showModal(); close.focus(); }; // not `autofocus`, of which browsers complain in a frame of another page

  const acts = {
    k: () => view.play(), j: () => view.step(-1), ";": () => view.step(1), l: () => view.follow(), End: () => view.follow(), Home: () => view.start(), 1: () => view.speed(1), 2: () => view.speed(10), 3: () => view.speed(100),
    "[": () => view.turnBy(-1), "]": () => view.turnBy(1), d: () => parts.panel.toggle(), a: () => parts.panel.show("answer"), p: () => parts.panel.show("prompt"), m: () => parts.panel.show("memory"), i: () => parts.panel.show("inputs"),
    c: () => parts.panel.show(view.hasCode() ? "code" : "calls"), o: () => parts.panel.show("log"), g: () => parts.drawing.focus(), t: () => parts.timeline.focus(), e: () => parts.log.toggle(), "/": () => parts.log.find(), q: () => parts.question.focus(), "?": help, f: () => view.edit(), x: () => view.alone(), y: () => view.copied("python", true), n: () => view.note(), r: () => view.again(), v: () => view.compare(), Escape: () => view.release(),
  };
  function pressed(e) {
    const passes = e.ctrlKey || e.metaKey || e.altKey || e.key === "Tab" || (e.shiftKey && e.key === "Enter");
    if (!passes) e.stopPropagation(); // the notebook's own single keys must not see what is typed here
    if (passes || e.defaultPrevented || e.target.closest("dialog") || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return;
    const act = e.key === " " ? (e.target.closest("button, summary") ? null : acts.k) : Object.hasOwn(acts, e.key) ? acts[e.key] : null;
    if (!act) return;
    act();
    e.preventDefault();
  }
  return { sheet, pressed, help };
}
