//! The clocks of a job: those of the host (in UTC), or a virtual one that advances with the work done.
//!
//! The virtual clock starts at a configured time. Each reading adds [`STEP`], and a wait that ends by its timeout moves
//! it to the deadline, so a program sees time pass, and the same times in each run as long as one thread runs at a time.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What one reading of the virtual clock adds.
pub const STEP: Duration = Duration::from_nanos(1000);

/// Where time comes from.
#[derive(Clone, Copy, Debug, Default)]
pub enum ClockMode {
    /// The host's clocks.
    #[default]
    Host,
    /// A virtual clock that starts at this time since the epoch.
    Virtual {
        /// CLOCK_REALTIME at the start.
        start: Duration,
    },
}

/// The clocks of a job.
#[derive(Debug)]
pub struct Clock {
    mode: ClockMode,
    origin: Instant,
    /// Virtual: time since the start.
    elapsed: Mutex<Duration>,
}

/// What the monotonic clock shows when the job starts (the job's "boot" was this long ago).
const UPTIME: Duration = Duration::from_secs(100);

impl Clock {
    /// Clocks that start now.
    pub fn new(mode: ClockMode) -> Clock {
        Clock { mode, origin: Instant::now(), elapsed: Mutex::new(Duration::ZERO) }
    }
    /// Whether it is virtual.
    pub fn is_virtual(&self) -> bool {
        matches!(self.mode, ClockMode::Virtual { .. })
    }
    fn elapsed(&self, step: Duration) -> Duration {
        match self.mode {
            ClockMode::Host => self.origin.elapsed(),
            ClockMode::Virtual { .. } => {
                let mut e = self.elapsed.lock().unwrap_or_else(PoisonError::into_inner);
                *e += step;
                *e
            }
        }
    }
    /// CLOCK_MONOTONIC (and BOOTTIME).
    pub fn monotonic(&self) -> Duration {
        UPTIME + self.elapsed(STEP)
    }
    /// CLOCK_REALTIME.
    pub fn realtime(&self) -> Duration {
        match self.mode {
            ClockMode::Host => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            ClockMode::Virtual { start } => start + self.elapsed(STEP),
        }
    }
    /// CLOCK_REALTIME as the times of files show it: on the host as of its last tick, as Linux has it, which is read in a fraction
    /// of the time.
    pub fn file_time(&self) -> Duration {
        #[cfg(not(target_family = "wasm"))]
        if matches!(self.mode, ClockMode::Host) {
            let t = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
            return Duration::new(t.tv_sec.max(0) as u64, t.tv_nsec as u32);
        }
        self.realtime()
    }
    /// Wall time since the job started, on its clock, without advancing it.
    pub fn since_start(&self) -> Duration {
        self.elapsed(Duration::ZERO)
    }
    /// Monotonic time now, without advancing a virtual clock.
    pub fn peek(&self) -> Duration {
        UPTIME + self.elapsed(Duration::ZERO)
    }
    /// Real minus monotonic time now, for the conversion of absolute times.
    pub fn real_offset(&self) -> Duration {
        match self.mode {
            ClockMode::Host => self.realtime().saturating_sub(self.peek()),
            ClockMode::Virtual { start } => start.saturating_sub(UPTIME),
        }
    }
    /// Host time at which the monotonic clock will show `at`, for a sleep; `None` if too far away to matter.
    pub fn host_deadline(&self, at: Duration) -> Option<Instant> {
        Instant::now().checked_add(at.saturating_sub(self.peek()))
    }
    /// A wait ended by its timeout at monotonic time `at`: a virtual clock moves there.
    pub fn reached(&self, at: Duration) {
        if self.is_virtual() {
            let mut e = self.elapsed.lock().unwrap_or_else(PoisonError::into_inner);
            *e = (*e).max(at.saturating_sub(UPTIME));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_time() {
        let c = Clock::new(ClockMode::Virtual { start: Duration::from_secs(1_000_000_000) });
        let a = c.realtime();
        assert_eq!(c.realtime() - a, STEP);
        let m = c.monotonic();
        c.reached(m + Duration::from_secs(5));
        assert_eq!(c.monotonic() - m, Duration::from_secs(5) + STEP);
        assert_eq!(c.realtime() - c.monotonic() + STEP + STEP - STEP, c.real_offset() + STEP - STEP);
    }
}
