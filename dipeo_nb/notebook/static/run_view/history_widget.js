// The history in a notebook. Page → kernel: {type: "query" | "open" | "compare" | "delete", id, …}; kernel → page: the answer with the same id. What a
// run opens as is its static face with the mark of its view, which the widget of the views then puts over it.
import { createHistory } from "./history.js";
import { tr } from "./strings.js";

const PATIENCE_MS = 20_000;

function render({ model, el }) {
  const waiting = new Map(), name = Math.random().toString(36).slice(2); // the same answers come to other tables of this widget, as in a second tab
  let number = 0;
  const answered = (message) => {
    const { resolve, reject } = waiting.get(message?.id) ?? {};
    waiting.delete(message?.id);
    if (message.error) reject?.(new Error(message.error));
    else resolve?.(message);
  };
  const ask = (message) => new Promise((resolve, reject) => {
    const id = `${name}-${++number}`;
    waiting.set(id, { resolve, reject });
    setTimeout(() => answered({ id, error: tr("history.silent") }), PATIENCE_MS);
    model.send({ ...message, id });
  });
  model.on("msg:custom", answered);
  const history = createHistory(el, {
    query: (query) => ask({ type: "query", query }),
    compared: async (before, after) => (await ask({ type: "compare", runs: [before, after] })).facts,
    remove: (runs) => ask({ type: "delete", runs }),
    async open(run, place) {
      place.innerHTML = (await ask({ type: "open", runs: [run] })).html; // which the kernel has escaped
      return { close() {} };
    },
  });
  return () => { history.dispose(); model.off("msg:custom", answered); };
}

/** Puts the table over what a notebook keeps of it, wherever that comes into the page; so one that is opened without its kernel shows rows. */
function initialize({ model }) {
  const marks = document.getElementsByClassName(`dipeo-runs-of-${model.get("token")}`), shown = new Map(); // element → what ends its table
  const look = () => {
    for (const [mark, end] of shown) if (!mark.isConnected) { end(); shown.delete(mark); }
    for (const mark of marks) {
      if (shown.has(mark)) continue;
      mark.replaceChildren();
      shown.set(mark, render({ model, el: mark.appendChild(document.createElement("div")) }));
    }
  };
  const observer = new MutationObserver(look);
  observer.observe(document.body, { childList: true, subtree: true });
  look();
  return () => { observer.disconnect(); for (const end of shown.values()) end(); };
}

export default { initialize, render };
