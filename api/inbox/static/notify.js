// Notifications of the system, shown by an open page while nobody looks at it. Words come from the server when they are shown.
import { $, meta } from "./dom.js";

const MOST = 6, shown = []; // moments of the last minute
const can = () => "Notification" in window && "serviceWorker" in navigator;
export const notifying = () => Boolean(meta("notify")) && can() && Notification.permission === "granted";
const worker = () => navigator.serviceWorker.register("/worker.js");

export async function notify(threadId) {
  if (!document.hidden || !notifying()) return;
  const now = Date.now();
  while (shown.length && now - shown[0] > 60000) shown.shift();
  if (shown.push(now) > MOST) return; // an import is not a hundred notifications
  const answer = await fetch(`/inbox/${encodeURIComponent(threadId)}/notice`).catch(() => null);
  if (answer?.status !== 200) return; // held, read meanwhile, or no connection: the list tells it
  const { title, body, url } = await answer.json();
  await worker();
  const ready = await navigator.serviceWorker.ready;
  // The same tag for a thread: two open pages show it once.
  await ready.showNotification(title, { body, tag: threadId, data: { url }, icon: "/static/icon-192.png" });
}

// -- settings: whether this browser shows them, and the button that asks it
function tell() {
  const state = $("#notify-state");
  if (!state) return;
  const words = { granted: "This browser shows them.", denied: "This browser refuses them: allow notifications for this address in its settings.", default: "This browser has not been asked yet." };
  state.textContent = can() ? words[Notification.permission] : "This browser cannot show them here: it needs https, or this machine's own address.";
  $("#notify-ask").hidden = !can() || Notification.permission !== "default";
}
document.addEventListener("click", (event) => {
  if (event.target.id === "notify-ask") Notification.requestPermission().then(tell);
});
tell();
if (notifying()) worker().catch(() => undefined); // a browser that refuses it shows none; the list tells all the same
