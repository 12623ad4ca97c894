// Many runs that go on at once, a row each.
import { tr } from "./strings.js";
import { h, mark, put } from "./words.js";

/** @param {HTMLElement} root @param {{head: {columns: string[]}}} options */
export function createRunTable(root, { head }) {
  const body = h("tbody"), said = h("caption", { role: "status" });
  const columns = head.columns.map((name, i) => h("th", { scope: "col", class: i > 2 ? "dp-num" : null }, name));
  const el = h("section", { class: "dp-run dp-runs", "aria-label": tr("table.label"), tabindex: "0" }, h("table", {}, said, h("thead", {}, h("tr", {}, columns)), body));
  let rows = [], gone = false;
  root.append(el);

  function draw() {
    rows.forEach(([status, ...cells], at) => {
      const row = body.children[at] ?? body.appendChild(h("tr", {}, cells.map((_, i) => h("td", { class: i > 2 ? "dp-num" : null }))));
      mark(row, "data-status", status);
      cells.forEach((text, i) => put(row.children[i], text));
    });
    const going = rows.filter(([status]) => status === "running" || status === "pending").length;
    put(said, gone && going ? tr("table.gone", { going, all: rows.length })
      : going ? tr("table.going", { going, all: rows.length }) : tr("table.ended", { all: rows.length }));
  }
  return {
    push(whole) {
      if (whole.length) rows = whole;
      draw();
    },
    now() { if (gone) { gone = false; draw(); } },
    gone() { gone = true; draw(); },
    ended() {},
    dispose() { el.remove(); },
  };
}
