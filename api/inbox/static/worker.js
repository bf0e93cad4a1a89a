// Shows no page and keeps nothing: it only opens the thread that a notification is about.
addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("notificationclick", (event) => {
  event.notification.close();
  const url = new URL(event.notification.data.url, location.origin);
  event.waitUntil(clients.matchAll({ type: "window" }).then(async (open) => {
    const page = open.find((one) => new URL(one.url).pathname.startsWith("/inbox")) ?? open[0];
    if (!page) return clients.openWindow(url);
    await page.focus();
    return page.navigate(url);
  }));
});
