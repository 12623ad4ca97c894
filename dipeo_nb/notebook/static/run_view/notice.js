// One line under the bar when something is to be known of the whole run: it failed, was stopped, or its kernel has gone.
import { refusal } from "./sheets.js";
import { tr } from "./strings.js";
import { h, mark, textOf } from "./words.js";

export function notice(view) {
  const el = h("div", { class: "dp-notice", role: "status", hidden: true });
  let shown = "", trouble = null;

  function update({ s, newest, gone, past, log }) {
    const lost = gone && newest.status === "running", key = `${lost} ${s.status} ${s.error?.message} ${past} ${log.leftOut?.to}`;
    if (shown === key && trouble === view.trouble) return;
    [shown, trouble] = [key, view.trouble];
    const resume = h("code", {}, `dp.resume("${view.head.run_id}")`);
    let said = null;
    if (trouble) said = [h("b", {}, tr("notice.trouble")), " ", ...refusal(trouble.error, trouble.allow), h("button", { type: "button", class: "dp-link", onclick: () => { view.trouble = null; view.draw(); view.focus(); } }, tr("notice.dismiss"))];
    else if (lost) said = [h("b", {}, tr("notice.gone")), tr("notice.last"), resume, tr("notice.continue")];
    else if (s.status === "failed" && s.error) {
      const at = [...s.labels].find(([, label]) => label === s.error.node)?.[0];
      said = [h("b", {}, s.error.node ? tr("notice.failed", { node: s.error.node }) : tr("notice.run")), " ", textOf(s.error.message), " ", at !== undefined && h("button", { type: "button", class: "dp-link", onclick: () => view.select(at) }, tr("show"))];
    } else if (s.status === "aborted" || s.status === "interrupted") said = [h("b", {}, s.status === "aborted" ? tr("notice.stopped") : tr("notice.interrupted")), tr("notice.kept"), resume, tr("notice.resume")];
    if (log.leftOut) {
      const [from, to] = [log.leftOut.from, log.leftOut.to].map((seq) => seq.toLocaleString("en"));
      said = [...(said ? [...said, " "] : []), tr("notice.left", { from, to }), tr("notice.whole"), h("code", {}, `dipeo-nb export ${view.head.run_id} -o run.jsonl`)];
    }
    el.hidden = !said;
    mark(el, "data-kind", trouble ? "trouble" : s.status === "failed" ? "bad" : null);
    el.replaceChildren(...(said ?? []).filter(Boolean));
  }
  return { el, update };
}
