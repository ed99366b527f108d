// As much of wasi_snapshot_preview1 as lifted programs use, over files in memory. No dependencies; runs in a worker of a
// page as well as in Node (the tests do that).
//
// `new Wasi({args, env, files, stdin, stdout, stderr})`: `files` is a Map from paths without a leading slash to Uint8Array, which the
// program sees as its folder "." and changes; `stdin()` gives the next bytes (a Uint8Array, empty at the end), and may
// block; `stdout(bytes)` and `stderr(bytes)` take what is written. `terminal`: the program finds a terminal there.

const OK = 0, BADF = 8, EXIST = 20, INVAL = 28, ISDIR = 31, NOENT = 44, NOSYS = 52, NOTDIR = 54, NOTEMPTY = 55;
const UNKNOWN = 0, TTY = 2, DIR = 3, FILE = 4;
const RIGHTS = (1n << 30n) - 1n;

/** What ends a program: its status. */
export class Exit extends Error {
  constructor(code) {
    super(`exit status ${code}`);
    this.code = code;
  }
}

/** A file whose bytes may grow. */
class Node {
  constructor(bytes) {
    this.kind = bytes ? FILE : DIR;
    this.bytes = bytes;
    this.size = bytes ? bytes.length : 0;
    this.children = new Map();
    this.ino = Node.next++;
    this.time = BigInt(Date.now()) * 1000000n;
  }
  resize(size) {
    if (size > this.bytes.length) {
      const more = new Uint8Array(Math.max(size, 2 * this.bytes.length));
      more.set(this.bytes.subarray(0, this.size));
      this.bytes = more;
    } else if (size < this.size) {
      this.bytes.fill(0, size, this.size);
    }
    this.size = size;
  }
}
Node.next = 1n;

export class Wasi {
  constructor({ args, env = {}, files = new Map(), stdin, stdout, stderr, terminal = true }) {
    const text = new TextEncoder();
    const list = (all) => all.map((s) => text.encode(`${s}\0`));
    this.args = list(args);
    this.env = list(Object.entries(env).map(([k, v]) => `${k}=${v}`));
    this.root = new Node();
    for (const [path, bytes] of files) {
      const { dir, name } = this.walk(this.root, path, true);
      dir.children.set(name, new Node(bytes));
    }
    this.streams = [null, stdout, stderr];
    this.stdin = stdin;
    this.stream_kind = terminal ? TTY : UNKNOWN;
    this.waiting = new Uint8Array(0);
    // 0 to 2: the standard streams, 3: the folder.
    this.fds = new Map([[0, {}], [1, {}], [2, {}], [3, { node: this.root }]]);
    this.imports = { wasi_snapshot_preview1: {} };
    for (const name of Object.getOwnPropertyNames(Wasi.prototype).filter((n) => /^[a-z]+_/.test(n))) {
      this.imports.wasi_snapshot_preview1[name] = (...a) => this[name](...a);
    }
  }
  /** Run a module (a WebAssembly.Module); gives its exit status. */
  start(module) {
    // Whatever else it imports is not there.
    for (const i of WebAssembly.Module.imports(module)) {
      this.imports[i.module] ??= {};
      this.imports[i.module][i.name] ??= () => NOSYS;
    }
    const instance = new WebAssembly.Instance(module, this.imports);
    this.memory = instance.exports.memory;
    try {
      instance.exports._start();
      return 0;
    } catch (e) {
      if (e instanceof Exit) return e.code;
      throw e;
    }
  }
  /** The files as they are now. */
  files() {
    const out = new Map();
    const visit = (node, path) => {
      if (node.kind === FILE) out.set(path, node.bytes.slice(0, node.size));
      for (const [name, child] of node.children) visit(child, path ? `${path}/${name}` : name);
    };
    visit(this.root, '');
    return out;
  }

  // ---- memory ------------------------------------------------------------------------------------

