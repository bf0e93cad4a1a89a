// Reading a thread: from message to message, frames as high as their mails, where a thread opens.
import { $, $$, thread } from "./dom.js";
import { who } from "./frame.js";

export function message(step) {
  const all = $$(".message");
  const at = all.indexOf(document.activeElement?.closest(".message"));
  // The address names a message before the browser has moved the focus there, and still after it went elsewhere.
  const named = at < 0 ? all.findIndex((one) => location.hash === `#${one.id}`) : at;
  const from = named < 0 ? all.findIndex((one) => one.hasAttribute("data-start")) : named; // a thread opens at its newest message
  const next = all[Math.max(0, Math.min(all.length - 1, from + (named < 0 && step > 0 ? 0 : step)))];
  if (!next) return;
  const fold = next.closest("details:not([open])");
  if (fold) fold.open = true;
  next.focus();
  history.replaceState(history.state, "", `#${next.id}`);
}
// Frames of mails cannot be measured from here; the server reckoned their height for some widths.
function fit() {
  for (const frame of $$("iframe[data-high]")) {
    const known = frame.dataset.high.trim().split(" ").map((pair) => pair.split(":").map(Number));
    if (!frame.clientWidth) continue;
    const fits = known.filter(([width]) => width <= frame.clientWidth).pop() ?? known[0];
    if (frame.height !== String(fits[1])) frame.height = fits[1];
  }
}
addEventListener("resize", fit);
document.addEventListener("toggle", fit, true);
// A thread opens at its newest message. Refreshes of the same thread leave the reader where they are.
let opened = "";
export function open() {
  fit();
  if (sessionStorage.getItem("who")) who(true, false);
  if (thread() === opened) return;
  opened = thread();
  const start = !location.hash && $("#scroll [data-start]");
  if (start && getComputedStyle($("#scroll")).overflowY === "auto") $("#scroll").scrollTo({ top: start.offsetTop - $("#scroll").offsetTop - 12, behavior: "instant" });
  const auto = $("form[data-auto]");
  if (auto) auto.requestSubmit();
}
