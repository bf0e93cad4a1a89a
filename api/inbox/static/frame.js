// The frame: how wide the list is and whether the rail is folded, kept in this browser; who stands beside the thread.
import { $, $$, frame } from "./dom.js";

export function shape(width, folded) {
  if (width) { frame.style.setProperty("--list", `${width}px`); localStorage.setItem("list", width); $("#grip")?.setAttribute("aria-valuenow", width); }
  if (folded !== undefined) { frame.classList.toggle("folded", folded); localStorage.setItem("folded", folded ? "1" : ""); }
  $("[data-fold-rail]")?.setAttribute("aria-expanded", String(!frame.classList.contains("folded")));
}
const within = (width) => Math.round(Math.max(340, Math.min(420, width)));
shape(Number(localStorage.getItem("list")) || 0, Boolean(localStorage.getItem("folded")));
document.addEventListener("pointerdown", (event) => {
  if (event.target.id !== "grip") return;
  event.preventDefault();
  const drag = (at) => shape(within(at.clientX - $("#list").getBoundingClientRect().left));
  addEventListener("pointermove", drag);
  addEventListener("pointerup", () => removeEventListener("pointermove", drag), { once: true });
});
document.addEventListener("keydown", (event) => {
  const step = event.target.id === "grip" && { ArrowLeft: -10, ArrowRight: 10 }[event.key];
  if (step) shape(within($("#list").offsetWidth + step));
});
// -- who: the drawer beside the thread stays open from thread to thread until it is closed
let cameFrom;
export function who(open = !frame.classList.contains("who-open"), focus = true) {
  const drawer = $("#context");
  if (!drawer) return;
  if (open && focus) cameFrom = document.activeElement;
  frame.classList.toggle("who-open", open);
  sessionStorage.setItem("who", open ? "1" : "");
  for (const button of $$("[data-who]")) button.setAttribute("aria-expanded", String(open));
  if (!focus) return;
  if (open) ($(".close", drawer).offsetParent ? $(".close", drawer) : drawer).focus();
  else (cameFrom?.isConnected && cameFrom !== document.body ? cameFrom : $("#thread"))?.focus({ preventScroll: true });
}
