// Toasts: what was just done, and the clock of a message that is about to leave.
import { $ } from "./dom.js";

setInterval(() => {
  const clock = $("[data-countdown]");
  if (!clock) return;
  const left = Math.max(0, Number(clock.dataset.countdown) - 1);
  clock.dataset.countdown = left;
  clock.textContent = left ? `Sending in ${left} s` : "On its way";
  if (!left) setTimeout(forgetAct, 1500);
}, 1000);
function forgetAct() {
  $("#toasts")?.replaceChildren();
  const url = new URL(location.href);
  for (const name of ["did", "message", "suggestion", "state", "thread", "version", "redo", "until", "back", "was"]) url.searchParams.delete(name);
  history.replaceState(history.state, "", url);
}

export let said = "";
export function say(words) {
  said = words;
  setTimeout(() => { if (said === words) said = ""; }, 6000);
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.textContent = words;
  $("#toasts")?.replaceChildren(toast);
}
