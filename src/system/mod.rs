//! The machine beneath.

pub mod limits;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod systemd;
