// An answer while it streams in, in a page that the notebook's own output does not reach.
import { Markdown } from "./markdown.js";
import { tr } from "./strings.js";
import { h, put } from "./words.js";

/** @param {HTMLElement} root */
export function createChatView(root) {
  const lines = h("p", { class: "dp-chat-lines" }), text = new Markdown(), foot = h("p", { class: "dp-chat-foot", role: "status" });
  // With Jupyter's own classes: at the end, a cell holds the same text as Jupyter renders it.
  const el = h("section", { class: "dp-chat jp-RenderedHTMLCommon jp-RenderedMarkdown", "aria-label": tr("chat.label") }, lines, text.el, foot);
  let said = "";
  root.append(el);
  return {
    push(part) {
      if (typeof part === "string") said += part;
      else if (!Array.isArray(part)) {
        said = part.text;
        lines.replaceChildren(...part.lines.flatMap((line) => [line, h("br")]));
        lines.hidden = part.lines.length === 0;
        put(foot, part.foot);
      }
      text.show(said);
    },
    now() {},
    gone() { put(foot, tr("chat.gone")); },
    ended() {},
    dispose() { el.remove(); },
  };
}
