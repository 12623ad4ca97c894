// The strip that is there while the run waits for a person. It is announced, and never takes the focus.
import { hand } from "./bar.js";
import { Markdown } from "./markdown.js";
import { tr } from "./strings.js";
import { focusedIn, h, mark, put, textOf } from "./words.js";

const TAKEN_MS = 10_000; // until an answer that has not come back as an event counts as lost on the way: it can then be sent again

export function question(view) {
  const who = h("b", {}), which = h("span", { class: "dp-dim" }), asked = new Markdown(), tool = h("pre", { class: "dp-out", hidden: true, tabindex: "0", role: "group", "aria-label": tr("question.arguments") });
  const actions = h("div", { class: "dp-actions" }), left = h("span", { class: "dp-left dp-num" }), until = h("i", { class: "dp-until" });
  const next = h("button", { type: "button", class: "dp-tool", "aria-label": tr("question.next"), title: tr("question.next"), onclick: () => { turn++; view.draw(); } }, "▸");
  const el = h("form", { class: "dp-question", "aria-label": tr("question.form"), hidden: true, onsubmit: (e) => e.preventDefault() }, hand(), h("div", { class: "dp-q-main" }, h("div", { class: "dp-q-head" }, who, h("span", {}, tr("question.asks")), which, next), h("div", { class: "dp-asked", tabindex: "0", role: "group", "aria-label": tr("question.label") }, asked.el), tool), h("div", { class: "dp-q-side" }, actions, left), until);
  const spoken = h("div", { class: "dp-sr", "aria-live": "assertive" });
  let shown = "", turn = 0;
  const sent = new Map(); // answers on their way: id of the question → {text, at}
  const onItsWay = (id) => sent.has(id) && performance.now() - sent.get(id).at < TAKEN_MS;

  const button = (text, answer, main = false) => h("button", { type: "button", class: `dp-btn${main ? " dp-primary" : ""}`, onclick: answer }, text);

  function answer(id, text) {
    const inside = el.contains(focusedIn(el));
    sent.set(id, { text, at: performance.now() });
    view.send({ type: "answer", id, text });
    view.draw();
    if (inside) view.focus();
  }

  /** A field for text. `several`: Enter begins a new line. */
  function field(id, { several = false, value = "", label = tr("question.answer"), submit = tr("question.send"), back = null, meant = (text) => text }) {
    const input = h(several ? "textarea" : "input", { class: "dp-field", "aria-label": label, autocomplete: "off", dir: "auto", ...(several ? { rows: "3" } : { type: "text" }), placeholder: several ? tr("question.keys") : null });
    input.value = value;
    const go = () => answer(id, meant(input.value));
    input.addEventListener("keydown", (e) => {
      if (e.key === "Enter" && (!several || e.ctrlKey || e.metaKey) && !e.isComposing) go();
      else if (e.key === "Escape" && back) back();
      else return;
      e.preventDefault();
      e.stopPropagation();
    });
    actions.replaceChildren(input, button(submit, go, true), ...(back ? [button(tr("cancel"), back)] : []));
    mark(actions, "data-several", several);
    return input;
  }

  function controls(id, q) {
    mark(actions, "data-several", null);
    const initial = textOf(q.default), again = () => { controls(id, q); focus(); };
    if (q.kind === "choice") {
      if (q.choices.length <= 5) actions.replaceChildren(...q.choices.map((c, i) => button(c, () => answer(id, c), q.default != null ? c === q.default : i === 0)));
      else {
        const choose = h("select", { class: "dp-field", "aria-label": tr("question.answer") }, q.choices.map((c) => h("option", { selected: c === q.default }, c)));
        actions.replaceChildren(choose, button(tr("question.send"), () => answer(id, choose.value), true));
      }
    } else if (q.kind === "approval") {
      const change = q.arguments && button(tr("question.edit"), () => field(id, { several: true, value: JSON.stringify(q.arguments, null, 2), label: tr("question.arguments"), submit: tr("question.changed"), back: again }).focus());
      const reject = button(tr("question.reject.open"), () => field(id, { label: tr("question.why"), submit: tr("question.reject"), back: again, meant: (why) => (why.trim() ? `reject: ${why.trim()}` : "reject") }).focus());
      actions.replaceChildren(...[button(tr("question.approve"), () => answer(id, "approve"), true), change, reject].filter(Boolean));
    } else field(id, { several: q.kind === "multiline", value: sent.get(id)?.text ?? initial });
  }

  function update({ s, t, past, gone, live }) {
    const all = [...s.questions].filter(([id]) => past || !onItsWay(id)), [id, q] = all[turn % (all.length || 1)] ?? [];
    for (const known of sent.keys()) if (!past && !s.questions.has(known)) sent.delete(known);
    el.hidden = !q;
    if (!q) { shown = ""; return; }
    const open = !past && !gone && live && view.can("answer"), key = `${id} ${open} ${past} ${gone}`;
    if (shown !== key) {
      shown = key;
      const path = (q.path ?? []).slice(1, -1);
      put(who, [...path, q.label ?? view.label(s, q.node_id)].join(" ▸ "));
      asked.show(textOf(q.prompt));
      tool.hidden = !q.arguments;
      if (q.arguments) put(tool, `${q.tool ?? tr("question.call")} ${JSON.stringify(q.arguments, null, 2)}`);
      if (open) { controls(id, q); put(spoken, `${tr("log.asks", { who: q.label ?? tr("question.run") })}: ${textOf(q.prompt)}`); } else actions.replaceChildren(h("span", { class: "dp-dim" }, past ? tr("question.past") : gone ? tr("question.gone") : tr("question.elsewhere")));
    }
    put(which, all.length > 1 ? tr("of", { done: (turn % all.length) + 1, total: all.length }) : "");
    next.hidden = all.length < 2;
    const rest = q.timeout ? Math.max(0, q.at + q.timeout - t) : null;
    put(left, open && sent.has(id) ? tr("question.lost") : rest === null || !open ? "" : tr(q.default != null ? "question.left.default" : "question.left.fails", { time: rest > 90 ? `${Math.ceil(rest / 60)} min` : `${Math.ceil(rest)} s` }));
    until.style.width = rest === null ? "0" : `${(rest / q.timeout) * 100}%`;
  }
  function focus() { actions.querySelector("input, textarea, select, button")?.focus(); }
  return { el, spoken, update, focus };
}
