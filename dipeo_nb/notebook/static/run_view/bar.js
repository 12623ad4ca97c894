// One line: what runs, how it stands, what it has taken. Numbers stand in slots of fixed width, so that nothing jumps.
import { costOf, estimatedTokens, totalOf } from "./fold.js";
import { tr } from "./strings.js";
import { count, h, icon, mark, money, put, seconds, tokens, word } from "./words.js";

const HAND = "M4.9 8.5V4.9M6.900 7.300V3.400M8.900 7.300V3.400M11 7.500V4.600M4.900 8.500C4.900 11.400 6.200 12.500 8 12.500S11 11.400 11 8.500V7.500";

/** The hand that stands for: a person's turn. */
export const hand = () => icon(HAND, 16, "dp-hand");

export function bar(view, menu) {
  const { head } = view;
  const name = h("h2", { class: "dp-name" }), model = h("span", { class: "dp-model" });
  const state = h("span", {}), pill = h("span", { class: "dp-pill", role: "status" }, hand(), h("i", { class: "dp-dot", "aria-hidden": "true" }), state);
  const clock = h("span", { class: "dp-slot dp-num", title: tr("bar.time") }), spent = h("span", { class: "dp-slot dp-num" }), cost = h("span", { class: "dp-slot dp-num" });
  const filled = h("i"), meter = h("span", { class: "dp-meter", role: "img" }, filled), limit = h("span", { class: "dp-num dp-dim dp-limit" });
  const budget = h("span", { class: "dp-budget", hidden: head.budget == null }, meter, limit);
  const stop = h("button", { type: "button", class: "dp-stop", title: tr("bar.stop.title"), onclick: () => view.stop() }, h("i", { "aria-hidden": "true" }), h("span", {}, tr("bar.stop")));
  const el = h("div", { class: "dp-bar" }, name, model, pill, h("span", { class: "dp-figures" }, clock, spent, cost, budget), stop, menu);

  function update({ s, t, past, gone, live, stopping }) {
    const running = s.status === "running", state_ = gone && running ? "gone" : running && s.questions.size ? "waiting" : s.status;
    put(name, s.diagram || head.name || tr("bar.run"));
    const models = s.model ? [s.model] : view.models();
    put(model, models.length > 1 ? `${models[0]} +${models.length - 1}` : models[0] ?? "");
    mark(model, "title", models.join(", ") || null);
    mark(pill, "data-state", state_);
    mark(pill, "data-past", past);
    put(state, past ? tr("bar.past", { state: word(state_) }) : word(state_));
    put(clock, seconds(s.ended !== null && !past ? s.seconds || s.ended : t));
    const flying = estimatedTokens(s), known = totalOf(s.spent);
    put(spent, known === null && !flying ? `– ${tr("tok")}` : `${flying ? "~" : ""}${tokens((known ?? 0) + flying)} ${tr("tok")}`);
    mark(spent, "title", tr("bar.spent", { input: tokens(s.spent.usage.input ?? 0), output: tokens(s.spent.usage.output ?? 0), calls: count(s.spent.calls, "call") }));
    put(cost, money(costOf(s.spent)));
    mark(cost, "title", s.spent.complete ? tr("cost") : tr("bar.unknown"));
    if (head.budget != null) {
      const share = Math.min(1, (s.spent.known ?? 0) / head.budget);
      filled.style.width = `${share * 100}%`;
      mark(meter, "data-high", share > 0.9);
      mark(meter, "aria-label", tr("bar.share", { percent: Math.round(share * 100) }));
      put(limit, tr("bar.budget", { limit: money(head.budget).replace(/0+$/, "").replace(/\.$/, "") }));
    }
    stop.hidden = !live || !running || !head.can.includes("stop"); // of a kernel that has gone it stays, disabled
    stop.disabled = gone || stopping;
    put(stop.lastChild, stopping ? tr("bar.stopping") : tr("bar.stop"));
  }
  return { el, update };
}
