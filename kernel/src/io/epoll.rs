//! epoll(7).
//!
//! Each watched file has an [`Item`] that listens to the file's queue. A wake puts the item on the ready list (at most
//! once) and wakes the epoll's own queue. `wait` takes items off the list *before* it asks the file what is ready, so a
//! wake in between puts it back and nothing is lost; level-triggered items that were ready go back on the list.
//!
//! An item holds its description weakly: closing the last descriptor removes the file, as in Linux.
//!
//! Lock order: `ctl` (changes only), then nothing or `state`. No file is called with `state` held.

use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{Description, File, Ready, Stat};
use crate::wait::{Blocking, Listener, WaitQueue};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// EPOLLET
pub const EPOLLET: u32 = 1 << 31;
/// EPOLLONESHOT
pub const EPOLLONESHOT: u32 = 1 << 30;
/// EPOLLWAKEUP (accepted, no effect)
pub const EPOLLWAKEUP: u32 = 1 << 29;
/// EPOLLEXCLUSIVE (accepted: every waiter may be woken)
pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
const MODES: u32 = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE;
const ALWAYS: u32 = Ready::ERR.bits() | Ready::HUP.bits();
/// How deep epolls may watch epolls.
const MAX_NESTS: usize = 5;

/// `struct epoll_event`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Readiness and modes.
    pub events: u32,
    /// The caller's data.
    pub data: u64,
}

type Key = (i32, usize);

struct ItemState {
    event: Event,
    /// On the ready list.
    listed: bool,
}

struct Item {
    key: Key,
    desc: Weak<Description>,
    epoll: Weak<Shared>,
    state: Mutex<ItemState>,
}

impl Item {
    /// Put it on the ready list.
    fn list(self: &Arc<Self>, shared: &Shared) {
        let mut st = lock(&self.state);
        if st.event.events & !MODES != 0 && !st.listed {
            st.listed = true;
            drop(st);
            lock(&shared.state).ready.push_back(self.clone());
        }
    }
    fn ready(&self, d: &Description) -> u32 {
        let wanted = lock(&self.state).event.events;
        if wanted & !MODES == 0 {
            return 0; // disarmed by EPOLLONESHOT
        }
        d.file.poll().bits() & (wanted | ALWAYS)
    }
}

struct Handle(Weak<Item>);
impl Listener for Handle {
    fn notify(&self) {
        if let Some(item) = self.0.upgrade()
            && let Some(shared) = item.epoll.upgrade()
        {
            item.list(&shared);
            shared.queue.wake_all();
        }
    }
}

struct Entry {
    item: Arc<Item>,
    handle: Arc<dyn Listener>,
}

#[derive(Default)]
struct State {
    items: HashMap<Key, Entry>,
    ready: VecDeque<Arc<Item>>,
    /// Look for items of closed files when there are as many items.
    prune_at: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    queue: WaitQueue,
}

/// An epoll instance.
pub struct Epoll {
    shared: Arc<Shared>,
    ctl: Mutex<()>,
    ino: u64,
}

impl Default for Epoll {
    fn default() -> Epoll {
        Epoll { shared: Arc::default(), ctl: Mutex::default(), ino: new_ino() }
    }
}

/// One change at a time over all epolls, so that two cannot make a cycle together.
static NESTING: Mutex<()> = Mutex::new(());

