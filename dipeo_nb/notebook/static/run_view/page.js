// A run in a file of its own: the data are in the page.
import { shown, unpacked } from "./packed.js";
import { h } from "./words.js";

async function open() {
  const runs = await unpacked(document.getElementById("data").textContent);
  const view = shown(document.getElementById("run"), runs);
  // run.html#120 opens at event 120.
  const go = () => { if (/^#\d+$/.test(location.hash)) view.seek(Number(location.hash.slice(1))); };
  addEventListener("hashchange", go);
  go();
}

open().catch((error) => document.getElementById("run").append(h("p", {}, tr("page.unreadable", { why: error.message }))));
