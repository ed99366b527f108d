//! Translations that are kept from run to run.
//!
//! Terms. An *image* is an executable private mapping of a file ([`images`]); as images are mapped where their path decides,
//! its translations are good for every process that maps it. They are one file of the *folder* ([`folder`], [`mod@format`]), which
//! is mapped and executed as it lies ([`mapped`]): code has no host addresses, and the entry indices in it are those of
//! the image's *slots*, which are numbered once and for all when its file is made.
//!
//! A run never writes. It tells the *translator* ([`worker`]), a process that was forked before the run was confined and that
//! runs no guest code, which blocks it had to translate itself; that process translates them anew ([`maker`]) from the bytes of
//! the files and writes the folder. So a guest that has taken over its host process may spoil its own run and nothing
//! else: whatever it asks for, it gets right translations of some bytes, and those are used only where these bytes are, since a
//! page's bytes are compared before its translations are installed ([`crate::code`]).

pub mod artifact;
pub mod discover;
pub mod folder;
pub mod format;
pub(crate) mod images;
pub(crate) mod maker;
pub(crate) mod mapped;
mod print;
pub(crate) mod units;
pub(crate) mod worker;

/// Entry indices from here on are slots of images; those before are given out one by one.
pub(crate) const SLOTS: u32 = crate::code::space::MAX_ENTRIES as u32;

/// Whether translations are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// No.
    #[default]
    Off,
    /// Those there are, are used; none are added.
    Read,
    /// Yes.
    On,
}

/// Where and how translations are kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// See [`Mode`].
    pub mode: Mode,
    /// The folder.
    pub folder: std::path::PathBuf,
    /// Bytes that it may hold.
    pub size: u64,
    /// Translations made ahead of time, which are used before those of the folder.
    pub artifact: Option<std::sync::Arc<artifact::Artifact>>,
}

impl Default for Config {
    fn default() -> Config {
        Config { mode: Mode::Off, folder: folder::default_path(), size: folder::DEFAULT_SIZE, artifact: None }
    }
}