  get view() {
    return new DataView(this.memory.buffer);
  }
  bytes(at, len) {
    return new Uint8Array(this.memory.buffer, at, len);
  }
  string(at, len) {
    return new TextDecoder().decode(this.bytes(at, len).slice());
  }
  /** The buffers of an array of them. */
  buffers(at, count) {
    const v = this.view;
    return Array.from({ length: count }, (_, i) =>
      this.bytes(v.getUint32(at + 8 * i, true), v.getUint32(at + 8 * i + 4, true)));
  }
  put(list, pointers, data) {
    for (const s of list) {
      this.view.setUint32(pointers, data, true);
      this.bytes(data, s.length).set(s);
      pointers += 4;
      data += s.length;
    }
    return OK;
  }
  sizes(list, count, size) {
    this.view.setUint32(count, list.length, true);
    this.view.setUint32(size, list.reduce((n, s) => n + s.length, 0), true);
    return OK;
  }
  stat_to(at, node) {
    const v = this.view;
    this.bytes(at, 64).fill(0);
    v.setBigUint64(at, 1n, true);
    v.setBigUint64(at + 8, node ? node.ino : 0n, true);
    v.setUint8(at + 16, node ? node.kind : this.stream_kind);
    v.setBigUint64(at + 24, 1n, true);
    v.setBigUint64(at + 32, BigInt(node ? node.size : 0), true);
    for (const o of [40, 48, 56]) v.setBigUint64(at + o, node ? node.time : 0n, true);
    return OK;
  }

  // ---- names -------------------------------------------------------------------------------------

  /** The folder and last name of a path, and what is there. */
  walk(from, path, make = false) {
    const names = path.split('/').filter((n) => n && n !== '.');
    let dir = from;
    const up = [];
    for (const name of names.slice(0, -1)) {
      if (name === '..') {
        dir = up.pop() ?? from;
        continue;
      }
      let next = dir.children.get(name);
      if (!next && make) dir.children.set(name, (next = new Node()));
      if (!next) return { error: NOENT };
      if (next.kind !== DIR) return { error: NOTDIR };
      up.push(dir);
      dir = next;
    }
    const name = names.at(-1);
    return { dir, name, node: name === undefined ? dir : dir.children.get(name) };
  }
  at(fd, path, len) {
    const f = this.fds.get(fd);
    if (!f?.node) return { error: BADF };
    if (f.node.kind !== DIR) return { error: NOTDIR };
    return this.walk(f.node, this.string(path, len));
  }
  existing(fd, path, len) {
    const w = this.at(fd, path, len);
    return w.error || w.node ? w : { error: NOENT };
  }
  file(fd) {
    const node = this.fds.get(fd)?.node;
    return node?.kind === FILE ? node : null;
  }

  // ---- the functions -----------------------------------------------------------------------------

  args_get(p, d) { return this.put(this.args, p, d); }
  args_sizes_get(c, s) { return this.sizes(this.args, c, s); }
  environ_get(p, d) { return this.put(this.env, p, d); }
  environ_sizes_get(c, s) { return this.sizes(this.env, c, s); }
  random_get(at, len) {
    for (let i = 0; i < len; i += 65536) {
      const part = new Uint8Array(Math.min(65536, len - i));
      crypto.getRandomValues(part);
      this.bytes(at + i, part.length).set(part);
    }
    return OK;
  }
  clock_time_get(id, _, at) {
    const ms = id === 0 ? performance.timeOrigin + performance.now() : performance.now();
    this.view.setBigUint64(at, BigInt(Math.round(ms * 1e6)), true);
    return OK;
  }
  clock_res_get(_, at) {
    this.view.setBigUint64(at, 1000000n, true);
    return OK;
  }
  sched_yield() { return OK; }
  proc_exit(code) { throw new Exit(code); }
  /** Clocks are waited for, streams are always ready. */
  poll_oneoff(subs, events, count, done) {
    const v = this.view;
    let n = 0;
    const event = (i, type) => {
      this.bytes(events + 32 * n, 32).fill(0);
      v.setBigUint64(events + 32 * n, v.getBigUint64(subs + 48 * i, true), true);
      v.setUint8(events + 32 * n + 10, type);
      n++;
    };
    let first = null;
    for (let i = 0; i < count; i++) {
      const type = v.getUint8(subs + 48 * i + 8);
      if (type !== 0) {
        event(i, type);
        continue;
      }
      const id = v.getUint32(subs + 48 * i + 16, true);
      let ms = Number(v.getBigUint64(subs + 48 * i + 24, true)) / 1e6;
      if (v.getUint16(subs + 48 * i + 40, true) & 1) {
        ms -= id === 0 ? performance.timeOrigin + performance.now() : performance.now();
      }
      if (!first || ms < first.ms) first = { ms, i };
    }
    if (n === 0 && first) {
      const end = performance.now() + first.ms;
      while (performance.now() < end);
      event(first.i, 0);
    }
    v.setUint32(done, n, true);
    return OK;
  }

