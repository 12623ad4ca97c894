// Writing a note on a stretch of the run.
import { tr } from "./strings.js";
import { h, put } from "./words.js";

/** @param {Object} view */
export function noteDialog(view) {
  const title = view.unique("note"), from = h("input", { type: "number", class: "dp-field", min: "1", "aria-label": "First event" }), to = h("input", { type: "number", class: "dp-field", min: "1", "aria-label": "Last event" });
  const text = h("textarea", { class: "dp-field", rows: "4", "aria-label": "Note", dir: "auto" }), wrong = h("p", { class: "dp-bad", role: "alert" });
  const el = h("dialog", { class: "dp-sheet", "aria-labelledby": title }, h("h3", { id: title }, "A note on the run"), h("p", { class: "dp-range" }, "Events ", from, " to ", to), text, wrong,
    h("p", { class: "dp-acts" }, h("button", { type: "button", class: "dp-btn dp-primary", onclick: write }, "Keep it"), h("button", { type: "button", class: "dp-btn", onclick: () => el.close() }, "Cancel")));

  function write() {
    const [a, b] = [Number(from.value), Number(to.value)];
    if (!text.value.trim()) put(wrong, "Write something.");
    else if (!(Number.isInteger(a) && Number.isInteger(b) && a >= 1 && b >= a)) put(wrong, "The first event must not be behind the last.");
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
