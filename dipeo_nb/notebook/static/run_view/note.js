// Writing a note on a stretch of the run.
import { tr } from "./strings.js";
import { h, put } from "./words.js";

/** @param {Object} view */
export function noteDialog(view) {
  const title = view.unique("note"), from = h("input", { type: "number", class: "dp-field", min: "1", "aria-label": tr("note.first") }), to = h("input", { type: "number", class: "dp-field", min: "1", "aria-label": tr("note.last") });
  const text = h("textarea", { class: "dp-field", rows: "4", "aria-label": tr("note.text"), dir: "auto" }), wrong = h("p", { class: "dp-bad", role: "alert" });
  const el = h("dialog", { class: "dp-sheet", "aria-labelledby": title }, h("h3", { id: title }, tr("note.title")), h("p", { class: "dp-range" }, tr("note.events"), from, tr("note.to"), to), text, wrong,
    h("p", { class: "dp-acts" }, h("button", { type: "button", class: "dp-btn dp-primary", onclick: write }, tr("note.keep")), h("button", { type: "button", class: "dp-btn", onclick: () => el.close() }, tr("cancel"))));

  function write() {
    const [a, b] = [Number(from.value), Number(to.value)];
    if (!text.value.trim()) put(wrong, tr("note.empty"));
    else if (!(Number.isInteger(a) && Number.isInteger(b) && a >= 1 && b >= a)) put(wrong, tr("note.order"));
    else keep(a, b);
  }
  async function keep(first, last) {
    try {
      await view.ask("note", { first, last, text: text.value.trim() });
      el.close();
      view.say(tr("said.noted"));
    } catch (error) {
      put(wrong, error.message);
    }
  }
  return {
    el,
    open(first, last) {
      from.value = first;
      to.value = last;
      text.value = "";
      put(wrong, "");
      el.showModal();
      text.focus();
    },
  };
}
