// Play, speed, where the cursor is, and the way back to what happens now.
import { tr } from "./strings.js";
import { h, icon, mark, put } from "./words.js";

const SHAPES = { start: "M2 2h1.500v8H2zM10 2v8L4.300 6z", back: "M8.500 2v8L3.500 6z", play: "M3 1.500v9L10.500 6z", pause: "M2.500 2h2.500v8H2.500zM7 2h2.500v8H7z", next: "M3.500 2v8l5-4z" };
const RATES = [1, 10, 100];

export function transport(view) {
  const button = (label, face, act) => h("button", { type: "button", class: "dp-tool", "aria-label": label, title: label, onclick: act }, face);
  const play = button(tr("transport.play"), icon(SHAPES.play), () => view.play());
  const rates = RATES.map((x) => h("button", { type: "button", class: "dp-tool dp-rate", "aria-label": tr("transport.rate", { x, key: x === 1 ? 1 : x === 10 ? 2 : 3 }), onclick: () => view.speed(x) }, `${x}×`));
  const where = h("span", { class: "dp-where dp-num" }), at = h("span", { class: "dp-seq dp-num" });
  const noting = h("button", { type: "button", class: "dp-tool", title: tr("transport.note.title"), "aria-label": tr("transport.note"), hidden: true, onclick: () => view.note() }, "✎");
  const follow = h("button", { type: "button", class: "dp-live", title: tr("transport.end"), onclick: () => view.follow() }, h("i", { "aria-hidden": "true" }), h("span", {}));
  const el = h("div", { class: "dp-transport", role: "group", "aria-label": tr("transport.label") },
    button(tr("transport.start"), icon(SHAPES.start), () => view.start()), button(tr("transport.back"), icon(SHAPES.back), () => view.step(-1)), play, button(tr("transport.next"), icon(SHAPES.next), () => view.step(1)),
    h("span", { class: "dp-rates", role: "group", "aria-label": tr("transport.speed") }, rates), where, at, noting, follow);
  let face = null;

  function update({ s, t, end, past, playing, rate, live, gone, newest }) {
    if (face !== playing) {
      face = playing;
      play.replaceChildren(icon(playing ? SHAPES.pause : SHAPES.play));
      for (const name of ["aria-label", "title"]) mark(play, name, playing ? tr("transport.pause") : tr("transport.play"));
    }
    RATES.forEach((x, i) => mark(rates[i], "aria-pressed", String(x === rate)));
    put(where, `${t.toFixed(1)} / ${end.toFixed(1)} s`);
    put(at, tr("transport.at", { seq: s.seq.toLocaleString("en"), all: newest.seq.toLocaleString("en") }));
    noting.hidden = !view.can("note") || !newest.seq;
    mark(follow, "data-on", !past);
    mark(follow, "aria-pressed", String(!past));
    put(follow.lastChild, live && !gone && newest.ended === null ? tr("transport.live") : tr("transport.over"));
  }
  return { el, update };
}
