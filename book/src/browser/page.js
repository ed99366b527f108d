// The page's terminal: one program at a time, in a worker.
const base = new URL('.', import.meta.url);
const PROGRAMS = {
  lua: { module: 'lua.wasm', args: ['lua5.4', '-i'], hint: 'print(6 * 7)' },
  sqlite3: { module: 'sqlite3.wasm', args: ['sqlite3', '-interactive', 'data.db'], hint: 'select sqlite_version();' },
};
const element = (id) => document.getElementById(`evm-${id}`);
const decoder = new TextDecoder();
const query = new URLSearchParams(location.search);
let worker = null;
let files = new Map();
let id = '';
let control = null;

/** Show text in the terminal. */
function show(text, kind = 'stdout') {
  const span = document.createElement('span');
  span.className = kind;
  span.textContent = text;
  element('screen').append(span);
  element('screen').scrollTop = element('screen').scrollHeight;
}

/** Give the program bytes to read; null: the end. */
function send(bytes) {
  control.postMessage({ id, bytes });
}

async function ready() {
  const registration = await navigator.serviceWorker.register(new URL('stdin.js', base), { scope: base.pathname });
  const worker = registration.active ?? registration.waiting ?? registration.installing;
  if (worker.state !== 'activated') {
    await new Promise((done) => worker.addEventListener('statechange', () => worker.state === 'activated' && done()));
  }
  return registration.active;
}

function end(text) {
  show(`\n[${text}]\n`, 'note');
  if (query.has('report')) fetch('report', { method: 'POST', body: element('screen').textContent });
  worker = null;
  element('state').textContent = 'ended';
  element('line').disabled = true;
}

/** Start a program anew. */
async function start(name) {
  worker?.terminate();
  element('screen').textContent = '';
  element('state').textContent = 'loading';
  control = await ready();
  id = String(Math.random()).slice(2);
  worker = new Worker(new URL('worker.js', base), { type: 'module' });
  worker.onmessage = ({ data }) => {
    switch (data.kind) {
      case 'stdout':
      case 'stderr':
        show(decoder.decode(data.bytes, { stream: true }), data.kind);
        break;
      case 'starts':
        element('state').textContent = 'running';
        element('line').disabled = false;
        element('line').focus();
        break;
      case 'reads':
        element('state').textContent = 'reading';
        break;
      case 'ended':
        files = data.files;
        end(`exit status ${data.status}; files: ${[...files.keys()].join(' ') || 'none'}`);
        break;
      case 'failed':
        end(data.message);
    }
  };
  worker.onerror = (e) => end(e.message);
  const p = PROGRAMS[name];
  element('line').placeholder = p.hint;
  worker.postMessage({ module: new URL(p.module, base).href, args: p.args, env: { TERM: 'dumb' }, files, id });
}

element('form').addEventListener('submit', (e) => {
  e.preventDefault();
  const line = `${element('line').value}\n`;
  element('line').value = '';
  element('state').textContent = 'running';
  show(line, 'typed');
  send(new TextEncoder().encode(line));
});
element('eof').addEventListener('click', () => send(null));
for (const name of Object.keys(PROGRAMS)) {
  element(name).addEventListener('click', () => start(name));
}
// For the tests: ?run=lua&type=print(1)&report starts a program, types a line, and tells the server what was seen.
if (query.has('run')) {
  await start(query.get('run'));
  for (const line of query.getAll('type')) send(new TextEncoder().encode(`${line}\n`));
  send(null);
}
