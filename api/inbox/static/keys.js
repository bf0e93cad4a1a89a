// Keys: each act of the registry by its keys, and the way back by Esc.
import { tinykeys } from "./vendor/tinykeys.js";
import { $, meta, frame } from "./dom.js";
import { who } from "./frame.js";
import { extend, move, rowHere, selection } from "./list.js";
import { press } from "./order.js";
import { message } from "./reading.js";

export const acts = {
  next: () => move(1),
  previous: () => move(-1),
  open: () => $(".row-link", rowHere() ?? document.body)?.click(),
  back: () => press("back"),
  select: () => { const box = $("input[type=checkbox]", rowHere() ?? document.body); if (box) { box.checked = !box.checked; selection(); } },
  "select-next": () => extend(1),
  "select-previous": () => extend(-1),
  "more-acts": () => { const first = $(".acts button, .acts summary"); first?.focus(); },
  search: () => $("#search")?.focus(),
  edit: () => press("edit"),
  "next-message": () => message(1),
  "previous-message": () => message(-1),
  context: () => who(),
  snooze: () => { const panel = $("[data-panel=snooze]"); if (panel) { panel.open = true; $("#when").focus(); } },
  help: () => $("#help")?.showModal(),
  send: () => {
    const form = document.activeElement?.closest("form");
    const wanted = form && form.matches("#reply-form, [data-panel=edit]") ? form : $("#reply-form");
    wanted?.requestSubmit($("[data-key=send]", wanted) ?? undefined);
  },
};
const table = {};
const links = {};
for (const entry of meta("keys").split("|").filter(Boolean)) {
  const [act, keys, href] = entry.split("=");
  if (keys.includes("…")) continue; // a row of digits: review.js
  if (href) links[act] = entry.slice(act.length + keys.length + 2);
  table[keys] = (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select");
    if ((typing && !keys.includes("$mod")) || $("dialog[open]")) return;
    event.preventDefault();
    run(act);
  };
}
// A page of the inbox is read into this one; any other is opened.
export function go(href) {
  if (!href.startsWith("/inbox") || !$("#list")) return location.assign(href);
  htmx.ajax("GET", href, { target: "#app", select: "#app", swap: "outerMorph", push: href }).catch(() => location.assign(href));
}
export function run(act) {
  if (links[act]) go(links[act]);
  else (acts[act] ?? (() => press(act)))();
}
tinykeys(window, table, { timeout: 900 });
document.addEventListener("keydown", (event) => {
  if ($("dialog[open]")) return;
  if (event.key === "Escape") {
    if (event.target.closest?.("#context") && frame.classList.contains("who-open")) who(false);
    else if (event.target.closest?.("details[open]:has(> .pop)")) { const menu = event.target.closest("details[open]"); menu.open = false; $("summary", menu).focus(); }
    else if (event.target.matches?.("input, textarea")) event.target.blur();
    else press("back");
  } else if (event.key === "ArrowDown" && event.target.closest?.("#rows")) { event.preventDefault(); move(1); }
  else if (event.key === "ArrowUp" && event.target.closest?.("#rows")) { event.preventDefault(); move(-1); }
});
