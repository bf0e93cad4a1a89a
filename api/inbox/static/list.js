// The list: its cursor, rows that are selected, rows that follow, rows drawn by a finger.
import { $, $$, thread } from "./dom.js";
import { say } from "./toasts.js";

// -- list cursor
export let cursor = "";
export const rows = () => $$("#rows .row");
export function move(step) {
  const list = rows();
  if (!list.length) return;
  const at = list.findIndex((row) => row.dataset.id === (cursor || thread()));
  if (at + step >= list.length - 5) more();
  const next = list[Math.max(0, Math.min(list.length - 1, at < 0 ? 0 : at + step))];
  cursor = next.dataset.id;
  paintCursor(true);
}
export function paintCursor(scroll) {
  for (const row of rows()) {
    const here = row.dataset.id === cursor;
    row.classList.toggle("cursor", here);
    if (here && scroll) {
      row.scrollIntoView({ block: "nearest" });
      $(".row-link", row).focus({ preventScroll: true });
      remember();
    }
  }
}
// -- the address says how far down the list goes and which row one was at: reload, back and a shared link come there
let later;
export function remember() {
  clearTimeout(later);
  later = setTimeout(() => {
    const list = $("#rows");
    if (!list) return;
    const url = new URL(location.href);
    if ($("[data-more]", list)) url.searchParams.set("upto", list.dataset.last);
    else url.searchParams.delete("upto");
    if (!thread()) url.hash = placeOf(list)?.id ?? "";
    if (url.href !== location.href) history.replaceState(history.state, "", url);
  }, 250);
}
function placeOf(list) {
  const top = $(".list-head").getBoundingClientRect().bottom;
  const seen = (row) => row && row.getBoundingClientRect().bottom > top && row.getBoundingClientRect().top < innerHeight;
  const here = document.getElementById(`row-${cursor}`);
  if (seen(here)) return here;
  const first = rows().find(seen);
  return first === list.firstElementChild ? null : first;
}
export function restore() {
  if (thread()) return $(".row.current")?.scrollIntoView({ block: "nearest" });
  const row = /^#row-[\w-]+$/.test(location.hash) && $(location.hash);
  if (!row) return;
  cursor = row.dataset.id;
  row.scrollIntoView({ block: "center" });
  paintCursor(true);
}
document.addEventListener("scroll", (event) => { if (event.target === document || event.target.id === "list") remember(); }, { capture: true, passive: true });
export function extend(step) {
  for (const turn of [0, step]) {
    if (turn) move(turn);
    const box = $("input[type=checkbox]", rowHere() ?? document.body);
    if (box) box.checked = true;
  }
  cursor ||= rowHere()?.dataset.id ?? "";
  selection();
}
// -- more rows: appended where the list ends; a page that is read again keeps them
let loading = false;
export async function more() {
  const link = $(".more");
  if (!link || loading) return;
  loading = true;
  try {
    const answer = await fetch(link.href, { headers: { Purpose: "prefetch" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const list = $("#rows");
    for (const row of page.querySelectorAll("#rows .row")) {
      if (document.getElementById(row.id)) continue;
      row.dataset.more = "";
      list.append(document.importNode(row, true));
    }
    list.dataset.last = page.querySelector("#rows")?.dataset.last || list.dataset.last;
    const next = page.querySelector(".more");
    if (next) link.href = next.getAttribute("href");
    else link.remove();
    htmx.process(list);
    remember();
  } catch { say("The next rows did not come: there is no connection."); }
  loading = false;
}
function keepMore(fragment, posted) {
  const list = fragment?.querySelector?.("#rows");
  if (!list || list.dataset.list !== $("#rows")?.dataset.list) return;
  const gone = (row) => posted && (row.dataset.id === thread() || acted.has(row.dataset.id));
  // A page that was asked for as far down as this list goes has every row that is still there.
  if (list.dataset.upto && list.dataset.upto === $("#rows").dataset.last) return;
  const extra = $$("#rows [data-more]").filter((row) => !list.querySelector(`#${row.id}`) && !gone(row));
  if (!extra.length) return;
  const now = fragment.querySelector("#app")?.dataset.thread ?? fragment.dataset?.thread;
  list.append(...extra.map((row) => row.cloneNode(true)));
  list.dataset.last = $("#rows").dataset.last;
  for (const row of list.children) row.classList.toggle("current", row.dataset.id === now);
  const fresh = fragment.querySelector(".more");
  if ($(".more")) fresh?.replaceWith($(".more").cloneNode(true));
  else fresh?.remove();
}
document.addEventListener("htmx:before:swap", (event) => {
  for (const task of event.detail?.tasks ?? []) keepMore(task.fragment, event.detail.ctx?.request?.method === "POST");
});
const ticked = () => rows().filter((row) => $("input:checked", row));
export function selection() {
  const chosen = ticked();
  const bar = $(".bulk-bar");
  if (!bar) return;
  bar.hidden = !chosen.length;
  $("#bulk-count").textContent = `${chosen.length} selected`;
  $("#rows").classList.toggle("selecting", chosen.length > 0);
  turn(chosen);
}
// A button whose act is done to all of these rows already takes it back: star and unstar.
function turn(list) {
  for (const button of $$(".bulk-bar [data-flag]")) {
    const flags = button.dataset.flag.split(" ");
    const off = list.length > 0 && list.every((row) => row.dataset.is.split(" ").some((one) => flags.includes(one)));
    [button.value, button.textContent] = (off ? button.dataset.off : button.dataset.on).split("=");
  }
}
// -- acts by key on rows: on those that are selected, else on the one that the keys stand on, when that is not the open thread
let lent = ""; // the row that a key selected for a menu, and lets go again
let acted = new Set(), heir = "";
export function meant() {
  const chosen = ticked();
  if (chosen.length) return chosen;
  const row = document.getElementById(`row-${cursor}`);
  return row && cursor !== thread() && (!thread() || document.activeElement?.closest("#rows")) ? [row] : [];
}
export function onRows(key) {
  const control = $(`.bulk-bar [data-rows="${key}"]`);
  const list = control ? meant() : [];
  if (!list.length || control.disabled) return false;
  const box = $("input", list[0]), picked = !box.checked;
  if (control.matches("button")) {
    turn(list);
    if (picked) pressFor(list[0], control);
    else control.click();
    return true;
  }
  if (picked) { box.checked = true; lent = list[0].dataset.id; }
  selection();
  if (control.matches("details")) control.open = true;
  (control.matches("input") ? control : $("input, .pop button", control)).focus();
  return true;
}
// Of one row that stays unselected. The words are for the list of acts that wait for a connection.
function pressFor(row, button) {
  const box = $("input", row);
  box.checked = true;
  $("#bulk-count").textContent = $(".row-subject", row).textContent.trim();
  button.click();
  box.checked = false;
}
export function letGo() {
  if (!lent) return;
  const row = document.getElementById(`row-${lent}`);
  if (row) $("input", row).checked = false;
  lent = "";
  selection();
  paintCursor(true);
}
addEventListener("submit", (event) => {
  if (!event.target.matches("#bulk")) return; // its own `id` is that of its first row
  const list = ticked(), all = rows();
  acted = new Set(list.map((row) => row.dataset.id));
  const after = all.slice(all.indexOf(list.at(-1)) + 1), before = all.slice(0, Math.max(0, all.indexOf(list[0]))).reverse();
  heir = cursor && acted.has(cursor) ? [...after, ...before].find((row) => !acted.has(row.dataset.id))?.dataset.id ?? "" : "";
  setTimeout(letGo);
}, true);
// A row that left by its own act hands the cursor to the one below it.
export function inherit() {
  if (!heir || document.getElementById(`row-${cursor}`)) return;
  cursor = document.getElementById(`row-${heir}`) ? heir : "";
  heir = "";
  paintCursor(document.activeElement === document.body || Boolean(document.activeElement?.closest("#rows, .bulk-bar")));
}
// -- phone: a row drawn to the right is done, to the left snoozed; the same buttons stand in the thread
let drawn;
document.addEventListener("touchstart", (event) => {
  const row = event.touches.length === 1 && event.target.closest?.("#rows .row");
  drawn = row ? { row, x: event.touches[0].clientX, y: event.touches[0].clientY, by: 0 } : null;
}, { passive: true });
document.addEventListener("touchmove", (event) => {
  if (!drawn) return;
  const by = event.touches[0].clientX - drawn.x;
  if (Math.abs(event.touches[0].clientY - drawn.y) > 30) { drawn.row.style.transform = ""; drawn = null; return; }
  drawn.by = by;
  if (Math.abs(by) > 12) drawn.row.style.transform = `translateX(${by}px)`;
}, { passive: true });
document.addEventListener("touchend", () => {
  if (!drawn) return;
  const { row, by } = drawn;
  drawn = null;
  row.style.transform = "";
  if (Math.abs(by) < 90) return;
  for (const box of $$("#rows input:checked")) box.checked = false;
  turn([row]);
  pressFor(row, $(by > 0 ? ".bulk-bar [data-rows=done]" : ".bulk-bar [data-drawn]"));
});
export const rowHere = () => $(`#row-${CSS.escape(cursor || thread() || "none")}`) ?? rows()[0];
