//! The machine beneath: its limits, the log, the metrics, the process, systemd.
//!
//! May import `protocol` and `config`. It knows nothing of connections, rooms or members: others
//! tell it what to count and log. In reading order:
//!
//! - [`limits`]: how many connections the system can carry.
//! - [`logging`]: the log, written by a thread of its own.
//! - [`metrics`]: what is counted, in Prometheus' text format.
//! - [`network`]: the addresses of this machine.
//! - [`process`]: what the process costs.
//! - [`systemd`]: its sockets, readiness and watchdog.

pub mod limits;
pub mod logging;
pub mod metrics;
pub mod network;
pub mod process;
pub mod systemd;
