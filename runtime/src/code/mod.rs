//! Translations: where compiled code lives, and which guest addresses have it.

pub(crate) mod kept;
pub(crate) mod memory;
pub(crate) mod records;
pub(crate) mod space;
pub(crate) mod tables;
pub(crate) mod targets;
pub(crate) mod translate;