  fd_prestat_get(fd, at) {
    if (fd !== 3) return BADF;
    this.view.setUint32(at, 0, true);
    this.view.setUint32(at + 4, 1, true);
    return OK;
  }
  fd_prestat_dir_name(fd, at) {
    if (fd !== 3) return BADF;
    this.bytes(at, 1)[0] = 0x2e;
    return OK;
  }
  fd_fdstat_get(fd, at) {
    const f = this.fds.get(fd);
    if (!f) return BADF;
    this.bytes(at, 24).fill(0);
    this.view.setUint8(at, f.node ? f.node.kind : this.stream_kind);
    this.view.setBigUint64(at + 8, RIGHTS, true);
    this.view.setBigUint64(at + 16, RIGHTS, true);
    return OK;
  }
  fd_fdstat_set_flags() { return OK; }
  fd_close(fd) { return this.fds.delete(fd) ? OK : BADF; }
  fd_sync() { return OK; }
  fd_datasync() { return OK; }
  fd_filestat_get(fd, at) {
    const f = this.fds.get(fd);
    return f ? this.stat_to(at, f.node) : BADF;
  }
  fd_filestat_set_size(fd, size) {
    const node = this.file(fd);
    if (!node) return BADF;
    node.resize(Number(size));
    return OK;
  }
  fd_pread(fd, iovs, count, offset, done) {
    const node = this.file(fd);
    if (!node) return BADF;
    let at = Number(offset), n = 0;
    for (const b of this.buffers(iovs, count)) {
      const part = node.bytes.subarray(at, Math.min(at + b.length, node.size));
      b.set(part);
      at += part.length;
      n += part.length;
    }
    this.view.setUint32(done, n, true);
    return OK;
  }
  fd_pwrite(fd, iovs, count, offset, done) {
    const node = this.file(fd);
    if (!node) return BADF;
    let at = Number(offset), n = 0;
    for (const b of this.buffers(iovs, count)) {
      if (at + b.length > node.size) node.resize(at + b.length);
      node.bytes.set(b, at);
      at += b.length;
      n += b.length;
    }
    node.time = BigInt(Date.now()) * 1000000n;
    this.view.setUint32(done, n, true);
    return OK;
  }
  fd_read(fd, iovs, count, done) {
    if (fd !== 0) return BADF;
    if (!this.waiting.length) this.waiting = this.stdin();
    let n = 0;
    for (const b of this.buffers(iovs, count)) {
      const part = this.waiting.subarray(0, b.length);
      b.set(part);
      this.waiting = this.waiting.subarray(part.length);
      n += part.length;
    }
    this.view.setUint32(done, n, true);
    return OK;
  }
  fd_write(fd, iovs, count, done) {
    const to = this.streams[fd];
    if (!to) return BADF;
    let n = 0;
    for (const b of this.buffers(iovs, count)) {
      if (b.length) to(b.slice());
      n += b.length;
    }
    this.view.setUint32(done, n, true);
    return OK;
  }
  fd_readdir(fd, at, len, cookie, done) {
    const node = this.fds.get(fd)?.node;
    if (!node) return BADF;
    if (node.kind !== DIR) return NOTDIR;
    const all = [['.', node], ['..', node], ...node.children];
    let n = 0;
    for (let i = Number(cookie); i < all.length && n < len; i++) {
      const [name, child] = all[i];
      const text = new TextEncoder().encode(name);
      const entry = new Uint8Array(24 + text.length);
      const v = new DataView(entry.buffer);
      v.setBigUint64(0, BigInt(i + 1), true);
      v.setBigUint64(8, child.ino, true);
      v.setUint32(16, text.length, true);
      v.setUint8(20, child.kind);
      entry.set(text, 24);
      const part = entry.subarray(0, len - n);
      this.bytes(at + n, part.length).set(part);
      n += part.length;
    }
    this.view.setUint32(done, n, true);
    return OK;
  }

