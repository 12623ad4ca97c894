// The keyboard of the view, and the sheet that lists it.
import { tr } from "./strings.js";
import { h } from "./words.js";

const SHEET = [["k, Space", "play"], ["j  ;", "step"], ["Home, l", "ends"], ["1  2  3", "speed"], ["← ↑ → ↓", "move"], ["Enter", "choose"], ["Esc", "release"], ["[  ]", "turns"], ["d", "before"], ["a p m i c o", "tabs"], ["+  −  0", "zoom"], ["Shift+←↑→↓", "pan"], ["g", "drawing"], ["t", "timeline"], ["e  /", "log"], ["q", "question"], ["f  x  y", "doing"], ["n", "note"], ["r", "again"], ["v", "compare"], ["?", "sheet"]];

/** @param {Object} view @param {Object<string, any>} parts */
export function keys(view, parts) {
  const quiet = h("select", { onchange: (e) => { view.quiet = e.target.value; } }, [["", tr("quiet.none")], ["some", tr("quiet.some")], ["all", tr("quiet.all")]].map(([value, text]) => h("option", { value }, text)));
  const title = view.unique("keys");
  const close = h("button", { type: "button", class: "dp-btn", onclick: () => sheet.close() }, tr("sheet.close"));
  const sheet = h("dialog", { class: "dp-sheet", "aria-labelledby": title }, h("h3", { id: title }, tr("keys.title")), h("dl", {}, SHEET.map(([k, what]) => h("div", {}, h("dt", {}, k.split(/[\s,]+/).map((x) => h("kbd", {}, x))), h("dd", {}, tr(`keys.${what}`))))),
    h("label", { class: "dp-quiet" }, tr("keys.quiet"), quiet), close);
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
