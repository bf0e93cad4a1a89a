// Keys: each act of the registry by its keys, and the way back by Esc.
import { matchKeyBindingPress, parseKeybinding } from "./vendor/tinykeys.js";
import { $, meta, frame, thread } from "./dom.js";
import { who } from "./frame.js";
import { extend, letGo, move, onRows, rowHere, selection } from "./list.js";
import { press } from "./order.js";
import { message } from "./reading.js";

// The form that one writes in, else the reply's. A button that is locked sends nothing by its key either.
export function send(key) {
  const form = document.activeElement?.closest("form");
  const button = $(`[data-key=${key}]`, form?.matches("#reply-form, [data-panel=edit]") ? form : $("#reply-form") ?? document.createElement("form"));
  if (button && !button.disabled) button.form.requestSubmit(button);
}
export function panel(name, first) {
  const menu = $(`[data-panel=${name}]`);
  if (!menu) return;
  menu.open = true;
  $(first, menu).focus();
}
export const acts = {
  next: () => move(1),
  previous: () => move(-1),
  open: () => $(".row-link", rowHere() ?? document.body)?.click(),
  // Beside an open thread the list stands already: one goes to the row one was at.
  back: () => press("back") || thread() && move(0),
  select: () => { const box = $("input[type=checkbox]", rowHere() ?? document.body); if (box) { box.checked = !box.checked; selection(); } },
  "select-next": () => extend(1),
  "select-previous": () => extend(-1),
  "more-acts": () => { const first = $(".acts button, .acts summary"); first?.focus(); },
  search: () => $("#search")?.focus(),
  edit: () => press("edit"),
  "next-message": () => message(1),
  "previous-message": () => message(-1),
  context: () => who(),
  snooze: () => onRows("snooze") || panel("snooze", "#when"),
  assign: () => onRows("assign") || panel("assign", "button"),
  label: () => onRows("label") || panel("label", "input[name=add]"),
  help: () => $("#help")?.showModal(),
  send: () => send("send"),
};
const table = [];
const links = {};
for (const entry of meta("keys").split("|").filter(Boolean)) {
  const [act, keys, href] = entry.split("=");
  if (keys.includes("…")) continue; // a row of digits: review.js
  if (href) links[act] = entry.slice(act.length + keys.length + 2);
  table.push({ act, held: keys.includes("$mod"), presses: parseKeybinding(keys) });
}
// A sign is a sign wherever the keyboard has it: `/` is Shift+7 in Germany, `#` Option+3 in Britain. Letters know Shift.
const mac = /Mac|iP/.test(navigator.platform);
function pressed(event, [modifiers, key]) {
  if (!/^[^\p{L}\d\s]$/u.test(key) || modifiers.some((one) => one !== "Shift")) return matchKeyBindingPress(event, [modifiers, key]);
  const graph = event.getModifierState("AltGraph");
  return event.key === key && !event.metaKey && (graph || !event.ctrlKey && (mac || !event.altKey));
}
// While a first key waits for its second one, the second is nothing else: `g s` goes to the snoozed and stars no thread.
let begun = [], at = 0, clock;
const forget = () => { begun = []; at = 0; };
function listen(event) {
  if (!(event instanceof KeyboardEvent) || /^(Shift|Control|Alt|AltGraph|Meta|CapsLock)$/.test(event.key)) return;
  clearTimeout(clock);
  const waited = begun.length > 0 && !event.ctrlKey && !event.metaKey;
  if (!waited) forget();
  const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select");
  if ($("dialog[open]")) return forget();
  const fits = (one) => (!typing || one.held) && one.presses[at] && pressed(event, one.presses[at]);
  let found = (waited ? begun : table).filter(fits);
  if (waited && !found.length) { forget(); found = table.filter((one) => one.presses.length > 1 && fits(one)); }
  at += 1;
  const done = found.find((one) => one.presses.length === at);
  begun = done ? [] : found;
  if (!begun.length) at = 0;
  else clock = setTimeout(forget, 900);
  if (!done) return;
  event.preventDefault();
  run(done.act);
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
addEventListener("keydown", listen);
document.addEventListener("keydown", (event) => {
  if ($("dialog[open]")) return;
  if (event.key === "Enter" && event.target.id && !event.isComposing) $(`[data-enter="#${event.target.id}"]`)?.click();
  if (event.key === "Escape") {
    if (event.target.closest?.("#context") && frame.classList.contains("who-open")) who(false);
    else if (event.target.closest?.("details[open]:has(> .pop)")) { const menu = event.target.closest("details[open]"); menu.open = false; $("summary", menu).focus(); if (menu.closest(".bulk-bar")) letGo(); }
    else if (event.target.closest?.(".bulk-bar")) { event.target.blur(); letGo(); }
    else if (event.target.matches?.("input, textarea")) event.target.blur();
    else if (!event.defaultPrevented) acts.back();
  } else if (event.key === "ArrowDown" && event.target.closest?.("#rows")) { event.preventDefault(); move(1); }
  else if (event.key === "ArrowUp" && event.target.closest?.("#rows")) { event.preventDefault(); move(-1); }
});
