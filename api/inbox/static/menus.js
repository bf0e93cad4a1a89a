// Clicks: menus that close, panels that open, what is copied, selects that submit.
import { $, $$, frame } from "./dom.js";
import { shape, who } from "./frame.js";
import { panel } from "./keys.js";
import { more, selection } from "./list.js";
import { refresh } from "./order.js";

// -- menus that open over the page close when something was chosen in them, beside them, or by Esc
function fold(but) {
  for (const menu of $$("details[open]:has(> .pop)")) if (menu !== but) menu.open = false;
}
// In a menu of people the arrows go up and down, and a letter goes to the next one whose name begins with it.
document.addEventListener("keydown", (event) => {
  const list = event.target.closest?.("details[open] .pop.choose") && $$("button", event.target.closest(".pop.choose"));
  if (!list || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = list.indexOf(document.activeElement), turned = [...list.slice(at + 1), ...list.slice(0, at)];
  const to = { ArrowDown: turned[0], ArrowUp: turned.at(-1), Home: list[0], End: list.at(-1) }[event.key]
    ?? (event.key.length === 1 && event.key !== " " && turned.find((one) => $(":scope > span:not(.avatar)", one).textContent.trim().toLowerCase().startsWith(event.key.toLowerCase())));
  if (!to && event.key.length !== 1 || event.key === " ") return;
  event.preventDefault();
  event.stopPropagation();
  to?.focus?.();
});
// Before anything else hears of it: also an act that waits for a connection closes its menu, and gives the keys back.
addEventListener("submit", (event) => {
  const menu = (event.submitter ?? event.target).closest(".pop")?.closest("details");
  if (!menu) return;
  if (menu.contains(document.activeElement)) $("summary", menu)?.focus();
  fold();
}, true);

// -- clicks, selection, selects that submit
document.addEventListener("click", (event) => {
  fold(event.target.closest("a") ? null : event.target.closest("details:has(> .pop)"));
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
  const toggle = event.target.closest("[data-toggle]");
  if (toggle) {
    const panel = document.getElementById(toggle.dataset.toggle);
    panel.hidden = !panel.hidden;
    toggle.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden) $("textarea", panel)?.focus();
  }
  const opens = event.target.closest("[data-opens]");
  if (opens) panel(opens.dataset.opens, "input:not([type=hidden])");
  if (event.target.id === "pill") refresh(true);
  if (event.target.closest("[data-who]")) who();
  if (event.target.closest("[data-fold-rail]")) shape(0, !frame.classList.contains("folded"));
  if (event.target.closest(".more")) { event.preventDefault(); event.stopPropagation(); more(); }
  const copy = event.target.closest("[data-copy]");
  if (copy) navigator.clipboard.writeText(copy.dataset.copy).then(() => { copy.textContent = "Copied"; });
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  if (event.target.matches("#rows input[type=checkbox]")) selection();
});
