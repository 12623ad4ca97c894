// Runs that were put into a page or a message as letters: JSON, compressed.
import { createRunView } from "./main.js";
import { tr } from "./strings.js";

/** @param {string} packed @returns {Promise<{head: import("./main.js").Head, events: import("./fold.js").Row[]}[]>} */
export async function unpacked(packed) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text());
}

/** Shows the first of these runs, in which those of sub-diagrams open in place. */
export function shown(place, [run, ...others], head = run.head) {
  const known = new Map(others.map((one) => [one.head.run_id, one]));
  const ask = async ({ run: id }) => {
    if (!known.has(id)) throw new Error(tr("page.missing"));
    return known.get(id);
  };
  const view = createRunView(place, { head, host: { send() {}, ask: others.length ? ask : undefined } });
  view.push(run.events);
  return view;
}
