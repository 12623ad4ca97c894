// Menus: what else can be done with a run, and with a node of it.
import { tr } from "./strings.js";
import { focusedIn, h } from "./words.js";

/** A button that opens a list of actions. `entries`: [what it says, what it does, its key, whether it is there now].
 * @param {string} label @param {[string, () => void, string|null, (shown: Object) => boolean][]} entries @param {any} [head] */
export function popup(label, entries, head = null) {
  const summary = h("summary", { "aria-label": label, title: label }, "⋯");
  const items = entries.map(([text, act, key]) => h("button", { type: "button", class: "dp-item", onclick: () => { el.open = false; summary.focus(); act(); } }, text, key && h("kbd", {}, key)));
  const el = h("details", { class: "dp-menu" }, summary, h("div", { class: "dp-menu-box" }, head, items));
  el.addEventListener("focusout", (e) => { if (!el.contains(e.relatedTarget)) el.open = false; });
  el.addEventListener("keydown", (e) => {
    const all = items.filter((item) => !item.hidden), i = all.indexOf(focusedIn(el)), to = { ArrowDown: i + 1, ArrowUp: i - 1 }[e.key];
    if (!el.open || (e.key !== "Escape" && to === undefined)) return;
    if (e.key === "Escape") { el.open = false; summary.focus(); } else all.at(to % all.length)?.focus();
    e.preventDefault();
    e.stopPropagation();
  });
  return {
    el,
    update(shown) {
      entries.forEach(([, , , there], i) => { items[i].hidden = !there(shown); });
      el.hidden = items.every((item) => item.hidden);
    },
  };
}

export function menu(view) {
  const { run_id: id } = view.head, always = () => true, can = (what) => () => view.can(what);
  return popup(tr("menu"), [
    [tr("menu.again"), () => view.again(), "r", can("again")],
    [tr("menu.compare"), () => view.compare(), "v", can("compare")],
    [tr("menu.note"), () => view.note(), "n", can("note")],
    [tr("menu.python"), () => view.copied("python"), null, can("copy")],
    [tr("menu.test"), () => view.copied("test"), null, ({ newest }) => view.can("copy") && newest.status === "completed"],
    [tr("menu.id"), () => view.copy(id), null, always],
    [tr("menu.open"), () => view.copy(`dp.open_run("${id}")`), null, always],
    [tr("menu.resume"), () => view.copy(`dp.resume("${id}")`), null, ({ live, newest }) => !live && newest.ended !== null && newest.status !== "completed"],
    [tr("menu.keys"), () => view.help(), "?", always],
  ], h("div", { class: "dp-menu-id dp-num" }, id));
}

const DOES_NOTHING_ALONE = new Set(["start", "endpoint", "sub_diagram"]);

export function nodeMenu(view) {
  const turned = (what) => ({ s, selected }) => view.can(what) && (s.nodes.get(selected)?.turns.length ?? 0) > 0;
  const person = ({ s, selected }) => view.kind(s, selected) === "person_job";
  const entries = [
    [tr("node.edit"), () => view.edit(), "f", (shown) => turned("fork")(shown) && person(shown)],
    [tr("node.again"), () => view.fork(), null, turned("fork")],
    [tr("node.alone"), () => view.alone(), "x", (shown) => turned("alone")(shown) && !DOES_NOTHING_ALONE.has(view.kind(shown.s, shown.selected))],
    [tr("node.python"), () => view.copied("python", true), "y", (shown) => turned("copy")(shown) && person(shown)],
    [tr("node.note"), () => view.note(), "n", turned("note")],
  ];
  return popup(tr("node.menu"), entries);
}
