// Runs a lifted program. What it reads from its terminal comes from the page, through the service worker: the request for it is
// answered when the reader has typed a line, so a program can wait without any special headers of the server.
import { Wasi } from './wasi.js';

onmessage = async ({ data: { module, args, env, files, id } }) => {
  const say = (kind) => (bytes) => postMessage({ kind, bytes });
  const stdin = () => {
    const r = new XMLHttpRequest();
    postMessage({ kind: 'reads' });
    r.open('GET', `./stdin?id=${id}`, false);
    r.overrideMimeType('text/plain; charset=x-user-defined');
    try {
      r.send();
    } catch {
      return new Uint8Array(0);
    }
    if (r.status !== 200) return new Uint8Array(0);
    return Uint8Array.from(r.responseText, (c) => c.charCodeAt(0) & 0xff);
  };
  try {
    const compiled = await WebAssembly.compileStreaming(fetch(module));
    postMessage({ kind: 'starts' });
    const wasi = new Wasi({ args, env, files, stdin, stdout: say('stdout'), stderr: say('stderr') });
    const status = wasi.start(compiled);
    postMessage({ kind: 'ended', status, files: wasi.files() });
  } catch (e) {
    postMessage({ kind: 'failed', message: String(e?.stack ?? e) });
  }
};