impl Epoll {
    /// epoll_ctl(2) for the file `desc` at number `fd`. `op` is EPOLL_CTL_*; `this` is the epoll's own description.
    pub fn ctl(
        &self,
        this: &Arc<Description>,
        op: i32,
        fd: i32,
        desc: &Arc<Description>,
        event: Option<Event>,
    ) -> Result<()> {
        if Arc::ptr_eq(this, desc) || std::ptr::eq(this.file.as_any(), desc.file.as_any()) {
            return Err(Errno::EINVAL);
        }
        let Some(queue) = desc.file.queue() else {
            return Err(Errno::EPERM);
        };
        let nested = desc.file.as_any().downcast_ref::<Epoll>();
        let _all = (nested.is_some() && op == libc::EPOLL_CTL_ADD).then(|| lock(&NESTING));
        let _ctl = lock(&self.ctl);
        let key = (fd, Arc::as_ptr(desc) as usize);
        let found = lock(&self.shared.state).items.get(&key).map(|e| e.item.clone());
        match op {
            libc::EPOLL_CTL_ADD => {
                let event = event.ok_or(Errno::EFAULT)?;
                if event.events & EPOLLEXCLUSIVE != 0
                    && (nested.is_some() || event.events & !(MODES & !EPOLLONESHOT | ALWAYS | 0x5 | 0x40 | 0x100) != 0)
                {
                    return Err(Errno::EINVAL);
                }
                if found.is_some() {
                    return Err(Errno::EEXIST);
                }
                if let Some(e) = nested
                    && (e.reaches(self, 0) || e.depth(0) + 1 >= MAX_NESTS)
                {
                    return Err(Errno::ELOOP);
                }
                let item = Arc::new(Item {
                    key,
                    desc: Arc::downgrade(desc),
                    epoll: Arc::downgrade(&self.shared),
                    state: Mutex::new(ItemState { event: armed(event), listed: false }),
                });
                let handle: Arc<dyn Listener> = Arc::new(Handle(Arc::downgrade(&item)));
                queue.listen(Arc::downgrade(&handle));
                {
                    let mut st = lock(&self.shared.state);
                    if st.items.len() >= st.prune_at.max(64) {
                        st.items.retain(|_, e| e.item.desc.strong_count() > 0);
                        st.prune_at = st.items.len() * 2;
                    }
                    st.items.insert(key, Entry { item: item.clone(), handle });
                }
                self.look(&item, desc);
            }
            libc::EPOLL_CTL_MOD => {
                let event = event.ok_or(Errno::EFAULT)?;
                let item = found.ok_or(Errno::ENOENT)?;
                {
                    let mut st = lock(&item.state);
                    if (event.events | st.event.events) & EPOLLEXCLUSIVE != 0 {
                        return Err(Errno::EINVAL);
                    }
                    st.event = armed(event);
                }
                self.look(&item, desc);
            }
            libc::EPOLL_CTL_DEL => {
                let mut st = lock(&self.shared.state);
                let Some(e) = st.items.remove(&key) else {
                    return Err(Errno::ENOENT);
                };
                st.ready.retain(|i| !Arc::ptr_eq(i, &e.item));
                drop(st);
                queue.unlisten(&Arc::downgrade(&e.handle));
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
    fn look(&self, item: &Arc<Item>, desc: &Description) {
        if item.ready(desc) != 0 {
            item.list(&self.shared);
            self.shared.queue.wake_all();
        }
    }
    fn nested(&self) -> Vec<Arc<Description>> {
        // Dropping a description may need the lock: look at them outside of it.
        let all: Vec<_> = lock(&self.shared.state).items.values().filter_map(|e| e.item.desc.upgrade()).collect();
        all.into_iter().filter(|d| d.file.as_any().is::<Epoll>()).collect()
    }
    fn reaches(&self, other: &Epoll, depth: usize) -> bool {
        let hit = |d: &Arc<Description>| {
            d.file
                .as_any()
                .downcast_ref::<Epoll>()
                .is_some_and(|e| std::ptr::eq(e, other) || e.reaches(other, depth + 1))
        };
        depth < MAX_NESTS && self.nested().iter().any(hit)
    }
    fn depth(&self, at: usize) -> usize {
        if at >= MAX_NESTS {
            return at;
        }
        let below = |d: &Arc<Description>| d.file.as_any().downcast_ref::<Epoll>().map(|e| e.depth(at + 1));
        self.nested().iter().filter_map(below).max().unwrap_or(at)
    }
    /// Take up to `max` ready events.
    fn collect(&self, max: usize) -> Vec<Event> {
        let mut out = Vec::new();
        let taken: Vec<Arc<Item>> = std::mem::take(&mut lock(&self.shared.state).ready).into();
        let mut again = Vec::new();
        let mut rest = taken.into_iter();
        for item in rest.by_ref() {
            let wanted = {
                let mut st = lock(&item.state);
                st.listed = false;
                st.event
            };
            let Some(desc) = item.desc.upgrade() else {
                lock(&self.shared.state).items.remove(&item.key);
                continue;
            };
            let got = item.ready(&desc);
            if got == 0 {
                continue;
            }
            out.push(Event { events: got, data: wanted.data });
            if wanted.events & EPOLLONESHOT != 0 {
                lock(&item.state).event.events &= MODES;
            } else if wanted.events & EPOLLET == 0 {
                again.push(item);
            }
            if out.len() == max {
                break;
            }
        }
        // What was not looked at stays first; what was level-triggered and ready comes after it.
        let left: Vec<Arc<Item>> = rest.collect();
        let more = !left.is_empty() || !again.is_empty();
        if more {
            {
                let mut st = lock(&self.shared.state);
                for i in left.into_iter().rev() {
                    st.ready.push_front(i);
                }
            }
            for i in again {
                // Unless it was removed meanwhile.
                if lock(&self.shared.state).items.get(&i.key).is_some_and(|e| Arc::ptr_eq(&e.item, &i)) {
                    i.list(&self.shared);
                }
            }
            // Another waiter may have found the list empty meanwhile.
            self.shared.queue.wake_all();
        }
        out
    }
    /// epoll_wait(2): 0 events at the deadline, EINTR.
    pub fn wait(&self, who: &dyn Blocking, max: usize, deadline: Option<Instant>) -> Result<Vec<Event>> {
        let look = || Some(self.collect(max)).filter(|v| !v.is_empty());
        if let Some(v) = look() {
            return Ok(v);
        }
        if deadline.is_some_and(|d| d <= Instant::now()) {
            return Ok(Vec::new());
        }
        match self.shared.queue.wait(who, deadline, look) {
            Err(Errno::ETIMEDOUT) => Ok(Vec::new()),
            r => r,
        }
    }
}

/// ERR and HUP are always watched; this also tells an armed item from one that EPOLLONESHOT disarmed.
fn armed(e: Event) -> Event {
    Event { events: e.events | ALWAYS, ..e }
}

impl File for Epoll {
    fn stat(&self) -> Result<Stat> {
        Ok(anon_stat(0o600, self.ino))
    }
    fn poll(&self) -> Ready {
        let listed: Vec<Arc<Item>> = lock(&self.shared.state).ready.iter().cloned().collect();
        if listed.iter().any(|i| i.desc.upgrade().is_some_and(|d| i.ready(&d) != 0)) {
            Ready::IN.with_norm()
        } else {
            Ready::empty()
        }
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.shared.queue)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::eventfd::EventFd;
    use crate::io::pipe::pipe;
    use crate::io::poll::tests::Me;
    use std::time::Duration;

    fn epoll() -> Arc<Description> {
        Description::new(Arc::new(Epoll::default()), 0, "")
    }
    fn of(d: &Arc<Description>) -> &Epoll {
        d.file.as_any().downcast_ref().unwrap()
    }
    fn now() -> Option<Instant> {
        Some(Instant::now())
    }
    fn ev(events: u32) -> Option<Event> {
        Some(Event { events, data: 7 })
    }

    #[test]
    fn triggers() {
        let me = Me::default();
        for (mode, seen) in [(0, [1, 1, 1]), (EPOLLET, [1, 0, 1]), (EPOLLONESHOT, [1, 0, 0])] {
            let (e, (r, w)) = (epoll(), pipe(0, (0, 0)));
            of(&e).ctl(&e, libc::EPOLL_CTL_ADD, 3, &r, ev(1 | mode)).unwrap();
            assert_eq!(of(&e).wait(&me, 8, now()), Ok(vec![]));
            w.file.write(&me, 0, b"x", false).unwrap();
            assert!(e.file.poll().contains(Ready::IN));
            let mut got = vec![of(&e).wait(&me, 8, now()).unwrap().len(), of(&e).wait(&me, 8, now()).unwrap().len()];
            w.file.write(&me, 0, b"x", false).unwrap();
            got.push(of(&e).wait(&me, 8, now()).unwrap().len());
            assert_eq!(got, seen);
            of(&e).ctl(&e, libc::EPOLL_CTL_MOD, 3, &r, ev(1)).unwrap();
            assert_eq!(of(&e).wait(&me, 8, now()), Ok(vec![Event { events: 1, data: 7 }]));
            drop(w);
            assert_eq!(of(&e).wait(&me, 8, now()), Ok(vec![Event { events: 17, data: 7 }]));
            drop(r);
            assert_eq!(of(&e).wait(&me, 8, now()), Ok(vec![]));
        }
    }

    #[test]
    fn errors_and_nesting() {
        let me = Me::default();
        let (a, b, (r, w)) = (epoll(), epoll(), pipe(0, (0, 0)));
        assert_eq!(of(&a).ctl(&a, libc::EPOLL_CTL_ADD, 0, &a, ev(1)), Err(Errno::EINVAL));
        assert_eq!(of(&a).ctl(&a, libc::EPOLL_CTL_MOD, 1, &r, ev(1)), Err(Errno::ENOENT));
        assert_eq!(of(&a).ctl(&a, libc::EPOLL_CTL_ADD, 1, &r, ev(1)), Ok(()));
        assert_eq!(of(&a).ctl(&a, libc::EPOLL_CTL_ADD, 1, &r, ev(1)), Err(Errno::EEXIST));
        assert_eq!(of(&b).ctl(&b, libc::EPOLL_CTL_ADD, 2, &a, ev(1)), Ok(()));
        assert_eq!(of(&a).ctl(&a, libc::EPOLL_CTL_ADD, 3, &b, ev(1)), Err(Errno::ELOOP));
        let t = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            w.file.write(&Me::default(), 0, b"x", false).unwrap();
            w
        });
        assert_eq!(of(&b).wait(&me, 8, None).map(|v| v.len()), Ok(1));
        t.join().unwrap();
        r.file.read(&me, 0, &mut [0], false).unwrap();
        assert_eq!(of(&a).ctl(&a, libc::EPOLL_CTL_DEL, 1, &r, None), Ok(()));
        assert_eq!(of(&b).wait(&me, 8, now()), Ok(vec![]));
    }

    #[test]
    fn edge_loses_nothing() {
        let e = epoll();
        let x = Description::new(Arc::new(EventFd::new(0, false)), 0, "");
        of(&e).ctl(&e, libc::EPOLL_CTL_ADD, 3, &x, ev(1 | EPOLLET)).unwrap();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let x = x.clone();
                std::thread::spawn(move || {
                    for _ in 0..5000 {
                        x.file.write(&Me::default(), 0, &1u64.to_le_bytes(), false).unwrap();
                    }
                })
            })
            .collect();
        let (me, mut sum, mut b) = (Me::default(), 0, [0u8; 8]);
        while sum < 10_000 {
            assert_eq!(of(&e).wait(&me, 1, None).map(|v| v.len()), Ok(1));
            while x.file.read(&me, 0, &mut b, true).is_ok() {
                sum += u64::from_le_bytes(b);
            }
        }
        writers.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(sum, 10_000);
    }
}
