// What else can be done with a run.
import { h } from "./words.js";

/** Copies a text; where the page may not use the clipboard, by selecting it. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = h("textarea", { class: "dp-sr", readonly: true, "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

export function menu(view) {
  const { run_id: id } = view.head, summary = h("summary", { "aria-label": "More", title: "More" }, "⋯"), said = h("span", { class: "dp-sr", role: "status" });
  const item = (text, act, key) => h("button", { type: "button", class: "dp-item", onclick: () => { el.open = false; summary.focus(); act(); } }, text, key && h("kbd", {}, key));
  const copied = (text, what) => item(text, async () => { await copy(what()); said.textContent = "Copied"; });
  const resume = copied("Copy dp.resume(…)", () => `dp.resume("${id}")`);
  const el = h("details", { class: "dp-menu" }, summary, h("div", { class: "dp-menu-box" }, h("div", { class: "dp-menu-id dp-num" }, id), copied("Copy the id", () => id), copied("Copy dp.open_run(…)", () => `dp.open_run("${id}")`), resume, item("Keys", () => view.help(), "?")), said);
  el.addEventListener("focusout", (e) => { if (!el.contains(e.relatedTarget)) el.open = false; });
  el.addEventListener("keydown", (e) => { if (e.key === "Escape" && el.open) { el.open = false; summary.focus(); e.stopPropagation(); } });
  return { el, update({ newest, live }) { resume.hidden = live || newest.ended === null || newest.status === "completed"; } };
}
