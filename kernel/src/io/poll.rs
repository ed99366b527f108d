//! Waiting for several files at once (poll, select).

use crate::errno::{Errno, Result};
use crate::file::{Description, Ready};
use crate::wait::Blocking;
use std::sync::Arc;
use std::time::Instant;

/// One file to wait for.
pub struct Interest {
    /// The file; `None` gives NVAL.
    pub desc: Option<Arc<Description>>,
    /// Readiness asked for (ERR and HUP are always).
    pub events: Ready,
    /// Readiness found.
    pub found: Ready,
}

fn scan(set: &mut [Interest]) -> usize {
    let mut n = 0;
    for i in set {
        i.found = match &i.desc {
            Some(d) => d.file.poll() & (i.events | Ready::ERR | Ready::HUP),
            None => Ready::NVAL,
        };
        n += usize::from(!i.found.is_empty());
    }
    n
}

/// Wait until something of `set` is ready; gives how many are. 0 at the deadline; EINTR. `Some(past)` only looks.
pub fn wait(who: &dyn Blocking, set: &mut [Interest], deadline: Option<Instant>) -> Result<usize> {
    let n = scan(set);
    if n > 0 || deadline.is_some_and(|d| d <= Instant::now()) {
        return Ok(n);
    }
    let w = who.waker();
    let queues: Vec<Arc<Description>> =
        set.iter().filter_map(|i| i.desc.clone()).filter(|d| d.file.queue().is_some()).collect();
    for d in &queues {
        if let Some(q) = d.file.queue() {
            q.register(w);
        }
    }
    let r = loop {
        let n = scan(set);
        if n > 0 {
            break Ok(n);
        }
        if who.interrupted() {
            break Err(Errno::EINTR);
        }
        if !w.sleep(deadline) {
            break Ok(scan(set));
        }
    };
    for d in &queues {
        if let Some(q) = d.file.queue() {
            q.unregister(w);
        }
    }
    r
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::io::pipe::pipe;
    use crate::wait::Waker;
    use std::time::Duration;

    /// A thread for tests.
    #[derive(Default)]
    pub(crate) struct Me {
        pub(crate) waker: Arc<Waker>,
        pub(crate) stop: Arc<std::sync::atomic::AtomicBool>,
    }
    impl Blocking for Me {
        fn waker(&self) -> &Arc<Waker> {
            &self.waker
        }
        fn interrupted(&self) -> bool {
            self.stop.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    #[test]
    fn several() {
        let me = Me::default();
        let (r, w) = pipe(0, (0, 0));
        let (r2, w2) = pipe(0, (0, 0));
        let mut set = [
            Interest { desc: Some(r), events: Ready::IN, found: Ready::empty() },
            Interest { desc: Some(r2.clone()), events: Ready::IN, found: Ready::empty() },
        ];
        let soon = || Some(Instant::now() + Duration::from_millis(20));
        assert_eq!(wait(&me, &mut set, soon()), Ok(0));
        let t = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            w2.file.write(&Me::default(), 0, b"a", false).unwrap();
        });
        assert_eq!(wait(&me, &mut set, None), Ok(1));
        assert_eq!(set[1].found & Ready::IN, Ready::IN);
        t.join().unwrap();
        r2.file.read(&me, 0, &mut [0], false).unwrap();
        let (stop, waker) = (me.stop.clone(), me.waker.clone());
        let mut set = [Interest { desc: Some(w), events: Ready::IN, found: Ready::empty() }];
        let t = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            waker.wake();
        });
        assert_eq!(wait(&me, &mut set, None), Err(Errno::EINTR));
        t.join().unwrap();
    }
}