  path_open(fd, _, path, len, flags, _base, _inherit, _fdflags, out) {
    const [create, directory, exclusive, truncate] = [1, 2, 4, 8].map((b) => flags & b);
    const w = this.at(fd, path, len);
    if (w.error) return w.error;
    let { node } = w;
    if (!node) {
      if (!create) return NOENT;
      w.dir.children.set(w.name, (node = new Node(new Uint8Array(0))));
    } else if (create && exclusive) {
      return EXIST;
    }
    if (directory && node.kind !== DIR) return NOTDIR;
    if (truncate) {
      if (node.kind === DIR) return ISDIR;
      node.resize(0);
    }
    let n = 4;
    while (this.fds.has(n)) n++;
    this.fds.set(n, { node });
    this.view.setUint32(out, n, true);
    return OK;
  }
  path_filestat_get(fd, _, path, len, at) {
    const w = this.existing(fd, path, len);
    return w.error ?? this.stat_to(at, w.node);
  }
  path_filestat_set_times(fd, _, path, len, _atime, mtime, flags) {
    const w = this.existing(fd, path, len);
    if (w.error) return w.error;
    if (flags & 4) w.node.time = mtime;
    if (flags & 8) w.node.time = BigInt(Date.now()) * 1000000n;
    return OK;
  }
  path_create_directory(fd, path, len) {
    const w = this.at(fd, path, len);
    if (w.error) return w.error;
    if (w.node) return EXIST;
    w.dir.children.set(w.name, new Node());
    return OK;
  }
  path_unlink_file(fd, path, len) {
    const w = this.existing(fd, path, len);
    if (w.error) return w.error;
    if (w.node.kind === DIR) return ISDIR;
    w.dir.children.delete(w.name);
    return OK;
  }
  path_remove_directory(fd, path, len) {
    const w = this.existing(fd, path, len);
    if (w.error) return w.error;
    if (w.node.kind !== DIR) return NOTDIR;
    if (w.node.children.size) return NOTEMPTY;
    if (w.name === undefined) return INVAL;
    w.dir.children.delete(w.name);
    return OK;
  }
  path_rename(fd, path, len, to_fd, to_path, to_len) {
    const from = this.existing(fd, path, len);
    const to = this.at(to_fd, to_path, to_len);
    if (from.error || to.error) return from.error ?? to.error;
    if (to.node?.kind === DIR && to.node.children.size) return NOTEMPTY;
    from.dir.children.delete(from.name);
    to.dir.children.set(to.name, from.node);
    return OK;
  }
  path_link(fd, _, path, len, to_fd, to_path, to_len) {
    const from = this.existing(fd, path, len);
    const to = this.at(to_fd, to_path, to_len);
    if (from.error || to.error) return from.error ?? to.error;
    if (to.node) return EXIST;
    to.dir.children.set(to.name, from.node);
    return OK;
  }
  path_readlink() { return INVAL; }
  path_symlink() { return NOSYS; }
}
