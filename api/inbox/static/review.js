// The suggestion card: dismissing, citations, drafts as they stream in, what may not be sent yet.
export function review({ $, $$, acts, press, refresh }) {
  // Dismiss goes to the server at once. Why not is said afterwards: by 1 to 6 or a button, as long as the strip is there.
  let until = 0, dismissed = "";
  const strip = () => $$("[data-panel=reasons]").find((one) => !one.hidden && one.offsetParent);
  acts.dismiss = () => {
    const id = $("#suggestion")?.dataset.suggestion;
    if (id && id === dismissed) return; // pressed twice: the first one is under way
    press("dismiss");
  };
  document.addEventListener("click", (event) => {
    const reasons = event.target.closest?.(".dismiss [data-key=dismiss]") && $("[data-panel=reasons]");
    if (!reasons) return;
    dismissed = $("#suggestion").dataset.suggestion;
    until = Date.now() + 4000;
    reasons.hidden = false;
  });
  document.addEventListener("htmx:finally:request", () => { dismissed = ""; });

  // Citations: mark the source, go there, and come back to where one was.
  let back = null;
  function cite(link, number = link.dataset.cite) {
    const source = $(`[data-source="${number}"]`);
    if (!source) return;
    back = { link, number, top: $("#scroll")?.scrollTop ?? 0, page: scrollY };
    dim();
    if (source.dataset.message) return line(source);
    const panel = $("details", source);
    panel.open = true;
    const mark = $(`mark[data-at="${link.dataset.from}"]`, panel) ?? $("mark", panel);
    mark?.classList.add("lit");
    (mark ?? source).scrollIntoView({ block: "center" });
    source.focus({ preventScroll: true });
  }
  function line(source) {
    const message = document.getElementById(`message-${source.dataset.message}`);
    if (!message) return source.focus();
    const fold = message.closest("details:not([open])");
    if (fold) fold.open = true;
    const text = [...$$(".text", message)].flatMap((one) => [...one.childNodes]).find((node) => node.nodeType === 3 && node.data.includes(source.dataset.line));
    if (text && CSS.highlights) {
      const range = new Range();
      const at = text.data.indexOf(source.dataset.line);
      range.setStart(text, at);
      range.setEnd(text, at + source.dataset.line.length);
      CSS.highlights.set("cited", new Highlight(range));
    }
    message.classList.add("lit");
    message.scrollIntoView({ block: "center" });
    message.focus({ preventScroll: true });
  }
  function dim() {
    CSS.highlights?.delete("cited");
    for (const one of $$(".lit")) one.classList.remove("lit");
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("[data-cite]");
    if (!link) return;
    event.preventDefault();
    event.stopPropagation();
    cite(link);
  }, true);

  const digits = ($("meta[name=keys]")?.content ?? "").includes("cite=");
  addEventListener("keydown", (event) => {
    if ($("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select");
    const open = !typing && strip();
    if (open && digits && /^[1-6]$/.test(event.key)) {
      press(`reason-${event.key}`);
    } else if (event.key === "Escape" && open && Date.now() < until) {
      open.hidden = true; // who meant to cancel the dismissal is not sent back to the list
      until = 0;
    } else if (event.key === "Escape" && back && !typing) {
      dim();
      const { link, number, top, page } = back;
      back = null;
      if ($("#scroll")) $("#scroll").scrollTop = top;
      scrollTo(0, page);
      (link.isConnected ? link : $(`[data-cite="${number}"]`))?.focus({ preventScroll: true });
    } else if (digits && !typing && /^[1-9]$/.test(event.key) && $(`[data-source="${event.key}"]`)) {
      cite($(`[data-cite="${event.key}"]`) ?? $(`[data-source="${event.key}"]`), event.key);
    } else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);

  // Sending an edit waits until everything without a source is out of it. A page that is read again knows the edit that was kept
  // last; what is in the box was asked about since.
  let asked = {};
  function settle(event) {
    for (const diff of $$(".edit .diff")) {
      const form = diff.closest("form"), text = $("textarea", form).value;
      if (event?.detail?.ctx?.target?.id === diff.id) asked = { id: diff.id, text, left: diff.dataset.left };
      const left = asked.id === diff.id && asked.text === text ? asked.left : diff.dataset.left;
      for (const send of $$("[data-key=send], [data-key=send-done]", form)) send.disabled = send.hasAttribute("data-blocked") || Number(left) > 0;
    }
  }
  document.addEventListener("htmx:after:swap", settle);
  settle();

  // What the model writes, piece by piece; a piece that does not follow the shown ones means reading the page again.
  return {
    delta(frame) {
      const stream = $("#stream");
      if (!stream || stream.dataset.suggestion !== frame.suggestion_id) return false;
      const letters = [...stream.textContent].length;
      if (frame.at > letters) refresh();
      else stream.textContent = [...stream.textContent].slice(0, frame.at).join("") + frame.text;
      return true;
    },
  };
}
