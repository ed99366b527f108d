// Service worker: holds a program's request for input until the page has a line for it.
const waiting = new Map();
const lines = new Map();

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (e) => e.waitUntil(self.clients.claim()));

/** Bytes, or null for the end of input. */
self.addEventListener('message', ({ data: { id, bytes } }) => {
  const answer = waiting.get(id);
  if (answer) {
    waiting.delete(id);
    answer(bytes);
  } else {
    lines.set(id, [...(lines.get(id) ?? []), bytes]);
  }
});

self.addEventListener('fetch', (e) => {
  const url = new URL(e.request.url);
  if (!url.pathname.endsWith('/browser/stdin')) return;
  const id = url.searchParams.get('id');
  const ready = lines.get(id);
  const bytes = ready?.length ? Promise.resolve(ready.shift()) : new Promise((done) => waiting.set(id, done));
  e.respondWith(bytes.then((b) => new Response(b ?? new Uint8Array(0))));
});
