// The panel of a node: one turn of it, in tabs.
import { look } from "./fold.js";
import { Markdown } from "./markdown.js";
import { nodeMenu } from "./menu.js";
import { tr } from "./strings.js";
import { Printed, TABS, tabsOf, Thought } from "./tabs.js";
import { count, focusedIn, h, mark, money, put, seconds, tokens } from "./words.js";

const REACHED = "button, summary, a[href], input, select, textarea, [tabindex]";

export function panel(view) {
  const title = h("h3", { class: "dp-who", dir: "auto" }), about = h("span", { class: "dp-about" });
  const earlier = h("button", { type: "button", class: "dp-tool", "aria-label": tr("panel.earlier"), title: tr("panel.earlier"), onclick: () => view.turnBy(-1) }, "◂");
  const later = h("button", { type: "button", class: "dp-tool", "aria-label": tr("panel.later"), title: tr("panel.later"), onclick: () => view.turnBy(1) }, "▸");
  const which = h("span", { class: "dp-num" });
  const compared = h("button", { type: "button", class: "dp-tool", "aria-label": tr("panel.compare"), title: tr("panel.compare.title"), onclick: () => toggle() }, "±");
  const pager = h("span", { class: "dp-pager" }, earlier, which, later, compared);
  const follow = h("button", { type: "button", class: "dp-link dp-follow", title: tr("panel.follow.title"), onclick: () => view.release() }, tr("panel.follow"));
  const more = nodeMenu(view);
  const list = h("div", { class: "dp-tabs", role: "tablist", "aria-label": tr("panel.tabs") });
  const body = h("div", { class: "dp-body", role: "tabpanel", tabindex: "0" }), foot = h("div", { class: "dp-foot" });
  const el = h("div", { class: "dp-panel", role: "group", "aria-label": tr("panel.label") }, h("div", { class: "dp-panel-head" }, title, about, pager, follow, more.el), list, body, foot);
  const text = new Markdown(), thought = new Thought(), printed = new Printed(), ids = view.unique("tab");
  let tab = "answer", compare = false, shown = "", tabsShown = "", wasAt = "";
  let form = null; // in which a prompt is edited: what is typed stays, whatever happens in the run meanwhile
  let atEnd = true, follows = false; // whether its end is in sight, and is to be when all is drawn
  body.id = view.unique("panel");

  list.addEventListener("keydown", (e) => {
    const all = [...list.children], i = all.indexOf(focusedIn(list)), to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: all.length - 1 }[e.key];
    if (to === undefined || i < 0) return;
    const next = all.at(to % all.length);
    next.focus();
    next.click();
    e.preventDefault();
    e.stopPropagation();
  });

  function show(name) {
    tab = name;
    if (list.contains(focusedIn(list))) list.querySelector(`#${CSS.escape(`${ids}-${name}`)}`)?.focus();
    view.draw();
  }
  function toggle() { compare = !compare; if (tab !== "answer" && tab !== "output") tab = "answer"; view.draw(); }

  function update(frame) {
    const { s, t, selected: id, turn: index, chosen } = frame, n = s.nodes.get(id), at = n?.turns[index], status = look(s, id, t), kind = view.kind(s, id);
    put(title, id === null ? tr("panel.empty") : view.label(s, id));
    put(about, view.about(s, id, at));
    follow.hidden = !chosen;
    more.update(frame);
    const many = (n?.turns.length ?? 0) > 1;
    pager.hidden = !many;
    if (many) {
      put(which, tr(at.attempt > 1 ? "panel.attempt" : "panel.turn", { run: at.run, again: at.attempt - 1, all: n.turns.at(-1).run }));
      earlier.disabled = index <= 0;
      later.disabled = index >= n.turns.length - 1;
      compared.disabled = index <= 0;
      mark(compared, "aria-pressed", String(compare && index > 0));
    }
    const names = tabsOf(kind), now = names.includes(tab) ? tab : names[0];
    const context = { view, frame, s, t, id, n, at, index, status, kind, compare: compare && index > 0, text, thought, printed, form: (make) => (form ??= make()) };
    if (view.editing === null) form = null;
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
    const editing = at && now === "prompt" && view.editing === id;
    const where = `${id} ${at?.seq} ${now} ${compare}${editing ? " edited" : ""}`, key = editing ? where : `${where} ${s.status} ${status} ${at ? TABS[now].key(context) : ""}`;
    if (shown !== key) {
      shown = key;
      const moved = wasAt !== where;
      wasAt = where;
      const made = at ? TABS[now].show(context) : [h("p", { class: "dp-none" }, s.seq === 0 ? tr("panel.nothing") : status === "queued" ? tr("panel.queued") : status === "skipped" ? tr("panel.skipped") : tr("panel.pending"))];
      const kept = moved ? null : standing();
      replace(body, made.flat(Infinity).filter(Boolean));
      kept?.();
      if (moved) [body.scrollTop, atEnd] = [0, true];
      else follows = atEnd && status === "running" && at?.end === null && !within(); // whose focus is on something in it stays there
    }
    if (at) figures(at, t, n);
  }

  /** To look where something stands has the page laid out: once for each draw, when every part has written what it has to. */
  function settle() {
    if (follows) body.scrollTop = body.scrollHeight;
    follows = false;
    if (text.more && text.el.isConnected) { shown = ""; view.draw(); } // the rest of a long answer, in the next draw
  }
  body.addEventListener("scroll", () => { atEnd = body.scrollHeight - body.scrollTop - body.clientHeight < 32; }, { passive: true });

  const within = () => focusedIn(body) !== body && body.contains(focusedIn(body));

  /** Where the reader is in what is about to be made anew: which folds are open, and what has the focus. Puts it back. */
  function standing() {
    const folds = [...body.querySelectorAll("details")].map((one) => one.open), focused = within() ? [...body.querySelectorAll(REACHED)].indexOf(focusedIn(body)) : -1;
    return () => {
      const now = [...body.querySelectorAll("details")];
      if (now.length === folds.length) now.forEach((one, i) => { if (one.open !== folds[i]) one.open = folds[i]; });
      if (focused >= 0 && !body.contains(focusedIn(body))) body.querySelectorAll(REACHED)[focused]?.focus({ preventScroll: true });
    };
  }

  /** Puts elements in; those that are there already stay where they are, so that a selection and the focus stay. */
  function replace(box, wanted) {
    const kept = new Set(wanted);
    for (const child of [...box.childNodes]) if (!kept.has(child)) child.remove();
    wanted.forEach((child, i) => { if (box.childNodes[i] !== child) box.insertBefore(child, box.childNodes[i] ?? null); });
  }

  function figures(at, t, n) {
    const usage = at.meta.usage, all = [[seconds((at.end ?? t) - at.start), tr("figure.time")]];
    if (usage) {
      all.push([[tr("usage", { input: tokens(usage.input ?? 0), output: tokens(usage.output ?? 0) }), usage.cache_read && tr("usage.cached", { n: tokens(usage.cache_read) }), usage.reasoning && tr("usage.thought", { n: tokens(usage.reasoning) })].filter(Boolean).join(" · "), tr("figure.tokens")]);
      all.push([money(at.meta.cost_usd), at.meta.cost_usd == null ? tr("figure.unknown") : tr("cost")]);
    } else if (at.pieces) all.push([`~${tokens(at.pieces)} ${tr("tok")}`, tr("figure.pieces")]);
    if (at.first !== null) {
      all.push([tr("figure.first", { time: seconds(at.first - at.start) }), tr("figure.first.title")]);
      const writing = (at.end ?? t) - at.first;
      if (writing > 0.3 && at.pieces > 1) all.push([tr("figure.speed", { n: Math.round(at.pieces / writing) }), tr("figure.rate")]);
    }
    if (at.retries.length) all.push([count(at.retries.length, "retry"), tr("figure.retries")]);
    if (n.reused && at.meta.reused) all.push([tr("taken"), tr("taken.title")]);
    while (foot.childElementCount > all.length) foot.lastChild.remove();
    all.forEach(([words, what], i) => {
      const span = foot.children[i] ?? foot.appendChild(h("span", {}));
      put(span, words);
      mark(span, "title", what);
    });
  }
  return { el, update, settle, toggle, show, focus: () => body.focus() };
}
