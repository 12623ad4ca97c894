// The panel of a node: one turn of it, in tabs.
import { look } from "./fold.js";
import { Markdown } from "./markdown.js";
import { nodeMenu } from "./menu.js";
import { TABS, tabsOf } from "./tabs.js";
import { count, h, mark, money, put, seconds, tokens } from "./words.js";

export function panel(view) {
  const title = h("h3", { class: "dp-who", dir: "auto" }), about = h("span", { class: "dp-about" });
  const earlier = h("button", { type: "button", class: "dp-tool", "aria-label": "Earlier run ([)", title: "Earlier run ([)", onclick: () => view.turnBy(-1) }, "◂");
  const later = h("button", { type: "button", class: "dp-tool", "aria-label": "Later run (])", title: "Later run (])", onclick: () => view.turnBy(1) }, "▸");
  const which = h("span", { class: "dp-num" });
  const compared = h("button", { type: "button", class: "dp-tool", "aria-label": "Compare with the run before (d)", title: "Compare with the run before, word by word (d)", onclick: () => toggle() }, "±");
  const pager = h("span", { class: "dp-pager" }, earlier, which, later, compared);
  const follow = h("button", { type: "button", class: "dp-link dp-follow", title: "Show whoever is at work (Esc)", onclick: () => view.release() }, "follow");
  const more = nodeMenu(view);
  const list = h("div", { class: "dp-tabs", role: "tablist", "aria-label": "About the node" });
  const body = h("div", { class: "dp-body", role: "tabpanel", tabindex: "0" }), foot = h("div", { class: "dp-foot" });
  const el = h("div", { class: "dp-panel", role: "group", "aria-label": "Node" }, h("div", { class: "dp-panel-head" }, title, about, pager, follow, more.el), list, body, foot);
  const text = new Markdown(), ids = view.unique("tab");
  let tab = "answer", compare = false, shown = "", tabsShown = "", wasAt = "";
  body.id = view.unique("panel");

  list.addEventListener("keydown", (e) => {
    const all = [...list.children], i = all.indexOf(document.activeElement), to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: all.length - 1 }[e.key];
    if (to === undefined || i < 0) return;
    all.at(to % all.length).click();
    e.preventDefault();
    e.stopPropagation();
  });

  function show(name) {
    tab = name;
    const had = list.contains(document.activeElement);
    view.draw();
    if (had) list.querySelector('[aria-selected="true"]')?.focus();
  }
  function toggle() { compare = !compare; if (tab !== "answer" && tab !== "output") tab = "answer"; view.draw(); }

  function update(frame) {
    const { s, t, selected: id, turn: index, chosen } = frame, n = s.nodes.get(id), at = n?.turns[index], status = look(s, id, t), kind = view.kind(s, id);
    put(title, id === null ? "No nodes" : view.label(s, id));
    put(about, view.about(s, id, at));
    follow.hidden = !chosen;
    more.update(frame);
    const many = (n?.turns.length ?? 0) > 1;
    pager.hidden = !many;
    if (many) {
      put(which, `run ${at.run}${at.attempt > 1 ? `, again ${at.attempt - 1}` : ""} of ${n.turns.at(-1).run}`);
      earlier.disabled = index <= 0;
      later.disabled = index >= n.turns.length - 1;
      compared.disabled = index <= 0;
      mark(compared, "aria-pressed", String(compare && index > 0));
    }
    const names = tabsOf(kind), now = names.includes(tab) ? tab : names[0];
    const context = { view, frame, s, t, id, n, at, index, status, kind, compare: compare && index > 0, text };
    const numbers = names.map((name) => (at ? TABS[name].count?.(context) ?? 0 : 0)), tabsNow = `${kind} ${now} ${numbers}`;
    if (tabsShown !== tabsNow) {
      const rebuilt = tabsShown.split(" ")[0] !== kind || list.childElementCount !== names.length;
      tabsShown = tabsNow;
      if (rebuilt) list.replaceChildren(...names.map((name) => h("button", { type: "button", role: "tab", class: "dp-tab", id: `${ids}-${name}`, "aria-controls": body.id, onclick: () => show(name) }, h("span", {}, TABS[name].title), h("span", { class: "dp-count" }))));
      names.forEach((name, i) => {
        const button = list.children[i];
        mark(button, "aria-selected", String(name === now));
        mark(button, "tabindex", name === now ? "0" : "-1");
        put(button.lastChild, numbers[i] ? tokens(numbers[i]) : "");
      });
      mark(body, "aria-labelledby", `${ids}-${now}`);
    }
    list.hidden = foot.hidden = !at;
    const where = `${id} ${at?.seq} ${now} ${compare}`, key = `${where} ${s.status} ${status} ${at ? TABS[now].key(context) : ""}`;
    if (shown !== key) {
      shown = key;
      const moved = wasAt !== where, atEnd = body.scrollHeight - body.scrollTop - body.clientHeight < 32;
      wasAt = where;
      const made = at ? TABS[now].show(context) : [h("p", { class: "dp-none" }, s.seq === 0 ? "Nothing has happened yet." : status === "queued" ? "Waits for a place." : status === "skipped" ? "Nothing led to it." : "Not started at this moment.")];
      replace(body, made.flat(Infinity).filter(Boolean));
      if (moved) body.scrollTop = 0;
      else if (atEnd && status === "running" && at?.end === null) body.scrollTop = body.scrollHeight;
    }
    if (at) figures(at, t, n);
  }

  /** Puts elements in; those that are there already stay where they are, so that a selection and the focus stay. */
  function replace(box, wanted) {
    const kept = new Set(wanted);
    for (const child of [...box.childNodes]) if (!kept.has(child)) child.remove();
    wanted.forEach((child, i) => { if (box.childNodes[i] !== child) box.insertBefore(child, box.childNodes[i] ?? null); });
  }

  function figures(at, t, n) {
    const usage = at.meta.usage, all = [[seconds((at.end ?? t) - at.start), "Time of this run"]];
    if (usage) {
      all.push([`${tokens(usage.input ?? 0)} in · ${tokens(usage.output ?? 0)} out${usage.cache_read ? ` · ${tokens(usage.cache_read)} cached` : ""}${usage.reasoning ? ` · ${tokens(usage.reasoning)} thought` : ""}`, "Tokens"]);
      all.push([money(at.meta.cost_usd), at.meta.cost_usd == null ? "The price is unknown" : "Cost"]);
    } else if (at.pieces) all.push([`~${tokens(at.pieces)} tok`, "Pieces of text that came: about as many tokens"]);
    if (at.first !== null) {
      all.push([`first ${seconds(at.first - at.start)}`, "Time to the first token"]);
      const writing = (at.end ?? t) - at.first;
      if (writing > 0.3 && at.pieces > 1) all.push([`${Math.round(at.pieces / writing)}/s`, "Tokens a second"]);
    }
    if (at.retries.length) all.push([count(at.retries.length, "retry", "retries"), "Calls that were made again"]);
    if (n.reused && at.meta.reused) all.push(["taken over", "From the run that this one is a fork of"]);
    while (foot.childElementCount > all.length) foot.lastChild.remove();
    all.forEach(([words, what], i) => {
      const span = foot.children[i] ?? foot.appendChild(h("span", {}));
      put(span, words);
      mark(span, "title", what);
    });
  }
  return { el, update, toggle, show, focus: () => body.focus() };
}
