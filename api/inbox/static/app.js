// Keys, live updates, drafts, toasts. Everything here only makes quicker what works as plain links and forms.
import { compose } from "./compose.js";
import { $, $$, app, meta } from "./dom.js";
import { restore as restoreWords } from "./drafts.js";
import { acts, go, run, send } from "./keys.js";
import { inherit, paintCursor, remember, restore, selection } from "./list.js";
import { live, present, state } from "./live.js";
import "./menus.js";
import { pill, press, refresh } from "./order.js";
import { palette } from "./palette.js";
import { open } from "./reading.js";
import { review } from "./review.js";
import "./toasts.js";

// The server shows moments where the reader is.
document.cookie = `zone=${encodeURIComponent(Intl.DateTimeFormat().resolvedOptions().timeZone ?? "")}; path=/; max-age=31536000; samesite=lax`;

// -- one-time link: the token stays in the fragment until the form is sent
const token = $("#token");
if (token && location.hash.length > 1) {
  token.value = location.hash.slice(1);
  token.hidden = true;
  history.replaceState(null, "", "/link");
}

// A morph leaves `hidden` as the agent left it. In a card that it made from another card's parts, the server decides anew.
const panelOf = new WeakMap();
function panels() {
  for (const one of $$("#suggestion form")) {
    if (panelOf.get(one) !== one.id) one.hidden = one.dataset.shown === "0";
    panelOf.set(one, one.id);
  }
}
document.addEventListener("htmx:after:swap", (event) => {
  restoreWords(event.detail?.ctx);
  open();
  panels();
  paintCursor(false);
  inherit();
  selection();
  remember();
  present(state());
  pill();
});
open();
restore();
const card = review({ $, $$, acts, press, refresh });
panels();
live(card);
compose({ $, $$, acts, press, send, meta });
palette({ $, $$, acts, run, go });
document.documentElement.dataset.ready = "1";
