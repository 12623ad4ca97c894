// Sheets over the view: a form for another run, the runs that it can be compared with, and a text to copy.
import { tr } from "./strings.js";
import { count, h, line, money, put, seconds, textOf, word } from "./words.js";

/** Copies a text; where the page may not use the clipboard, by selecting it. @param {string} text */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    let held = document.activeElement;
    while (held?.shadowRoot?.activeElement) held = held.shadowRoot.activeElement;
    const field = h("textarea", { class: "dp-sr", readonly: true, "aria-hidden": "true" });
    field.value = text;
    (held?.closest("dialog[open]") ?? document.querySelector("dialog[open]") ?? document.body).append(field); // beside an open sheet nothing can be selected
    field.select();
    document.execCommand("copy");
    field.remove();
    held?.focus({ preventScroll: true });
  }
}

/** Why something was refused, and a button that allows it where the user may.
 * @param {Error & {listing?: string[], pin?: string}} error @param {((pin: string) => void) | null} allow */
export function refusal(error, allow) {
  return [h("p", {}, error.message), error.listing?.length && h("ul", { class: "dp-wants" }, error.listing.map((wanted) => h("li", { dir: "auto" }, wanted))),
    allow && error.pin && h("button", { type: "button", class: "dp-btn", onclick: () => allow(error.pin) }, tr("refusal.allow"))].filter(Boolean);
}

function sheet(view, name, title, ...inside) {
  const id = view.unique(name), close = h("button", { type: "button", class: "dp-btn", onclick: () => el.close() }, tr("sheet.close"));
  const el = h("dialog", { class: "dp-sheet", "aria-labelledby": id }, h("h3", { id }, title), ...inside);
  return { el, close };
}

/** The form: a field for each input, and the model. What is not changed stays. */
export function againSheet(view) {
  const fields = h("div", { class: "dp-form" }), wrong = h("div", { role: "alert" }), model = h("input", { class: "dp-field", type: "text", autocomplete: "off", spellcheck: "false" });
  const go = h("button", { type: "submit", class: "dp-btn dp-primary" }, tr("again.go"));
  const form = h("form", { onsubmit: (e) => { e.preventDefault(); run(null); } }), { el, close } = sheet(view, "again", tr("again.title"), form);
  let read = () => ({});
  form.append(h("p", { class: "dp-dim" }, tr("again.about")), fields, h("label", { class: "dp-label-row" }, h("span", {}, tr("again.model")), model), wrong, h("p", { class: "dp-acts" }, go, close));

  function field({ name, value, kind }) {
    const long = kind === "json" || (kind === "text" && textOf(value).length > 60), text = kind === "json" ? JSON.stringify(value, null, 2) ?? "" : textOf(value);
    const input = kind === "boolean" ? h("input", { type: "checkbox" }) : long ? h("textarea", { class: "dp-field", rows: "4", dir: "auto" }) : h("input", { class: "dp-field", type: kind === "number" ? "number" : "text", step: "any", dir: "auto", autocomplete: "off" });
    if (kind === "boolean") input.checked = Boolean(value); else input.value = text;
    fields.append(h("label", { class: "dp-label-row" }, h("span", {}, name), input));
    return [name, () => {
      if (kind === "boolean") return input.checked === Boolean(value) ? undefined : input.checked;
      if (input.value === text) return undefined;
      if (kind === "text") return input.value;
      try {
        return JSON.parse(input.value);
      } catch {
        throw new Error(tr(kind === "number" ? "again.number" : "again.json", { name }));
      }
    }];
  }
  async function run(trust) {
    wrong.replaceChildren();
    go.disabled = true;
    try {
      const found = await view.ask("again", { inputs: read(), ...(model.value.trim() ? { model: model.value.trim() } : {}), ...(trust ? { trust } : {}) });
      el.close();
      view.begun(found);
    } catch (error) {
      wrong.replaceChildren(...refusal(error, (pin) => run(pin)));
    } finally {
      go.disabled = false;
    }
  }
  return {
    el,
    async open() {
      const known = await view.tried(() => view.ask("inputs"));
      if (!known) return;
      fields.replaceChildren();
      const readers = known.inputs.map(field);
      read = () => Object.fromEntries(readers.map(([name, value]) => [name, value()]).filter(([, value]) => value !== undefined));
      model.value = "";
      model.placeholder = known.model ?? tr("again.models");
      wrong.replaceChildren();
      el.showModal();
      form.querySelector("input, textarea").focus();
    },
  };
}

/** The other runs, those of the same diagram first. */
export function othersSheet(view) {
  const list = h("div", { class: "dp-list dp-others" }), none = h("p", { class: "dp-none", hidden: true }, tr("others.none"));
  const { el, close } = sheet(view, "others", tr("others.title"), list, none);
  el.append(h("p", { class: "dp-acts" }, close));
  return {
    el,
    async open() {
      const found = await view.tried(() => view.ask("runs"));
      if (!found) return;
      none.hidden = found.runs.length > 0;
      list.replaceChildren(...found.runs.map((run) => h("button", { type: "button", class: "dp-entry", onclick: () => { el.close(); view.comparedWith(run.run_id); } },
        h("b", { class: "dp-clip" }, run.diagram), h("span", {}, word(run.status)), h("span", { class: "dp-num dp-dim" }, [run.short_id, run.duration_s == null ? "" : seconds(run.duration_s), run.cost_usd == null ? "" : money(run.cost_usd), run.model ?? ""].filter(Boolean).join(" · ")),
        h("span", { class: "dp-clip dp-dim", dir: "auto" }, run.note || line(run.inputs, 60)))));
      el.showModal();
      (list.querySelector("button") ?? close).focus();
    },
  };
}

/** A text of Python. */
export function textSheet(view) {
  const text = h("pre", { class: "dp-out", tabindex: "0", role: "group", "aria-label": tr("text.label") }), copy = h("button", { type: "button", class: "dp-btn dp-primary", onclick: () => { copyText(text.textContent); put(said, tr("said.copied")); } }, tr("text.copy"));
  const { el, close } = sheet(view, "text", tr("text.title"), text), said = h("span", { class: "dp-dim", role: "status" });
  el.append(h("p", { class: "dp-acts" }, copy, close, said));
  return {
    el,
    open(written) {
      put(text, written);
      put(said, count(written.trimEnd().split("\n").length, "line"));
      el.showModal();
      copy.focus();
    },
  };
}
