// A run in the window of an assistant: an MCP App (SEP-1865). The frame around this page, the host, says what the call of the tool gave; the log of
// the run is in its `_meta`, which no model reads. Until then the page shows the diagram.
import { shown, unpacked } from "./packed.js";
import { tr } from "./strings.js";
import { h, textOf } from "./words.js";

const PROTOCOL = "2026-01-26";
const HELLO = 1; // the id of the only request of ours
const METHOD_NOT_FOUND = -32601; // of JSON-RPC
const LOG = "dipeo-nb/run";
const place = document.getElementById("run");
let theme = null, view = null;

const say = (message) => parent.postMessage({ jsonrpc: "2.0", ...message }, "*");

function dress(context) {
  theme = context?.theme ?? theme;
  if (!theme) return;
  document.documentElement.style.colorScheme = theme;
  for (const run of document.querySelectorAll(".dp-run")) run.dataset.theme = theme;
}

async function show(packed) {
  const runs = await unpacked(packed);
  view?.dispose();
  place.replaceChildren();
  view = shown(place, runs, { ...runs[0].head, theme });
}

async function finished(result) {
  const log = result?._meta?.[LOG];
  if (log) await show(log);
  else place.append(h("p", { class: "dp-result" }, (result?.content ?? []).map((part) => textOf(part.text ?? "")).join("\n")));
}

const failed = (error) => place.append(h("p", { role: "alert" }, tr("app.unshown", { why: error.message })));

addEventListener("message", ({ source, data }) => {
  if (source !== parent || data?.jsonrpc !== "2.0") return;
  const { id, method, params, result } = data;
  if (id === HELLO && result) {
    dress(result.hostContext);
    say({ method: "ui/notifications/initialized" });
    new ResizeObserver(() => {
      const { width, height } = document.documentElement.getBoundingClientRect();
      say({ method: "ui/notifications/size-changed", params: { width: Math.ceil(width), height: Math.ceil(height) } });
    }).observe(document.documentElement);
  } else if (method === "ui/notifications/tool-result") finished(params).catch(failed);
  else if (method === "ui/notifications/host-context-changed") dress(params);
  else if (method === "ui/notifications/tool-cancelled") place.append(h("p", {}, tr("app.cancelled")));
  else if (method && id !== undefined)
    say(["ping", "ui/resource-teardown"].includes(method) ? { id, result: {} } : { id, error: { code: METHOD_NOT_FOUND, message: method } });
});

show(document.getElementById("data").textContent).catch(failed);
say({ id: HELLO, method: "ui/initialize", params: { appInfo: { name: "dipeo-nb", version: "1" }, appCapabilities: {}, protocolVersion: PROTOCOL } });
